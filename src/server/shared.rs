//! What a server and its connections share.

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::limits::Limits;

/// Every connection holds it: the server itself may be gone before its connections have ended.
pub(super) struct Shared {
    pub(super) limits: Limits,
    /// One token for each request that the service is answering.
    pub(super) requests: TaskTracker,
    pub(super) stage: watch::Sender<Stage>,
}

/// A server's life, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Open,
    /// No new connection is taken; those open go on.
    NoMore,
    /// Every connection ends as soon as it is between two requests.
    Closing,
}

/// Returns when the server has come so far.
pub(super) async fn reached(stage: &mut watch::Receiver<Stage>, far: Stage) {
    // Whoever waits here holds the sender: see `Shared`.
    let _ = stage.wait_for(|stage| *stage >= far).await;
}

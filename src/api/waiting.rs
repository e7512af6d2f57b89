//! What ends every wait before its time.

use tokio_util::sync::CancellationToken;

use crate::serve::Caller;

/// The two things that may end a wait at any moment.
#[derive(Clone)]
pub(super) struct Interruption {
    draining: CancellationToken,
    /// `None` where the request came without a connection.
    caller: Option<Caller>,
}

/// Which of them it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// The sidecar ends.
    Draining,
    /// The caller has hung up; or has only closed its sending half, and still reads.
    HungUp,
}

impl Interruption {
    pub(super) fn new(draining: CancellationToken, caller: Option<Caller>) -> Self {
        Self { draining, caller }
    }

    /// Returns when one of them happens.
    pub(super) async fn comes(&self) -> Interrupted {
        let hung_up = async {
            match &self.caller {
                Some(caller) => caller.hung_up().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.draining.cancelled() => Interrupted::Draining,
            () = hung_up => Interrupted::HungUp,
        }
    }
}

impl Interrupted {
    pub(super) fn is_draining(self) -> bool {
        self == Self::Draining
    }
}

//! What ends every wait before its time.

use tokio_util::sync::CancellationToken;

use crate::server::ConnectionHandle;

/// The two things that may end a wait at any moment.
#[derive(Clone)]
pub(super) struct Interruption {
    draining: CancellationToken,
    /// `None` where the request came without a connection.
    connection: Option<ConnectionHandle>,
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
    pub(super) fn new(draining: CancellationToken, connection: Option<ConnectionHandle>) -> Self {
        Self {
            draining,
            connection,
        }
    }

    /// The connection ends with this answer.
    pub(super) fn close_after(&self) {
        if let Some(connection) = &self.connection {
            connection.close_after();
        }
    }

    /// Returns when the sidecar ends.
    pub(super) async fn drains(&self) {
        self.draining.cancelled().await;
    }

    /// Returns when the caller has closed its sending half.
    pub(super) async fn hangs_up(&self) {
        match &self.connection {
            Some(connection) => connection.hung_up().await,
            None => std::future::pending().await,
        }
    }

    /// Returns when one of them happens.
    pub(super) async fn comes(&self) -> Interrupted {
        tokio::select! {
            biased;
            () = self.draining.cancelled() => Interrupted::Draining,
            () = self.hangs_up() => Interrupted::HungUp,
        }
    }
}

impl Interrupted {
    pub(super) fn is_draining(self) -> bool {
        self == Self::Draining
    }
}

//! The journal of changes, as those see it who follow all payments.

use std::sync::Arc;

use tokio::sync::watch;

use super::log::Log;
use super::model::{Change, OutOfReach};

/// What has happened to the payments started here. Clones share everything.
#[derive(Clone)]
pub(crate) struct Changes {
    log: Arc<Log>,
}

impl Changes {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self { log }
    }

    /// The name of the journal: positions mean nothing in another.
    pub(crate) fn run(&self) -> Arc<String> {
        self.log.run()
    }

    /// Returns the last position.
    pub(crate) fn position(&self) -> u64 {
        self.log.lock().state.changes.position()
    }

    /// Returns a receiver that changes when something is added.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.log.changed()
    }

    /// Returns what came after that position, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`OutOfReach`] if the journal does not reach back so far.
    pub(crate) fn changes_after(
        &self,
        position: u64,
        limit: usize,
    ) -> Result<Vec<Change>, OutOfReach> {
        self.log.lock().state.changes.after(position, limit)
    }
}

//! What the poller has done up to one moment.

use super::StatusPoller;

/// See [`StatusPoller::snapshot`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    /// Answers to watches that took no call of their own to the gateway.
    pub(crate) polls_saved: u64,
}

impl StatusPoller {
    /// What it has done up to now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            polls_saved: self.inner.polls_saved.get(),
        }
    }
}

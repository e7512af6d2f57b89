//! What the poller has done up to one moment.

/// See [`StatusPoller::snapshot`](super::StatusPoller::snapshot).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    /// Answers to watches that took no call of their own to the gateway.
    pub(crate) polls_saved: u64,
    /// References of which a second payment was completed.
    pub(crate) references_paid_twice: u64,
}

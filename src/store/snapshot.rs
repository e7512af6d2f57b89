//! How much is in the store at one moment.

use std::time::Duration;

use super::log::Log;
use crate::clock;
use crate::telemetry::Counts;

/// See [`super::Store::snapshot`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Watch codes in memory, by their last known status.
    pub(crate) tracked: Counts,
    /// How many bytes all of it takes, by an upper estimate.
    pub(crate) bytes: u64,
    /// How many it may take.
    pub(crate) bytes_limit: u64,
    /// Watch codes that were forgotten for want of room.
    pub(crate) let_go: u64,
    /// Payments started here that are neither completed nor let go.
    pub(crate) open: usize,
    /// The age of the oldest of these.
    pub(crate) oldest_open: Option<Duration>,
    /// Messages that the app has not taken yet; `None` where it gets none.
    pub(crate) webhooks_pending: Option<usize>,
    /// The age of the oldest of these.
    pub(crate) oldest_webhook: Option<Duration>,
}

impl Snapshot {
    pub(super) fn take(log: &Log, has_webhook: bool) -> Self {
        let state = &log.lock().state;
        let payments = &state.payments;
        let oldest = payments.open(..).next();
        let oldest_webhook = state.outbox.oldest_pending();
        Self {
            tracked: payments.counts().by_status(),
            bytes: state.bytes(),
            bytes_limit: state.limits().bytes,
            let_go: payments.counts().let_go,
            open: payments.count_open(),
            oldest_open: oldest.map(|stored| clock::now() - stored.since),
            webhooks_pending: has_webhook.then(|| state.outbox.pending()),
            oldest_webhook: oldest_webhook.map(|since| clock::now() - since),
        }
    }
}

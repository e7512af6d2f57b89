//! What the rooms say of themselves at one moment.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;

use crate::gateway::{self, Gateway};
use crate::start::{self, Starter};
use crate::store::{self, Store};
use crate::telemetry::{Counts, Tally};
use crate::watch::{self, StatusPoller};

/// Those that are asked.
pub(crate) struct Rooms {
    pub(crate) starter: Starter,
    pub(crate) poller: StatusPoller,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) store: Store,
    /// Of the webhooks; `None` where none are posted.
    pub(crate) tries: Option<Tally>,
    /// Callers who wait, by the way they wait.
    pub(crate) waiters: Tally<Gauge>,
    /// Requests answered with an error, by its code.
    pub(crate) refusals: Tally,
    /// How much memory the process takes at most.
    pub(crate) memory_bound: u64,
}

/// What they said.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) start: start::Snapshot,
    pub(super) watch: watch::Snapshot,
    pub(super) gateway: gateway::Snapshot,
    pub(super) store: store::Snapshot,
    pub(super) tries: Counts,
    pub(super) waiters: Counts,
    pub(super) refused: Counts,
}

impl Rooms {
    /// As they are now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            start: self.starter.snapshot(),
            watch: self.poller.snapshot(),
            gateway: self.gateway.snapshot(),
            store: self.store.snapshot(),
            tries: self.tries.as_ref().map(Tally::counts).unwrap_or_default(),
            waiters: self.waiters.counts(),
            refused: self.refusals.counts(),
        }
    }
}

/// All of them together.
pub(super) fn sum(counts: &Counts) -> u64 {
    counts.iter().map(|(_, count)| count).sum()
}

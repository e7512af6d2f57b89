//! Room for those who wait: each holds a connection, and starts must find one too.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;

/// Three quarters of the connections, for all who wait together.
pub(super) struct WaiterLimit {
    free: Arc<Semaphore>,
    taken: Family<Kind, Gauge>,
}

/// Who waits, from a closed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Kind {
    kind: &'static str,
}

impl Kind {
    pub(super) const LONG_POLL: Self = Self { kind: "long_poll" };
    pub(super) const STREAM: Self = Self { kind: "stream" };
    pub(super) const EVENTS: Self = Self { kind: "events" };
}

/// Taken until it is dropped.
pub(super) struct WaiterSlot {
    taken: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl WaiterLimit {
    pub(super) fn new(connections: usize) -> Self {
        let slots =
            (connections / 4 * 3 + connections % 4 * 3 / 4).clamp(1, Semaphore::MAX_PERMITS);
        let taken = Family::default();
        for kind in [Kind::LONG_POLL, Kind::STREAM, Kind::EVENTS] {
            drop(taken.get_or_create(&kind));
        }
        Self {
            free: Arc::new(Semaphore::new(slots)),
            taken,
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// When none is free.
    pub(super) fn take(&self, kind: &Kind) -> Result<WaiterSlot, Problem> {
        let permit = self
            .free
            .clone()
            .try_acquire_owned()
            .map_err(|_| Problem::too_many_waiters())?;
        let taken = self.taken.get_or_create(kind).clone();
        taken.inc();
        Ok(WaiterSlot {
            taken,
            _permit: permit,
        })
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "waiters",
            "Callers who wait for a change, by the way they wait",
            self.taken.clone(),
        );
    }
}

impl Drop for WaiterSlot {
    fn drop(&mut self) {
        self.taken.dec();
    }
}

//! Room for those who wait: each holds a connection, and starts must find one too.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::telemetry::Tally;

/// Three quarters of the connections, for all who wait together.
pub(super) struct WaiterLimit {
    free: Arc<Semaphore>,
    taken: Tally<Gauge>,
}

/// Who waits, from a closed set.
#[derive(Clone, Copy)]
pub(super) struct Kind(&'static str);

impl Kind {
    pub(super) const LONG_POLL: Self = Self("long_poll");
    pub(super) const STREAM: Self = Self("stream");
    pub(super) const EVENTS: Self = Self("events");
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
        let kinds = [Kind::LONG_POLL, Kind::STREAM, Kind::EVENTS].map(|kind| kind.0);
        Self {
            free: Arc::new(Semaphore::new(slots)),
            taken: Tally::new("kind", &kinds),
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// When none is free.
    pub(super) fn take(&self, kind: Kind) -> Result<WaiterSlot, Problem> {
        let permit = self
            .free
            .clone()
            .try_acquire_owned()
            .map_err(|_| Problem::too_many_waiters())?;
        let taken = self.taken.of(kind.0);
        taken.inc();
        Ok(WaiterSlot {
            taken,
            _permit: permit,
        })
    }

    /// How many are taken, by who waits.
    pub(super) fn taken(&self) -> Tally<Gauge> {
        self.taken.clone()
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "waiters",
            "Callers who wait for a change, by the way they wait",
            self.taken.metrics(),
        );
    }
}

impl Drop for WaiterSlot {
    fn drop(&mut self) {
        self.taken.dec();
    }
}

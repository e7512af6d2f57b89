//! What must not be forgotten: the payments started here, what was answered under which key, what the app is still to
//! hear of; and the last that is known of each watch code.
//!
//! All of it is in memory, and read there. An event is written first, and becomes true when that is done: nobody hears
//! of what a crash could take back. The four faces ([`Keys`], [`Payments`], [`Changes`], [`Outbox`]) each have what one
//! story needs.

mod changes;
mod config;
mod decide;
mod event;
mod file;
mod fleet;
mod intent;
mod keys;
mod list;
mod log;
mod metrics;
mod model;
mod outbox;
mod payments;
mod place;
mod rows;
mod shared;
mod shown;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

pub(crate) use self::changes::Changes;
pub(crate) use self::config::Config;
pub(crate) use self::file::{CannotOpen, look as look_into};
pub(crate) use self::fleet::{
    DatabaseUrl, Findings, Fleetwide, MayAsk, Member, NoTurn, Pass, SCHEMA, Turns, Why,
    check as check_database, parse_password, schema_sql,
};
pub(crate) use self::keys::{Claim, Claimed, Elsewhere, Keys};
pub(crate) use self::list::Filter;
use self::log::Log;
use self::metrics::StoreMetrics;
pub(crate) use self::model::{
    Change, CodeReused, Compose, Delivery, DeliveryState, Fate, Kind, Known, LastTries, Limits,
    Observation, OutOfReach, Record, RecordError, Settled, StartBody, Subject, WriteFailed,
};
pub(crate) use self::outbox::Outbox;
pub(crate) use self::payments::Payments;
pub(crate) use self::place::Place;
#[cfg(fuzzing)]
pub use self::rows::fuzz;
pub(crate) use self::shown::shown;
pub(crate) use self::snapshot::Snapshot;
pub(crate) use self::state::KEY_BYTES;
use self::state::State;
use crate::clock;
use crate::readiness::Readiness;

/// An open store. Clones share everything.
#[derive(Clone)]
pub(crate) struct Store {
    log: Arc<Log>,
    limits: Limits,
    has_webhook: bool,
}

impl Store {
    /// Opens the store of this configuration. With `compose` the app gets messages. `readiness` has a check of this room's, which
    /// fails while nothing can be written.
    ///
    /// # Errors
    /// If a file cannot be used. It is left as it is.
    pub(crate) fn open(
        config: &Config,
        fleetwide: Fleetwide,
        limits: Limits,
        compose: Option<Compose>,
        readiness: &Readiness,
    ) -> Result<Self, CannotOpen> {
        let has_webhook = compose.is_some();
        let state = State::new(limits, compose, clock::wall_at(clock::now()));
        Ok(Self {
            log: Arc::new(Log::open(config, fleetwide, state, readiness)?),
            limits,
            has_webhook,
        })
    }

    /// Returns the idempotency keys, for starts that result in a `T`.
    pub(crate) fn keys<T: Clone>(&self) -> Keys<T> {
        Keys::new(self.log.clone(), self.limits)
    }

    /// Returns the payments.
    pub(crate) fn payments(&self) -> Payments {
        Payments::new(self.log.clone())
    }

    /// Returns the journal of changes.
    pub(crate) fn changes(&self) -> Changes {
        Changes::new(self.log.clone())
    }

    /// Returns the messages to the app.
    pub(crate) fn outbox(&self) -> Outbox {
        Outbox::new(self.log.clone())
    }

    /// Returns since when the store that replicas share is away, and why; `None` while it is up, and for other stores.
    pub(crate) fn trouble(&self) -> Option<(Duration, String)> {
        self.log.fleet()?.trouble()
    }

    /// Returns the hosts of the database that replicas share, and whether it waits for a standby before it says that
    /// something is written, as far as that is known; `None` for other stores.
    pub(crate) fn database(&self) -> Option<(&str, Option<bool>)> {
        Some(self.log.fleet()?.database())
    }

    /// Returns the replicas that share the store and are alive, each with whether it has the settings of this one; `None`
    /// where none do.
    pub(crate) fn members(&self) -> Option<Vec<(Member, bool)>> {
        Some(self.log.fleet()?.members())
    }

    /// Returns the turns to start of all replicas together, where replicas share the store.
    pub(crate) fn turns(&self, rate: f64, burst: NonZeroU32, queue_for: Duration) -> Option<Turns> {
        let fleet = self.log.fleet()?;
        Some(fleet.turns(rate, burst, queue_for))
    }

    /// Forgets what has had its time.
    pub(crate) fn sweep(&self) {
        let mut guarded = self.log.lock();
        let removals = guarded.state.sweep(clock::now());
        self.log.remove(&mut guarded, removals);
    }

    /// Returns when the file can never be used again by this process: what it holds is not known any more.
    pub(crate) async fn broken(&self) {
        self.log.broken().await;
    }

    /// Writes what is still to be written, and closes the file.
    pub(crate) async fn close(&self) {
        self.log.close().await;
    }

    /// Returns how much is in it now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.log, self.has_webhook)
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        if let Some(fleet) = self.log.fleet() {
            fleet.register(registry);
        }
        registry.register_collector(Box::new(StoreMetrics {
            log: self.log.clone(),
            has_webhook: self.has_webhook,
        }));
    }
}

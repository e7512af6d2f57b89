//! Whether the database of a fleet can be used, for those who ask and for the log.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::watch;

use super::trouble::Trouble;
use crate::clock::{self, Instant};
use crate::readiness::{Latch, Readiness};

/// While it stays away, one line of the log in this time.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Up, or away since a moment and why.
pub(super) struct Standing {
    place: String,
    now: Mutex<Now>,
    /// Whether the server waits for a standby before it says that something is written; `None` before it was reached.
    pub(super) waits_for_standby: ArcSwapOption<bool>,
    /// True while the database can be written.
    is_up: watch::Sender<bool>,
    pub(super) errors: Family<[(&'static str, &'static str); 1], Counter>,
}

struct Now {
    /// `None` while it is up.
    away: Option<(Instant, String)>,
    said: Option<Instant>,
    /// Dropped when it was up once: an outage takes no replica out of service, since it would take all of them.
    latch: Option<Latch>,
}

impl Standing {
    /// Away, until it is up for the first time; `readiness` has a check of it until then.
    pub(super) fn new(place: String, readiness: &Readiness) -> Self {
        let why = "it was not open yet".to_owned();
        Self {
            place,
            now: Mutex::new(Now {
                away: Some((clock::now(), why)),
                said: None,
                latch: Some(readiness.latch("store")),
            }),
            waits_for_standby: ArcSwapOption::empty(),
            is_up: watch::Sender::new(false),
            errors: Family::default(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        *self.is_up.borrow()
    }

    /// Changes when it goes away and when it comes back.
    pub(super) fn changed(&self) -> watch::Receiver<bool> {
        self.is_up.subscribe()
    }

    /// It can be written.
    pub(super) fn up(&self) {
        let mut now = self.lock();
        let Some((since, _)) = now.away.take() else {
            return;
        };
        now.said = None;
        let away_seconds = (clock::now() - since).as_secs();
        let place = &self.place;
        if now.latch.take().is_some() {
            tracing::info!(%place, "the store is open");
        } else {
            tracing::info!(%place, away_seconds, "the store is back");
        }
        self.is_up.send_replace(true);
    }

    /// It cannot be used, for this reason.
    pub(super) fn away(&self, trouble: &Trouble) {
        self.count(trouble);
        let mut now = self.lock();
        let (at, why) = (clock::now(), trouble.to_string());
        let since = now.away.take().map_or(at, |(since, _)| since);
        if now.said.is_none_or(|said| at - said >= SAY_AGAIN) {
            let (place, away_seconds) = (&self.place, (at - since).as_secs());
            tracing::error!(%place, why, away_seconds, "the store is away: starts are refused, watches go on");
            now.said = Some(at);
        }
        now.away = Some((since, why));
        self.is_up.send_replace(false);
    }

    /// A statement has failed.
    pub(super) fn count(&self, trouble: &Trouble) {
        let reason = trouble.reason.label();
        self.errors.get_or_create(&[("reason", reason)]).inc();
    }

    /// What is the matter, and for how long; `None` while it is up.
    pub(super) fn trouble(&self) -> Option<(Duration, String)> {
        let now = self.lock();
        let (since, why) = now.away.as_ref()?;
        Some((clock::now() - *since, why.clone()))
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

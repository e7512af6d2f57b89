//! Whether the app is away, and over which time it was.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::clock::Instant;
use crate::store::LastTries;

/// An app is away when nothing has succeeded for this time.
pub(super) const AWAY_AFTER: Duration = Duration::from_secs(60);

/// How the app is doing, by the last success and the first failure since then.
pub(super) struct Outage(LastTries);

impl Outage {
    /// As the app was doing when the process before this one ended.
    pub(super) fn resumed(last: LastTries) -> Self {
        Self(last)
    }

    /// Whether something has failed since the last success, and nothing has succeeded for [`AWAY_AFTER`].
    pub(super) fn is_away(&self, now: Instant) -> bool {
        let LastTries { taken, failing } = self.0;
        failing.is_some()
            && taken
                .or(failing)
                .is_some_and(|since| now - since >= AWAY_AFTER)
    }

    /// A try has succeeded. Returns the time in which others failed, if the app was away until now.
    pub(super) fn succeeded(&mut self, now: Instant) -> Option<RangeInclusive<Instant>> {
        let LastTries { taken, failing } = self.0;
        // The first failure that the process before has left may have begun before the last success.
        let away = failing.max(taken).filter(|_| self.is_away(now));
        self.0 = LastTries {
            taken: Some(now),
            failing: None,
        };
        away.map(|since| since..=now)
    }

    /// A try has failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.0.failing.get_or_insert(now);
    }
}

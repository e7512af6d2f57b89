//! Calls about one payment that failed, one after the other.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::payment::WatchCode;

/// A failure is forgotten after this time without another one.
const REMEMBERED_FOR: Duration = Duration::from_secs(120);

/// Remembered also when nobody waits for the payment any more, so that the next caller to wait does not begin anew.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<WatchCode, InARow>);

#[derive(Clone, Copy, Debug)]
pub(super) struct InARow {
    pub(super) times: u8,
    pub(super) last: Instant,
}

impl Failures {
    pub(super) fn add(&mut self, now: Instant, code: &WatchCode) {
        self.0
            .retain(|_, failed| now - failed.last < REMEMBERED_FOR);
        let times = self.0.get(code).map_or(0, |failed| failed.times);
        let failed = InARow {
            times: times.saturating_add(1),
            last: now,
        };
        self.0.insert(code.clone(), failed);
    }

    pub(super) fn remove(&mut self, code: &WatchCode) {
        self.0.remove(code);
    }

    pub(super) fn get(&self, code: &WatchCode) -> Option<InARow> {
        self.0.get(code).copied()
    }
}

//! How the gateway has been doing, and when the background may ask it again.

use std::time::Duration;

use super::super::cadence;
use crate::clock::Instant;
use crate::gateway;

/// Closed while the gateway answers. Each failure that another payment's call would have met too keeps the background
/// away for a while; after that it makes one call at a time until one is answered.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker {
    /// Such failures in a row.
    failures: u8,
    /// Until then the background makes no call.
    until: Option<Instant>,
}

/// The background makes no calls for that long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Pause {
    pub(in super::super) length: Duration,
    /// How many failures in a row led to it.
    pub(in super::super) failures: u8,
}

impl CircuitBreaker {
    /// A call was answered. Returns whether it was the first answer after failures.
    pub(super) fn answered(&mut self) -> bool {
        let reopens = self.failures > 0;
        *self = Self::default();
        reopens
    }

    /// A call that began at that moment has failed. Returns the pause that this began.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        began: Instant,
        error: &gateway::Error,
        jitter: f64,
    ) -> Option<Pause> {
        if !error.is_outage() {
            return None;
        }
        if let Some(until) = self.until.filter(|until| began < *until) {
            // A call that was under way when the pause began says nothing new except how long the pause has to be.
            let asked_for = error
                .retry_after()
                .map(|wait| now + cadence::pause(0, Some(wait), 0.0));
            self.until = Some(asked_for.map_or(until, |asked_for| until.max(asked_for)));
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let length = cadence::pause(self.failures, error.retry_after(), jitter);
        self.until = Some(now + length);
        Some(Pause {
            length,
            failures: self.failures,
        })
    }

    /// Whether there was no answer since the last failure: then the background makes one call at a time.
    pub(super) fn is_open(&self) -> bool {
        self.failures > 0
    }

    /// Until when the background makes no call.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

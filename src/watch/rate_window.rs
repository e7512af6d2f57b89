//! `watch.poll_rate`: no one-second window holds more calls than that. A plain value; time comes in as an argument.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::Instant;

/// How long a place rests after a call.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

/// As many places as calls a second. A place rests for a second after the end of its call: the gateway saw the call
/// before that end, so two calls of one place are at least a second apart for the gateway too, however long each was
/// on its way. A token bucket would keep our clock only.
#[derive(Debug)]
pub(super) struct RateWindow {
    /// Places that a call may take now.
    free: u32,
    /// When each of the places that rest is free again, the first in front.
    resting: VecDeque<Instant>,
}

impl RateWindow {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        Self {
            free: rate.get(),
            resting: VecDeque::new(),
        }
    }

    /// Whether a call may begin now.
    pub(super) fn has_place(&mut self, now: Instant) -> bool {
        while self.next_free().is_some_and(|free_at| free_at <= now) {
            self.resting.pop_front();
            self.free += 1;
        }
        self.free > 0
    }

    /// When the next of the resting places is free. `None` while none rests.
    pub(super) fn next_free(&self) -> Option<Instant> {
        self.resting.front().copied()
    }

    /// A call begins. Only after [`Self::has_place`] has said that it may.
    pub(super) fn take(&mut self) {
        self.free -= 1;
    }

    /// A call is over: its place rests.
    pub(super) fn rest(&mut self, now: Instant) {
        // Later than all that rest already, because the clock never goes back.
        self.resting.push_back(now + WINDOW);
    }

    /// A place was taken and no call was made.
    pub(super) fn put_back(&mut self) {
        self.free += 1;
    }
}

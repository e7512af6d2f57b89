//! Counts the calls of the sandbox, by which tests check how often a caller polls.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{self, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// The calls of one kind.
#[derive(Default)]
pub(super) struct Calls {
    /// The number of calls.
    pub(super) count: u64,
    /// The most calls within any one second. Two calls exactly a second apart are not in the same one.
    pub(super) busiest_second: u64,
    /// The times of the calls of the last second.
    recent: VecDeque<Instant>,
}

impl Calls {
    /// Counts a call that comes now.
    pub(super) fn add(&mut self) {
        let now = clock::now();
        while self
            .recent
            .front()
            .is_some_and(|came| now - *came >= WINDOW)
        {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.count += 1;
        self.busiest_second = self.busiest_second.max(self.recent.len() as u64);
    }
}

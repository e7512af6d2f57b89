//! How often the sandbox was called: what a caller's good manners are measured by.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::{self, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// The calls of one kind.
#[derive(Default)]
pub(super) struct Calls {
    /// All of them.
    pub(super) count: u64,
    /// The most that came in any one second. Two that are a whole second apart are not in the same one.
    pub(super) busiest_second: u64,
    /// When those of the last second came.
    recent: VecDeque<Instant>,
}

impl Calls {
    /// One has come.
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

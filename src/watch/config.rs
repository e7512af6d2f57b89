//! `[watch]` of the configuration.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;

/// `[watch]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// A younger answer is served from memory. Zero: only a final one is.
    #[serde(with = "clock::text_or_zero")]
    pub(crate) fresh_for: Duration,
    /// At most so old an answer is served when the gateway fails. Zero: none is.
    #[serde(with = "clock::text_or_zero")]
    pub(crate) stale_for: Duration,
    /// Longest that a caller may wait for a change. Zero: every caller is answered at once.
    #[serde(with = "clock::text_or_zero")]
    pub(crate) max_wait: Duration,
    /// Calls per second, all payments together, repeats included.
    pub(crate) poll_rate: NonZeroU32,
    /// From one poll in the background to the next, at most.
    #[serde(with = "clock::text")]
    pub(crate) max_poll_interval: Duration,
    /// From then on a payment is not polled in the background any more; who asks for it still gets an answer.
    #[serde(with = "clock::text")]
    pub(crate) give_up_after: Duration,
    /// Watch codes kept in memory.
    pub(crate) max_tracked: NonZeroU32,
}

impl Default for Config {
    fn default() -> Self {
        #[expect(clippy::unwrap_used, reason = "neither is zero")]
        let (poll_rate, max_tracked) = (
            NonZeroU32::new(20).unwrap(),
            NonZeroU32::new(100_000).unwrap(),
        );
        Self {
            fresh_for: Duration::from_secs(1),
            stale_for: Duration::from_secs(600),
            // Many clients give up after 60 s.
            max_wait: Duration::from_secs(55),
            poll_rate,
            max_poll_interval: Duration::from_secs(600),
            give_up_after: Duration::from_secs(24 * 3600),
            max_tracked,
        }
    }
}

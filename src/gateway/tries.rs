//! The tries of one call.

use std::time::Duration;

use super::error::Error;
use crate::clock::{self, Instant};
use crate::random;

/// How many tries of a call are left, and its deadline.
pub(crate) struct Tries {
    left: u32,
    backoff: Duration,
    /// The end of the call, however many tries are left.
    pub(crate) deadline: Instant,
}

impl Tries {
    /// The tries of a call that begins now: one, and up to `retries` more.
    pub(super) fn new(retries: u32, timeout: Duration) -> Self {
        Self {
            left: retries,
            backoff: Duration::from_millis(100),
            deadline: clock::now() + timeout,
        }
    }

    /// Waits until the next try.
    ///
    /// # Errors
    /// Returns the error itself if no try is left, or no time for one.
    pub(crate) async fn again_after(&mut self, error: Error) -> Result<(), Error> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(error);
        };
        self.left = left;
        let pause = random::jitter(self.backoff);
        self.backoff *= 2;
        if clock::now() + pause >= self.deadline {
            return Err(error);
        }
        clock::sleep(pause).await;
        Ok(())
    }
}

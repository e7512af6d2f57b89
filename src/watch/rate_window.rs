//! `watch.poll_rate`: no one-second window holds more calls than that.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::{self, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// As many places as calls a second. A place rests for a second after the end of its call: the gateway saw the call
/// before that end, so two calls of one place are at least a second apart for the gateway too, however long each was
/// on its way. A token bucket would keep our clock only.
pub(super) struct RateWindow {
    /// One permit for each place that no call holds.
    permits: Arc<Semaphore>,
    /// Until when each of these places rests, the first to wake up in front.
    resting: Arc<Mutex<VecDeque<Instant>>>,
}

/// The right to make one call, for as long as the call takes.
#[derive(Debug)]
pub(super) struct Permit {
    resting: Arc<Mutex<VecDeque<Instant>>>,
    _permit: OwnedSemaphorePermit,
}

impl RateWindow {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        let places = usize::try_from(rate.get()).unwrap_or(Semaphore::MAX_PERMITS);
        let resting = std::iter::repeat_n(clock::now(), places).collect();
        Self {
            permits: Arc::new(Semaphore::new(places)),
            resting: Arc::new(Mutex::new(resting)),
        }
    }

    /// Waits for the next place to wake up. `None` never happens: nobody closes the semaphore.
    pub(super) async fn permit(&self) -> Option<Permit> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        // There is a place for each permit. Whoever stops waiting here gives none back: only the end of the program
        // stops it.
        let awake_at = resting(&self.resting).pop_front()?;
        clock::sleep_until(awake_at).await;
        Some(Permit {
            resting: self.resting.clone(),
            _permit: permit,
        })
    }
}

fn resting(places: &Mutex<VecDeque<Instant>>) -> MutexGuard<'_, VecDeque<Instant>> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Later than all that rest already.
        resting(&self.resting).push_back(clock::now() + WINDOW);
    }
}

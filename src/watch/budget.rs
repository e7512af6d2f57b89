//! `watch.poll_rate`: no one-second window holds more calls than that.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::{self, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// As many places as calls a second. A place rests for a second after the end of its call: the gateway saw the call
/// before that end, so two calls of one place are at least a second apart for the gateway too, however long each was
/// on its way. A token bucket would keep our clock only.
pub(super) struct Budget {
    /// One permit for each place that no call holds; handed out in the order of asking.
    permits: Semaphore,
    /// Until when each of these places rests, the first to wake up in front.
    resting: Mutex<VecDeque<Instant>>,
}

/// The right to make one call, for as long as the call takes.
pub(super) struct Turn<'a> {
    budget: &'a Budget,
    /// Until when the place rests once the turn is over.
    rests_until: Option<Instant>,
    _permit: SemaphorePermit<'a>,
}

impl Budget {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        let places = usize::try_from(rate.get()).unwrap_or(Semaphore::MAX_PERMITS);
        let resting = Mutex::new(std::iter::repeat_n(clock::now(), places).collect());
        Self { permits: Semaphore::new(places), resting }
    }

    /// Waits for a turn, first come first served; `None` when there is none before the deadline.
    pub(super) async fn turn(&self, deadline: Instant) -> Option<Turn<'_>> {
        let permit = clock::timeout_at(deadline, self.permits.acquire()).await.ok()?.ok()?;
        // There is a place for each permit.
        let awake_at = self.resting().pop_front()?;
        // Whoever stops waiting here gives the place back as it was.
        let mut turn = Turn { budget: self, rests_until: Some(awake_at), _permit: permit };
        clock::timeout_at(deadline, clock::sleep_until(awake_at)).await.ok()?;
        turn.rests_until = None;
        Some(turn)
    }

    fn resting(&self) -> MutexGuard<'_, VecDeque<Instant>> {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let until = self.rests_until.unwrap_or_else(|| clock::now() + WINDOW);
        let mut resting = self.budget.resting();
        let place = resting.partition_point(|other| *other <= until);
        resting.insert(place, until);
    }
}

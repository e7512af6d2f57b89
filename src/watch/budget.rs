//! `watch.poll_rate`: no one-second window holds more calls than that.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::{self, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// As many places as calls a second. A call holds its place until a second after its end: the gateway saw it before
/// that end, so two calls of one place are at least a second apart for the gateway too, however long each was on its
/// way. A token bucket would keep our clock only.
pub(super) struct Budget {
    places: Arc<Semaphore>,
}

/// The right to make one call.
pub(super) struct Turn(Option<OwnedSemaphorePermit>);

impl Budget {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        Self { places: Arc::new(Semaphore::new(usize::try_from(rate.get()).unwrap_or(Semaphore::MAX_PERMITS))) }
    }

    /// Waits for a turn, first come first served; `None` when there is none before the deadline.
    pub(super) async fn turn(&self, deadline: Instant) -> Option<Turn> {
        let place = clock::timeout_at(deadline, self.places.clone().acquire_owned()).await;
        Some(Turn(Some(place.ok()?.ok()?)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let place = self.0.take();
        // A task of its own, so that a call's answer does not wait for the second to be over.
        tokio::spawn(async move {
            clock::sleep(WINDOW).await;
            drop(place);
        });
    }
}

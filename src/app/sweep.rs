//! What the store does now and then.

use std::time::Duration;

use crate::clock;
use crate::store::Store;

/// How often the store forgets what has had its time; more often where that is short.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Forgets, now and then, what has had its time. Never returns.
pub(super) async fn keep_sweeping(store: &Store, ttl: Duration) {
    loop {
        store.sweep();
        clock::sleep(SWEEP_EVERY.min(ttl / 4)).await;
    }
}

//! Hours in milliseconds: what the tests share in which nobody really waits.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub const HOUR: Duration = Duration::from_secs(3600);
/// A payment that somebody waits for is asked for this often at least.
pub const POLL: Duration = Duration::from_secs(2);
/// Timers go off at whole milliseconds.
pub const SLACK: Duration = Duration::from_millis(10);
/// Starts as many as a test wants.
pub const MANY: [(&str, &str); 2] = [("start.rate", "1000000"), ("start.burst", "100000")];
/// What a gateway may do wrong that may pass.
pub const FAILURES: [&str; 12] = [
    "status=500",
    "status=503,retry-after=3",
    "status=429",
    "status=429,retry-after=3",
    "status=401",
    "status=404",
    "reset",
    "truncate",
    "hang",
    "not-json",
    "missing-field",
    "redirect",
];

pub fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

pub async fn pass(time: f64) {
    sleep(seconds(time)).await;
}

/// What this gives, and how long it took.
pub async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let result = what.await;
    (result, began.elapsed())
}

#[track_caller]
pub fn assert_about(took: Duration, expected: f64) {
    assert!(
        took >= seconds(expected) && took < seconds(expected) + SLACK,
        "{took:?} instead of {expected} s"
    );
}

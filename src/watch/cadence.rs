//! When to ask next. Pure: the same question, the same answer.

use std::time::Duration;

/// Never sooner than this after the last time.
const FLOOR: Duration = Duration::from_secs(1);
/// Nor later, while somebody waits for it.
const WAITED_FOR: Duration = Duration::from_secs(2);
/// What failures add up to at most.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// The same, while somebody waits for it.
const LONGEST_BACKOFF_WAITED_FOR: Duration = Duration::from_secs(10);
/// Longest pause after failures of the gateway, if it does not ask for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A gateway that asks for more patience than this wants something else.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// What is known of a payment that is to be asked for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    /// Since its start.
    pub(super) age: Duration,
    /// Somebody waits for it, or streams it.
    pub(super) waited_for: bool,
    /// How often in a row the gateway's answer about it could not be used.
    pub(super) failures: u8,
}

/// From one question to the next: about a tenth of the payment's age, at most two seconds while somebody waits, twice
/// as long after each failure; never over `ceiling` (`watch.max_poll_interval`). `jitter` is from 0 up to 1 and takes up
/// to a tenth off, so that many who were started together are not asked for together.
pub(super) fn interval(situation: Situation, ceiling: Duration, jitter: f64) -> Duration {
    let floor = FLOOR.min(ceiling);
    let mut interval = (situation.age / 10).clamp(floor, ceiling);
    if situation.waited_for {
        interval = interval.min(WAITED_FOR);
    }
    let longest = if situation.waited_for {
        LONGEST_BACKOFF_WAITED_FOR
    } else {
        LONGEST_BACKOFF
    };
    let longest = interval.max(longest).min(ceiling);
    let interval = doubled(interval, situation.failures).min(longest);
    interval.mul_f64(1.0 - jitter / 10.0).max(floor)
}

/// How long the background leaves a gateway alone that failed so often in a row (429, 5xx, no answer), and asked for
/// so much patience. `jitter` as above, but it adds: patience that was asked for is never cut short.
pub(super) fn pause(failures: u8, retry_after: Option<Duration>, jitter: f64) -> Duration {
    let backoff = doubled(FLOOR, failures.saturating_sub(1)).min(LONGEST_PAUSE);
    let asked_for = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
    backoff.max(asked_for).mul_f64(1.0 + jitter / 10.0)
}

fn doubled(duration: Duration, times: u8) -> Duration {
    duration.saturating_mul(1_u32.checked_shl(times.into()).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(range: std::ops::Range<f64>) -> impl Strategy<Value = Duration> {
        range.prop_map(Duration::from_secs_f64)
    }

    proptest! {
        #[test]
        fn never_sooner_than_the_floor_nor_later_than_the_ceiling(
            age in seconds(0.0..1e8), waited_for: bool, failures: u8, ceiling in seconds(0.001..1e7), jitter in 0.0..1.0
        ) {
            let interval = interval(Situation { age, waited_for, failures }, ceiling, jitter);
            prop_assert!(interval >= FLOOR.min(ceiling), "{interval:?}");
            prop_assert!(interval <= ceiling, "{interval:?}");
            if waited_for && failures == 0 {
                prop_assert!(interval <= WAITED_FOR);
            }
            if failures == 0 && !waited_for && age / 10 <= ceiling {
                prop_assert!(interval <= (age / 10).max(FLOOR), "about a tenth: {interval:?}");
                prop_assert!(interval.as_secs_f64() >= age.as_secs_f64() * 0.0899 || interval == ceiling);
            }
        }

        #[test]
        fn an_older_payment_is_never_asked_for_more_often(
            age in seconds(0.0..1e6), older in seconds(0.0..1e6), waited_for: bool, failures: u8,
            ceiling in seconds(0.001..1e5), jitter in 0.0..1.0
        ) {
            let young = Situation { age, waited_for, failures };
            let old = Situation { age: age + older, ..young };
            prop_assert!(interval(young, ceiling, jitter) <= interval(old, ceiling, jitter));
        }

        #[test]
        fn one_that_is_waited_for_is_never_asked_for_less_often(
            age in seconds(0.0..1e6), failures: u8, ceiling in seconds(0.001..1e5), jitter in 0.0..1.0
        ) {
            let waited = Situation { age, waited_for: true, failures };
            let not = Situation { waited_for: false, ..waited };
            prop_assert!(interval(waited, ceiling, jitter) <= interval(not, ceiling, jitter));
        }

        #[test]
        fn failures_slow_down_and_stay_bounded(
            age in seconds(0.0..1e6), waited_for: bool, failures in 0_u8..255, ceiling in seconds(1.0..1e5), jitter in 0.0..1.0
        ) {
            let fewer = interval(Situation { age, waited_for, failures }, ceiling, jitter);
            let more = interval(Situation { age, waited_for, failures: failures + 1 }, ceiling, jitter);
            let none = interval(Situation { age, waited_for, failures: 0 }, ceiling, 0.0);
            prop_assert!(fewer <= more);
            prop_assert!(more <= none.max(LONGEST_BACKOFF));
        }

        #[test]
        fn a_pause_is_as_long_as_was_asked_for_and_never_without_end(
            failures: u8, asked in seconds(0.0..1e9), jitter in 0.0..1.0
        ) {
            let pause = pause(failures, Some(asked), jitter);
            prop_assert!(pause >= asked.min(LONGEST_RETRY_AFTER) && pause >= FLOOR);
            prop_assert!(pause <= LONGEST_RETRY_AFTER.mul_f64(1.1));
            prop_assert!(super::pause(failures, None, jitter) <= LONGEST_PAUSE.mul_f64(1.1));
        }
    }
}

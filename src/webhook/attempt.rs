//! What becomes of a message by a try: delivered, due again at a moment, or failed. Knows no clock and no chance: both
//! are arguments.

use std::time::Duration;

use crate::clock::Instant;
use crate::store::{Delivery, DeliveryState};

/// From one try to the next, and then the last of these again and again.
const STEPS: [Duration; 8] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
];
/// A message that is older is not tried any more.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 24 * 3600);

/// What came of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// The app took it.
    Delivered,
    /// The app does not want it, with what it said.
    Unwanted { why: String },
    /// It failed for this reason; the app may have said how long to wait.
    Failed {
        why: String,
        retry_after: Option<Duration>,
    },
}

/// What a try did to its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// It failed, and there is another try.
    Retry,
    /// It failed, and there is no other try.
    GivenUp,
    /// The app does not want it.
    Unwanted,
}

impl Outcome {
    pub(super) const ALL: [Self; 4] = [Self::Delivered, Self::Retry, Self::GivenUp, Self::Unwanted];

    /// Its name in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry => "retry",
            Self::GivenUp => "given_up",
            Self::Unwanted => "gone",
        }
    }
}

/// Returns the message as it is after a try that ended at `now`. With `is_back` the app has come back since the try
/// began: if it failed, the message does not wait for its own step. `jitter` is from 0 up to 1.
pub(super) fn after(
    delivery: &Delivery,
    posted: Posted,
    is_back: bool,
    now: Instant,
    jitter: f64,
) -> (Delivery, Outcome) {
    let mut delivery = delivery.clone();
    delivery.tries += 1;
    let outcome = match posted {
        Posted::Delivered => {
            (delivery.state, delivery.last_error) = (DeliveryState::Delivered(now), None);
            Outcome::Delivered
        }
        Posted::Unwanted { why } => {
            (delivery.state, delivery.last_error) = (DeliveryState::Failed(now), Some(why));
            Outcome::Unwanted
        }
        Posted::Failed { why, retry_after } => {
            (delivery.failed, delivery.last_error) = (Some(now), Some(why));
            match next_try(delivery.tries, now - delivery.since, retry_after, jitter) {
                Some(wait) => {
                    // Nothing is asked for longer than there is time for.
                    let asked = retry_after.unwrap_or_default().min(wait);
                    let wait = if is_back { asked } else { wait };
                    delivery.state = DeliveryState::Due(now + wait);
                    delivery.not_before = retry_after.map(|_| now + asked);
                    Outcome::Retry
                }
                None => {
                    (delivery.state, delivery.not_before) = (DeliveryState::Failed(now), None);
                    Outcome::GivenUp
                }
            }
        }
    };
    (delivery, outcome)
}

/// Returns how long to wait after that number of tries of a message of that age; `None`: it is not tried any more. What
/// the app asks for only lengthens. `jitter` adds up to a tenth.
fn next_try(
    tries: u32,
    age: Duration,
    retry_after: Option<Duration>,
    jitter: f64,
) -> Option<Duration> {
    let step = usize::try_from(tries.saturating_sub(1))
        .unwrap_or(usize::MAX)
        .min(STEPS.len() - 1);
    let own = STEPS[step].mul_f64(1.0 + jitter / 10.0);
    let left = GIVE_UP_AFTER.checked_sub(age)?;
    // Patience that is asked for moves the next try, it never takes it away.
    (own <= left).then(|| own.max(retry_after.unwrap_or_default()).min(left))
}

#[cfg(test)]
mod tests;

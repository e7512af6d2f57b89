//! A rate limit with a fair, bounded queue in front of it.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use serde::{Deserialize, Serialize, de};
use tokio::sync::Semaphore;

use crate::clock::{self, Instant};

/// A number per second. It may be a fraction: 0.5 is one every two seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Rate(pub(crate) f64);

impl Rate {
    /// Returns the time from one to the next.
    fn period(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.0)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rate = f64::deserialize(deserializer)?;
        if (0.001..=1_000_000.0).contains(&rate) {
            Ok(Self(rate))
        } else {
            Err(de::Error::custom(format!(
                "{rate} per second is out of bounds: from 0.001 to 1000000"
            )))
        }
    }
}

/// The most places in a queue, however high the rate: each caller that waits holds a connection.
const MAX_PLACES: usize = 10_000;

/// Admits `rate` callers a second on average, and `burst` at once (GCRA). Other callers wait in their order, for at most
/// `queue_for`.
pub(crate) struct Limiter {
    gcra: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>,
    clock: TokioClock,
    period: Duration,
    queue_for: Duration,
    /// The head of the queue. The semaphore of tokio is fair, so it passes from caller to caller in their order.
    turn: Semaphore,
    /// The places in the queue: as many as can be admitted within `queue_for`.
    places: Semaphore,
}

/// The caller was not admitted within `queue_for`.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The time after which a retry makes sense.
    pub(crate) retry_after: Duration,
}

impl Limiter {
    /// A limiter that admits `burst` callers at once from the start.
    pub(crate) fn new(rate: Rate, burst: NonZeroU32, queue_for: Duration) -> Self {
        let period = rate.period();
        #[expect(
            clippy::expect_used,
            reason = "a Rate is at most a million a second: its period is never zero"
        )]
        let quota = Quota::with_period(period)
            .expect("a period over zero")
            .allow_burst(burst);
        let clock = TokioClock(clock::now());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is never negative"
        )]
        let places = ((queue_for.as_secs_f64() * rate.0).ceil() as usize).clamp(1, MAX_PLACES);
        Self {
            gcra: RateLimiter::direct_with_clock(quota, clock.clone()),
            clock,
            period,
            queue_for,
            turn: Semaphore::new(1),
            places: Semaphore::new(places),
        }
    }

    /// Waits until the caller is admitted.
    ///
    /// # Errors
    /// [`Refused`] if that takes longer than `queue_for`, or the queue is full. It does not count against the rate then.
    pub(crate) async fn admit(&self) -> Result<(), Refused> {
        // No caller waits. One that waits holds the head of the queue.
        if let Ok(_head) = self.turn.try_acquire()
            && self.gcra.check().is_ok()
        {
            return Ok(());
        }
        let Ok(_place) = self.places.try_acquire() else {
            return Err(Refused {
                retry_after: self.queue_for.max(self.period),
            });
        };
        let in_turn = async {
            // The semaphore is never closed.
            let _head = self.turn.acquire().await;
            while let Err(too_soon) = self.gcra.check() {
                clock::sleep(too_soon.wait_time_from(self.clock.now())).await;
            }
        };
        clock::timeout(self.queue_for, in_turn)
            .await
            .map_err(|_| Refused {
                retry_after: self.period,
            })
    }
}

/// The clock of tokio, because that of governor does not follow paused time.
#[derive(Clone)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        clock::now() - self.0
    }
}

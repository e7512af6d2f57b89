//! Telling the app: what is owed, and when to try again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use crate::courier::{Courier, Posted};
use crate::flight::Airport;
use crate::json::Json;
use crate::payment::Report;
use crate::random;
use crate::store::{self, Delivery, Kind, State, Store, Tracked};

/// Tries at the same time: an app that is slow with one message gets the others all the same.
const AT_ONCE: usize = 16;
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
/// From then on it is not tried any more.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 24 * 3600);

/// Posts what the store says is due, for as long as it lives.
pub(crate) struct Pusher {
    outcomes: Family<Ended, Counter>,
    _task: AbortOnDropHandle<()>,
}

/// How a try may end.
const DELIVERED: &str = "delivered";
const RETRY: &str = "retry";
const GIVEN_UP: &str = "given_up";
const GONE: &str = "gone";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

impl Pusher {
    /// Starts posting.
    pub(crate) fn new(store: Arc<Store>, courier: Courier, airport: Airport) -> Self {
        let outcomes = Family::default();
        for outcome in [DELIVERED, RETRY, GIVEN_UP, GONE] {
            drop(outcomes.get_or_create(&Ended { outcome }));
        }
        let post = Arc::new(Post { store, courier, outcomes: outcomes.clone() });
        // One task for all messages; each try is a flight of its own.
        let task = tokio::spawn(run(post, airport));
        Self { outcomes, _task: AbortOnDropHandle::new(task) }
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("webhook_deliveries", "Tries to post a webhook, by how they ended", self.outcomes.clone());
    }
}

struct Post {
    store: Arc<Store>,
    courier: Courier,
    outcomes: Family<Ended, Counter>,
}

async fn run(post: Arc<Post>, airport: Airport) {
    let (places, more) = (Arc::new(Semaphore::new(AT_ONCE)), post.store.owes_more());
    // Nobody closes it.
    while let Ok(place) = places.clone().acquire_owned().await {
        let delivery = loop {
            match post.store.take_due() {
                Ok(delivery) => break delivery,
                Err(next) => tokio::select! {
                    () = more.notified() => {}
                    () = async {
                        match next {
                            Some(next) => clock::sleep_until(next).await,
                            None => std::future::pending().await,
                        }
                    } => {}
                },
            }
        };
        let post = post.clone();
        airport.launch(async move {
            post.try_once(&delivery).await;
            drop(place);
        });
    }
}

impl Post {
    async fn try_once(&self, delivery: &Delivery) {
        let posted = self.courier.post(&delivery.id, &delivery.body).await;
        let (now, mut delivery) = (clock::now(), delivery.clone());
        delivery.tries += 1;
        let (id, kind, tries) = (&delivery.id, delivery.kind.label(), delivery.tries);
        let outcome = match posted {
            Posted::Delivered => {
                tracing::info!(id, kind, tries, "webhook delivered");
                (delivery.state, delivery.last_error) = (State::Delivered(now), None);
                DELIVERED
            }
            Posted::Gone => {
                tracing::warn!(id, kind, tries, "the app does not want this webhook (410)");
                (delivery.state, delivery.last_error) = (State::Failed(now), Some("status 410".to_owned()));
                GONE
            }
            Posted::Failed { why, retry_after } => {
                let wait = next_try(delivery.tries, now - delivery.since, retry_after, random::fraction());
                let in_seconds = wait.map(|wait| wait.as_secs());
                tracing::warn!(id, kind, tries, why, in_seconds, "webhook not delivered");
                delivery.state = wait.map_or(State::Failed(now), |wait| State::Due(now + wait));
                delivery.last_error = Some(why);
                if wait.is_some() { RETRY } else { GIVEN_UP }
            }
        };
        self.outcomes.get_or_create(&Ended { outcome }).inc();
        self.store.posted(delivery).await;
    }
}

/// How long to wait after so many tries of a message of that age; `None`: it is not tried any more. What the app asks
/// for only lengthens. `jitter` is from 0 up to 1 and adds up to a tenth.
fn next_try(tries: u32, age: Duration, retry_after: Option<Duration>, jitter: f64) -> Option<Duration> {
    let step = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX).min(STEPS.len() - 1);
    let own = STEPS[step].mul_f64(1.0 + jitter / 10.0);
    let left = GIVE_UP_AFTER.checked_sub(age)?;
    // Patience that is asked for moves the next try, it never takes it away.
    (own <= left).then(|| own.max(retry_after.unwrap_or_default()).min(left))
}

/// What is posted about a payment.
pub(crate) fn compose(kind: Kind, tracked: &Tracked, report: Option<&Report>, at: Timestamp) -> String {
    let text = |text: &str| Json::Text(text.to_owned());
    Json::Object(vec![
        ("type".to_owned(), text(kind.label())),
        ("timestamp".to_owned(), text(&at.to_string())),
        ("data".to_owned(), Json::Object(store::shown(tracked, report))),
    ])
    .to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_tried_for_three_days() {
        let (mut age, mut tries) = (Duration::ZERO, 1);
        let mut waits = Vec::new();
        while let Some(wait) = next_try(tries, age, None, 0.0) {
            waits.push(wait.as_secs());
            age += wait;
            tries += 1;
        }
        assert_eq!(waits[..9], [1, 5, 15, 60, 300, 1800, 7200, 18000, 18000]);
        assert!(age <= GIVE_UP_AFTER && age + STEPS[7] > GIVE_UP_AFTER);
        assert_eq!(next_try(tries, age, None, 0.0), None);
    }

    proptest! {
        #[test]
        fn what_the_app_asks_for_only_lengthens(tries in 1_u32..100, asked in 0_u64..100_000, jitter in 0.0..1.0) {
            let own = next_try(tries, Duration::ZERO, None, jitter).unwrap();
            let asked = Duration::from_secs(asked);
            prop_assert_eq!(next_try(tries, Duration::ZERO, Some(asked), jitter), Some(own.max(asked)));
            prop_assert_eq!(next_try(tries, Duration::ZERO, Some(Duration::MAX), jitter), Some(GIVE_UP_AFTER));
        }
    }
}

//! Posts what is owed, in the background.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::recovery::Recovery;
use super::send::{Posted, Sender};
use crate::clock::{self, Instant};
use crate::gateway::Gateway;
use crate::random;
use crate::store::{Delivery, DeliveryState, Outbox};
use crate::tasks::SharedTasks;

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
pub(crate) struct Dispatcher {
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

impl Dispatcher {
    /// Starts posting.
    pub(crate) fn new(
        store: Outbox,
        sender: Sender,
        gateway: Arc<Gateway>,
        tasks: SharedTasks,
    ) -> Self {
        let outcomes = Family::default();
        for outcome in [DELIVERED, RETRY, GIVEN_UP, GONE] {
            drop(outcomes.get_or_create(&Ended { outcome }));
        }
        let recovery = Mutex::new(Recovery::resumed(store.last_tries()));
        let post = Arc::new(Post {
            store,
            sender,
            gateway,
            recovery,
            ended: Notify::new(),
            outcomes: outcomes.clone(),
        });
        // One task for all messages; each try is a task of its own.
        let task = tokio::spawn(run(post, tasks));
        Self {
            outcomes,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "webhook_deliveries",
            "Tries to post a webhook, by how they ended",
            self.outcomes.clone(),
        );
    }
}

struct Post {
    store: Outbox,
    sender: Sender,
    /// Knows the secret that an app may not show in a reason.
    gateway: Arc<Gateway>,
    recovery: Mutex<Recovery>,
    /// Rings when a try has ended.
    ended: Notify,
    outcomes: Family<Ended, Counter>,
}

async fn run(post: Arc<Post>, tasks: SharedTasks) {
    let more = post.store.owes_more();
    loop {
        let wake_up = match Try::next(&post) {
            Ok(next) => {
                tasks.launch(next.make());
                continue;
            }
            Err(wake_up) => wake_up,
        };
        let later = async {
            match wake_up {
                Some(moment) => clock::sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = more.notified() => {}
            () = post.ended.notified() => {}
            () = later => {}
        }
    }
}

/// A try under way. It counts as one until it is dropped.
struct Try {
    post: Arc<Post>,
    delivery: Arc<Delivery>,
    began: Instant,
}

impl Try {
    /// Begins the next one, if one may begin and a message is due; else says when to look again, if not before another
    /// one has ended or something is put into the store.
    fn next(post: &Arc<Post>) -> Result<Self, Option<Instant>> {
        let began = clock::now();
        let mut recovery = post.recovery();
        recovery.may_begin(began)?;
        let delivery = post.store.take_due()?;
        recovery.begin(began);
        Ok(Self {
            post: post.clone(),
            delivery,
            began,
        })
    }

    async fn make(self) {
        let Post {
            sender, gateway, ..
        } = &*self.post;
        let posted = sender
            .post(&self.delivery.id, &self.delivery.body, |text| {
                gateway.scrub(text)
            })
            .await;
        self.post
            .posted((*self.delivery).clone(), self.began, posted)
            .await;
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        self.post.recovery().end(self.began);
        self.post.ended.notify_one();
    }
}

impl Post {
    /// A try that began at that moment is over: what becomes of its message, and what it says about the app.
    async fn posted(&self, mut delivery: Delivery, began: Instant, posted: Posted) {
        let now = clock::now();
        delivery.tries += 1;
        let (id, kind, tries) = (&delivery.id, delivery.kind.label(), delivery.tries);
        let outcome = match posted {
            Posted::Delivered => {
                tracing::info!(id, kind, tries, "webhook delivered");
                (delivery.state, delivery.last_error) = (DeliveryState::Delivered(now), None);
                self.delivered(now).await;
                DELIVERED
            }
            Posted::Gone => {
                tracing::warn!(id, kind, tries, "the app does not want this webhook (410)");
                (delivery.state, delivery.last_error) =
                    (DeliveryState::Failed(now), Some("status 410".to_owned()));
                GONE
            }
            Posted::Failed { why, retry_after } => {
                let is_back = self.recovery().failed(began, now);
                let wait = next_try(
                    delivery.tries,
                    now - delivery.since,
                    retry_after,
                    random::fraction(),
                );
                // Nothing is asked for longer than there is time for.
                let asked = wait.map(|wait| retry_after.unwrap_or_default().min(wait));
                let wait = if is_back { asked } else { wait };
                let in_seconds = wait.map(|wait| wait.as_secs());
                tracing::warn!(id, kind, tries, why, in_seconds, "webhook not delivered");
                delivery.state = wait.map_or(DeliveryState::Failed(now), |wait| {
                    DeliveryState::Due(now + wait)
                });
                delivery.not_before = retry_after.and(asked).map(|asked| now + asked);
                (delivery.failed, delivery.last_error) = (Some(now), Some(why));
                if wait.is_some() { RETRY } else { GIVEN_UP }
            }
        };
        self.outcomes.get_or_create(&Ended { outcome }).inc();
        self.store.posted(delivery).await;
    }

    /// The app took a message: if it is back by that, what failed while it was away is due again.
    async fn delivered(&self, now: Instant) {
        let Some(failed) = self.recovery().succeeded(now) else {
            return;
        };
        let failing_seconds = (*failed.end() - *failed.start()).as_secs();
        tracing::info!(
            failing_seconds,
            "the app takes webhooks again: what failed meanwhile is due at once"
        );
        // Written before the message is: a crash in between would find an app that is not away any more.
        self.store.hasten(failed).await;
    }

    fn recovery(&self) -> MutexGuard<'_, Recovery> {
        self.recovery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait after that number of tries of a message of that age; `None`: it is not tried any more. What the app asks
/// for only lengthens. `jitter` is from 0 up to 1 and adds up to a tenth.
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

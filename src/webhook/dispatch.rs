//! The driver: posts what is owed, in the background, and has the lock, the clock and the metrics of the room.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::attempt::{self, Outcome, Posted};
use super::recovery::Recovery;
use super::send::Sender;
use crate::clock::{self, Instant};
use crate::gateway::Gateway;
use crate::random;
use crate::store::{Delivery, DeliveryState, Outbox};
use crate::tasks::{self, SharedTasks};
use crate::telemetry::Tally;

/// Posts what the store says is due, until it is dropped. Tries that are under way then go on.
pub(crate) struct Dispatcher {
    outcomes: Tally,
    _task: AbortOnDropHandle<()>,
}

impl Dispatcher {
    /// Starts posting.
    pub(crate) fn new(
        outbox: Outbox,
        sender: Sender,
        gateway: Arc<Gateway>,
        tasks: SharedTasks,
    ) -> Self {
        let outcomes = Tally::new("outcome", &Outcome::ALL.map(Outcome::label));
        let recovery = Mutex::new(Recovery::resumed(outbox.last_tries()));
        let inner = Arc::new(Inner {
            outbox,
            sender,
            gateway,
            recovery,
            ended: Notify::new(),
            outcomes: outcomes.clone(),
        });
        // One task for all messages; each try is a task of its own.
        let task = tasks::spawn(run(inner, tasks));
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
            self.outcomes.metrics(),
        );
    }

    /// Returns the tries up to now, by how they ended.
    pub(crate) fn tries(&self) -> Tally {
        self.outcomes.clone()
    }
}

struct Inner {
    outbox: Outbox,
    sender: Sender,
    /// Knows the secret that an app may not show in a reason.
    gateway: Arc<Gateway>,
    recovery: Mutex<Recovery>,
    /// Rings when a try has ended.
    ended: Notify,
    outcomes: Tally,
}

async fn run(inner: Arc<Inner>, tasks: SharedTasks) {
    let more = inner.outbox.owes_more();
    loop {
        let wake_up = match Try::next(&inner) {
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
            () = inner.ended.notified() => {}
            () = later => {}
        }
    }
}

/// A try under way. It counts as one until it is dropped.
struct Try {
    inner: Arc<Inner>,
    delivery: Arc<Delivery>,
    began: Instant,
}

impl Try {
    /// Begins the next try.
    ///
    /// # Errors
    /// If none may begin or no message is due: when to look again. `None`: not before a try has ended or something is put
    /// into the store.
    fn next(inner: &Arc<Inner>) -> Result<Self, Option<Instant>> {
        let began = clock::now();
        let mut recovery = inner.recovery();
        recovery.may_begin(began)?;
        let delivery = inner.outbox.take_due()?;
        recovery.begin(began);
        Ok(Self {
            inner: inner.clone(),
            delivery,
            began,
        })
    }

    async fn make(self) {
        let Inner {
            outbox,
            sender,
            gateway,
            ..
        } = &*self.inner;
        let may_post = outbox.may_post(&self.delivery, sender.timeout()).await;
        let Some(_may_post) = may_post else {
            return;
        };
        let posted = sender
            .post(&self.delivery.id, &self.delivery.body, &|text| {
                gateway.scrub(text)
            })
            .await;
        self.inner.finish(&self.delivery, self.began, posted).await;
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        self.inner.recovery().end(self.began);
        self.inner.ended.notify_one();
    }
}

impl Inner {
    /// Keeps what became of a message by a try that began at that moment, and what the try says about the app.
    async fn finish(&self, delivery: &Delivery, began: Instant, posted: Posted) {
        let now = clock::now();
        let has_failed = matches!(posted, Posted::Failed { .. });
        self.outbox.app_answered(!has_failed);
        let is_back = has_failed && self.recovery().failed(began, now);
        let (delivery, outcome) =
            attempt::after(delivery, posted, is_back, now, random::fraction());
        log(&delivery, outcome, now);
        if outcome == Outcome::Delivered {
            self.delivered(now).await;
        }
        self.outcomes.of(outcome.label()).inc();
        self.outbox.posted(delivery).await;
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
        self.outbox.hasten(failed).await;
    }

    fn recovery(&self) -> MutexGuard<'_, Recovery> {
        self.recovery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs what became of a message by a try that ended at `now`.
fn log(delivery: &Delivery, outcome: Outcome, now: Instant) {
    let (id, kind, tries) = (&delivery.id, delivery.kind.label(), delivery.tries);
    let why = delivery.last_error.as_deref();
    match outcome {
        Outcome::Delivered => tracing::info!(id, kind, tries, "webhook delivered"),
        Outcome::Unwanted => {
            tracing::warn!(id, kind, tries, why, "the app does not want this webhook")
        }
        Outcome::Retry | Outcome::GivenUp => {
            let in_seconds = match delivery.state {
                DeliveryState::Due(at) => Some((at - now).as_secs()),
                DeliveryState::Delivered(_) | DeliveryState::Failed(_) => None,
            };
            tracing::warn!(id, kind, tries, why, in_seconds, "webhook not delivered");
        }
    }
}

//! The poller: what is known of each payment, and one call to the gateway for all who ask.

mod answer;
mod cadence;
mod config;
mod driver;
mod feed;
mod news;
mod poll;
mod queue;
mod rate_window;
mod shared;
mod snapshot;
mod state;
mod subscription;
mod tell;
mod unknown;
mod waiter;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::answer::{Answer, Error, How, Stale};
pub(crate) use self::config::Config;
pub(crate) use self::feed::ChangeFeed;
use self::poll::Question;
use self::queue::Rank;
use self::shared::{Inner, Shared, Stage};
pub(crate) use self::snapshot::Snapshot;
use self::state::{Input, PollState};
pub(crate) use self::subscription::Subscription;
use self::waiter::Waiter;
use crate::clock;
use crate::gateway::Gateway;
use crate::payment::WatchCode;
use crate::random;
use crate::store::{Observation, Record, Store};
use crate::tasks::{self, SharedTasks};

/// Answers questions about payments, and polls those that somebody waits for. Clones share everything.
#[derive(Clone)]
pub(crate) struct StatusPoller {
    inner: Arc<Inner>,
    /// Ends the driver's loop when the last clone is dropped.
    _driver: Arc<AbortOnDropHandle<()>>,
}

/// Where the answer to a question comes from, and what was known when it was asked.
enum Asked {
    /// Memory.
    Known(Result<Answer, Error>),
    /// The call that was under way already.
    Joined(Record, Waiter),
    /// A call of its own.
    Called(Record, Waiter),
}

impl StatusPoller {
    /// A poller that follows nothing yet, and its driver. With `owes` every open payment is polled, also where nobody waits
    /// for it: there are messages to the app to be made.
    pub(crate) fn new(config: &Config, gateway: Arc<Gateway>, store: &Store, owes: bool) -> Self {
        let seed = u64::from_ne_bytes(random::bytes());
        let state = PollState::new(config, gateway.timeout() / 2, seed);
        let inner = Arc::new(Inner {
            fresh_for: config.fresh_for,
            stale_for: config.stale_for,
            gateway,
            store: store.payments(),
            changes: store.changes(),
            tasks: SharedTasks::default(),
            shared: Mutex::new(Shared::new(state)),
            bell: Notify::new(),
            polls_saved: Counter::default(),
            unconfirmed: Counter::default(),
            amount_mismatches: Counter::default(),
            unknown_statuses: Counter::default(),
            paid_twice: Counter::default(),
        });
        if owes {
            inner.input(Input::FeedOpened);
        }
        // One task for all payments.
        let driver = tasks::spawn(driver::run(inner.clone()));
        Self {
            inner,
            _driver: Arc::new(AbortOnDropHandle::new(driver)),
        }
    }

    /// What the gateway says of this payment: from memory while that is fresh (unless `force`d), else from one call
    /// that serves everyone who asks meanwhile.
    ///
    /// # Errors
    /// When the gateway gives nothing and nothing young enough is known.
    pub(crate) async fn ask(&self, code: &WatchCode, force: bool) -> Result<Answer, Error> {
        let inner = &self.inner;
        let (record, result, joined) = loop {
            let (record, waiter, joined) = match inner.answer_or_call(code, force) {
                Asked::Known(result) => {
                    inner.polls_saved.inc();
                    return result;
                }
                Asked::Joined(record, waiter) => (record, waiter, true),
                Asked::Called(record, waiter) => (record, waiter, false),
            };
            match waiter.result().await {
                // Everybody else has gone just before.
                Err(Error::Abandoned) => {}
                result => break (record, result, joined),
            }
        };
        inner.polls_saved.inc_by(joined.into());
        let first = record.observation.is_none();
        let (observation, stale) = match result {
            Ok(observation) => (observation, None),
            Err(error) => {
                let why = Stale::from(&error);
                let last = record
                    .observation
                    .filter(|observation| clock::now() - observation.asked < inner.stale_for);
                let Some(last) = last else { return Err(error) };
                (last, Some(why))
            }
        };
        let how = How::Asked {
            first,
            joined,
            stale,
        };
        Ok(Answer {
            age: clock::now() - observation.asked,
            report: observation.report,
            how,
        })
    }

    /// Asks the gateway for this payment now. When this returns its answer is in the store.
    ///
    /// # Errors
    /// If there was no answer, whatever is known.
    pub(crate) async fn ask_now(&self, code: &WatchCode) -> Result<(), Error> {
        loop {
            let waiter = match self.inner.answer_or_call(code, true) {
                Asked::Known(result) => return result.map(drop),
                Asked::Joined(_, waiter) | Asked::Called(_, waiter) => waiter,
            };
            match waiter.result().await {
                Err(Error::Abandoned) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Whether the gateway is being asked for this payment, or is about to be: an answer comes within `gateway.timeout`.
    pub(crate) fn is_being_asked(&self, code: &WatchCode) -> bool {
        let shared = self.inner.lock();
        let call = shared.calls.get(code);
        call.is_some_and(|call| call.stage == Stage::Sent)
    }

    /// The last that is known, if it is young enough to be served when the gateway fails.
    pub(crate) fn last(&self, code: &WatchCode) -> Option<Answer> {
        let observation = self.inner.store.get(code)?.observation?;
        let answer = self.inner.last(&observation);
        (observation.report.status.is_final() || answer.age < self.inner.stale_for)
            .then_some(answer)
    }

    /// Waits for this payment: it is polled for as long as the subscription lives.
    pub(crate) fn subscribe(&self, code: &WatchCode) -> Subscription {
        Subscription::new(self.inner.clone(), code)
    }

    /// Waits for all payments that were started here: every open one is polled for as long as the feed lives. Resumes
    /// after the event of that id, if there is one.
    pub(crate) fn feed(&self, after: Option<&str>) -> ChangeFeed {
        ChangeFeed::new(self.inner.clone(), after)
    }

    /// Returns when no call is under way any more.
    pub(crate) async fn idle(&self) {
        self.inner.tasks.idle().await;
    }

    /// How many payments are followed at this moment.
    pub(crate) fn followed(&self) -> usize {
        self.inner.lock().state.followed()
    }

    /// What it has done up to now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            polls_saved: self.inner.polls_saved.get(),
            references_paid_twice: self.inner.paid_twice.get(),
        }
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let saved = self.inner.polls_saved.clone();
        registry.register(
            "polls_saved",
            "Answers to watches that took no call of their own to the gateway",
            saved,
        );
        let unconfirmed = self.inner.unconfirmed.clone();
        registry.register(
            "unconfirmed",
            "Final answers on a shared connection that were not confirmed",
            unconfirmed,
        );
        let mismatches = self.inner.amount_mismatches.clone();
        registry.register(
            "amount_mismatch",
            "Payments that the gateway tells another amount of",
            mismatches,
        );
        let twice = self.inner.paid_twice.clone();
        registry.register(
            "references_paid_twice",
            "Payments that were completed after another one of their reference",
            twice,
        );
        let unknown = self.inner.unknown_statuses.clone();
        registry.register(
            "unknown_status",
            "Changes to a status that the gateway's guide does not know",
            unknown,
        );
    }
}

impl Inner {
    /// An answer from memory does not step the state: it changes nothing there, and it is what most watches get, so it
    /// must cost no more than the look into the store.
    fn answer_or_call(self: &Arc<Self>, code: &WatchCode, force: bool) -> Asked {
        let mut guard = self.lock();
        let shared = &mut *guard;
        let record = self.store.get(code).unwrap_or_default();
        if let Some(observation) = &record.observation
            && let Some(answer) = self.remembered(observation, force)
        {
            return Asked::Known(Ok(answer));
        }
        // It may have been started since.
        if record.stored.is_none()
            && !force
            && let Some(error) = shared.unknown.get(clock::now(), code)
        {
            return Asked::Known(Err(error.clone().into()));
        }
        if let Some(waiter) = Waiter::join(self, shared, code) {
            return Asked::Joined(record, waiter);
        }
        let code = code.clone();
        self.step(shared, Input::Asked { code: code.clone() });
        let question = Question {
            rank: Rank::of(record.observation.is_some(), record.stored.is_some()),
            is_waited_for: true,
            younger_than: if force {
                Duration::ZERO
            } else {
                self.fresh_for
            },
        };
        let call = self.call(shared, code.clone(), false, question);
        Asked::Called(record, Waiter::first(self, &code, call))
    }

    /// What is known, if that will do.
    fn remembered(&self, observation: &Observation, force: bool) -> Option<Answer> {
        let answer = self.last(observation);
        let fresh = answer.age < self.fresh_for && !force;
        (fresh || observation.report.status.is_final()).then_some(answer)
    }
}

//! The poller: what is known of each payment, and one call to the gateway for all who ask.

mod answer;
mod cadence;
mod config;
mod feed;
mod poll;
mod queue;
mod rate_window;
mod schedule;
mod snapshot;
mod state;
mod subscription;
mod tell;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::answer::{Answer, Error, How, Stale};
pub(crate) use self::config::Config;
pub(crate) use self::feed::ChangeFeed;
use self::rate_window::{Permit, RateWindow};
pub(crate) use self::snapshot::Snapshot;
use self::state::PollState;
pub(crate) use self::subscription::Subscription;
use crate::clock::{self, Instant};
use crate::gateway::{self, Gateway};
use crate::payment::WatchCode;
use crate::store::{Changes, Observation, Payments, Settled, Store};
use crate::tasks::{SharedTask, SharedTasks};
use crate::telemetry::RequestId;

/// How long a code that the gateway does not know is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// Answers questions about payments, and polls those that somebody waits for. Clones share everything.
#[derive(Clone)]
pub(crate) struct StatusPoller {
    inner: Arc<Inner>,
    /// Ends the scheduler when the last clone is dropped.
    _scheduler: Arc<AbortOnDropHandle<()>>,
}

struct Inner {
    fresh_for: Duration,
    stale_for: Duration,
    max_poll_interval: Duration,
    give_up_after: Duration,
    gateway: Arc<Gateway>,
    store: Payments,
    changes: Changes,
    rate_window: RateWindow,
    tasks: SharedTasks,
    state: Mutex<PollState>,
    /// Rings when the scheduler should look at the state again.
    bell: Notify,
    polls_saved: Counter,
    /// Second answers that were not as the first.
    unconfirmed: Counter,
    /// Answers that name another amount than was started.
    amount_mismatches: Counter,
    /// Answers with a status that the guide does not know.
    unknown_statuses: Counter,
}

impl StatusPoller {
    /// A poller that follows nothing yet, and its scheduler. With `owes` every open payment is polled, whoever waits for
    /// it: there are messages to the app to be made.
    pub(crate) fn new(config: &Config, gateway: Arc<Gateway>, store: &Store, owes: bool) -> Self {
        let inner = Arc::new(Inner {
            fresh_for: config.fresh_for,
            stale_for: config.stale_for,
            max_poll_interval: config.max_poll_interval,
            give_up_after: config.give_up_after,
            gateway,
            store: store.payments(),
            changes: store.changes(),
            rate_window: RateWindow::new(config.poll_rate),
            tasks: SharedTasks::default(),
            state: Mutex::new(PollState {
                feeds: usize::from(owes),
                ..PollState::default()
            }),
            bell: Notify::new(),
            polls_saved: Counter::default(),
            unconfirmed: Counter::default(),
            amount_mismatches: Counter::default(),
            unknown_statuses: Counter::default(),
        });
        // One task for all payments.
        let scheduler = tokio::spawn(schedule::run(inner.clone()));
        Self {
            inner,
            _scheduler: Arc::new(AbortOnDropHandle::new(scheduler)),
        }
    }

    /// What the gateway says of this payment: from memory while that is fresh (unless `force`d), else from one call
    /// that serves everyone who asks meanwhile.
    ///
    /// # Errors
    /// When the gateway gives nothing and nothing young enough is known.
    pub(crate) async fn ask(&self, code: &WatchCode, force: bool) -> Result<Answer, Error> {
        let inner = &self.inner;
        let (known, task, joined) = {
            let mut state = inner.state();
            let known = inner.store.get(code).unwrap_or_default();
            if let Some(answer) = known
                .observation
                .as_ref()
                .and_then(|observation| inner.remembered(observation, force))
            {
                inner.polls_saved.inc();
                return Ok(answer);
            }
            // It may have been started since.
            let may_remember = known.stored.is_none() && !force;
            let remembered = state.unknown.get(code).filter(|_| may_remember);
            let remembered = remembered.filter(|(since, _)| clock::now() - *since < UNKNOWN_FOR);
            if let Some((_, error)) = remembered {
                inner.polls_saved.inc();
                return Err(error.clone().into());
            }
            match state.under_way.get(code).filter(|task| task.is_under_way()) {
                Some(task) => (known, task.clone(), true),
                None => {
                    let task = inner.call(code.clone(), None, known.observation.is_some());
                    state.under_way.insert(code.clone(), task.clone());
                    (known, task, false)
                }
            }
        };
        if joined {
            inner.polls_saved.inc();
        }
        let first = known.observation.is_none();
        let result = task.result().await.unwrap_or(Err(Error::Crashed));
        let (observation, stale) = match result {
            Ok(observation) => (observation, None),
            Err(error) => {
                let why = if matches!(error, Error::NoPermit) {
                    Stale::RateLimited
                } else {
                    Stale::Gateway
                };
                let last = known
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
        self.inner.state().followed.len()
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
        let unknown = self.inner.unknown_statuses.clone();
        registry.register(
            "unknown_status",
            "Changes to a status that the gateway's guide does not know",
            unknown,
        );
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, PollState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the one call. It settles what it learns by itself: who asked may have gone. With a `permit` it is the
    /// scheduler's own.
    fn call(
        self: &Arc<Self>,
        code: WatchCode,
        permit: Option<Permit>,
        has_answer: bool,
    ) -> SharedTask<Result<Observation, Error>> {
        let this = self.clone();
        self.tasks.launch(RequestId::keep(async move {
            let (began, in_background) = (clock::now(), permit.is_some());
            // A crash is an end too: whoever waits for this payment must not wait in vain.
            let settled = async {
                let polled = this.poll(&code, permit, has_answer).await?;
                // What is new is kept first; then everybody hears of it.
                Ok(this.store.settle(&code, polled.report, polled.asked).await)
            };
            let result = AssertUnwindSafe(settled)
                .catch_unwind()
                .await
                .unwrap_or(Err(Error::Crashed));
            this.finish_poll(&code, began, in_background, result)
        }))
    }

    /// What is known, if that will do.
    fn remembered(&self, observation: &Observation, force: bool) -> Option<Answer> {
        let answer = self.last(observation);
        let fresh = answer.age < self.fresh_for && !force;
        (fresh || observation.report.status.is_final()).then_some(answer)
    }

    /// What is known, however old.
    fn last(&self, observation: &Observation) -> Answer {
        let age = clock::now() - observation.asked;
        let is_final = observation.report.status.is_final();
        let fresh_for = (!is_final).then(|| self.fresh_for.saturating_sub(age));
        Answer {
            report: observation.report.clone(),
            age,
            how: How::Hit { fresh_for },
        }
    }

    /// The call is over: what it learned is in the state in the same moment.
    fn finish_poll(
        &self,
        code: &WatchCode,
        began: Instant,
        in_background: bool,
        result: Result<Settled, Error>,
    ) -> Result<Observation, Error> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.under_way.remove(code);
        state.in_background -= usize::from(in_background);
        let outcome = match result {
            Ok(Settled {
                observation,
                before,
            }) => {
                let odd = tell::tell(&before, &observation);
                self.amount_mismatches.inc_by(odd.amount.into());
                self.unknown_statuses.inc_by(odd.status.into());
                state.unknown.remove(code);
                Ok(observation)
            }
            Err(Error::Gateway(error @ gateway::Error::UnknownCode(_))) => {
                if self.store.get(code).is_some() {
                    // We know better: it exists, so this answer is a failure.
                    Err(error.of_known_code().into())
                } else {
                    let now = clock::now();
                    // A call each, so never more of them than the rate window makes in that time.
                    state
                        .unknown
                        .retain(|_, (since, _)| now - *since < UNKNOWN_FOR);
                    state.unknown.insert(code.clone(), (now, error.clone()));
                    Err(error.into())
                }
            }
            Err(error) => Err(error),
        };
        if let Some(followed) = state.followed.get(code) {
            followed.tell(&outcome);
        }
        self.reschedule(
            state,
            code,
            began,
            outcome.as_ref().map(|observation| observation.asked),
        );
        self.bell.notify_one();
        let known = || {
            self.store
                .get(code)
                .is_some_and(|known| known.observation.is_some())
        };
        if let Err(error) = &outcome
            && !matches!(error, Error::Gateway(gateway::Error::SecretUnavailable))
            && (state.followed.contains_key(code) || known())
        {
            // Once, however many are waiting; a caller with nothing to fall back on gets the error, which is logged there.
            tracing::warn!(%error, request_id = RequestId::current().as_deref(), "no new answer about a payment: the last known one is served while it is young enough");
        }
        outcome
    }
}

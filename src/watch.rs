//! The board: what is known of each payment, and one call to the gateway for all who ask.

mod agenda;
mod answer;
mod budget;
mod cadence;
mod feed;
mod follow;
mod poll;
mod schedule;
mod tell;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use self::agenda::Agenda;
pub(crate) use self::answer::{Answer, Error, How, Stale};
use self::budget::{Budget, Turn};
pub(crate) use self::feed::Feed;
use self::follow::Followed;
pub(crate) use self::follow::Follower;
use self::schedule::{Failing, Trouble};
use crate::clock::{self, Instant};
use crate::flight::{Airport, Flight};
use crate::gateway::{self, Gateway};
use crate::payment::WatchCode;
use crate::store::{Record, Seen, Settled, Store};

/// `[watch]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// A younger answer is served from memory.
    #[serde(with = "clock::text")]
    pub(crate) fresh_for: Duration,
    /// At most so old an answer is served when the gateway fails.
    #[serde(with = "clock::text")]
    pub(crate) stale_for: Duration,
    /// Longest that a caller may wait for a change.
    #[serde(with = "clock::text")]
    pub(crate) max_wait: Duration,
    /// Calls per second, all payments together, repeats included.
    pub(crate) poll_rate: NonZeroU32,
    /// From one poll in the background to the next, at most.
    #[serde(with = "clock::text")]
    pub(crate) max_poll_interval: Duration,
    /// From then on a payment is not polled in the background any more; who asks for it still gets an answer.
    #[serde(with = "clock::text")]
    pub(crate) give_up_after: Duration,
    /// Watch codes kept in memory.
    pub(crate) max_tracked: NonZeroU32,
}

impl Default for Config {
    fn default() -> Self {
        #[expect(clippy::unwrap_used, reason = "neither is zero")]
        let (poll_rate, max_tracked) = (NonZeroU32::new(20).unwrap(), NonZeroU32::new(100_000).unwrap());
        Self {
            fresh_for: Duration::from_secs(1),
            stale_for: Duration::from_secs(600),
            max_wait: Duration::from_secs(60),
            poll_rate,
            max_poll_interval: Duration::from_secs(600),
            give_up_after: Duration::from_secs(24 * 3600),
            max_tracked,
        }
    }
}

/// How long a code that the gateway does not know is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// Answers questions about payments, and polls those that somebody waits for. Clones share everything.
#[derive(Clone)]
pub(crate) struct Board {
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
    store: Arc<Store>,
    budget: Budget,
    airport: Airport,
    plan: Mutex<Plan>,
    /// Rings when the scheduler should look at the plan again.
    bell: Notify,
    polls_saved: Counter,
    /// Second answers that were not as the first.
    unconfirmed: Counter,
    /// Answers that name another amount than was started.
    amount_mismatches: Counter,
    /// Answers with a status that the guide does not know.
    unknown_statuses: Counter,
}

/// One lock for all of it, and for the look into the store before a call: who finds nothing fresh joins the call that
/// is under way or makes the only one.
#[derive(Default)]
struct Plan {
    under_way: HashMap<WatchCode, Flight<Result<Seen, Error>>>,
    /// Unheard-of codes, and when the gateway said so.
    unknown: HashMap<WatchCode, (Instant, gateway::Error)>,
    /// What is polled in the background.
    followed: HashMap<WatchCode, Followed>,
    agenda: Agenda,
    failing: HashMap<WatchCode, Failing>,
    trouble: Trouble,
    /// Calls under way that nobody made but the scheduler.
    in_background: usize,
    /// Readers of all payments, the app's webhook among them: while there is one, every open payment is followed.
    feeds: usize,
    /// The last payment that is followed because of that.
    adopted: u64,
    /// These are not polled in the background any more: that is still to be kept.
    ended: Vec<WatchCode>,
}

impl Board {
    /// An empty board, and its scheduler. With `owes` every open payment is polled, whoever waits for it: the app is to
    /// be told.
    pub(crate) fn new(config: &Config, gateway: Arc<Gateway>, store: Arc<Store>, owes: bool) -> Self {
        let inner = Arc::new(Inner {
            fresh_for: config.fresh_for,
            stale_for: config.stale_for,
            max_poll_interval: config.max_poll_interval,
            give_up_after: config.give_up_after,
            gateway,
            store,
            budget: Budget::new(config.poll_rate),
            airport: Airport::default(),
            plan: Mutex::new(Plan { feeds: usize::from(owes), ..Plan::default() }),
            bell: Notify::new(),
            polls_saved: Counter::default(),
            unconfirmed: Counter::default(),
            amount_mismatches: Counter::default(),
            unknown_statuses: Counter::default(),
        });
        // One task for all payments.
        let scheduler = tokio::spawn(schedule::run(inner.clone()));
        Self { inner, _scheduler: Arc::new(AbortOnDropHandle::new(scheduler)) }
    }

    /// What the gateway says of this payment: from memory while that is fresh (unless `force`d), else from one call
    /// that serves everyone who asks meanwhile.
    ///
    /// # Errors
    /// When the gateway gives nothing and nothing young enough is known.
    pub(crate) async fn ask(&self, code: &WatchCode, force: bool) -> Result<Answer, Error> {
        let inner = &self.inner;
        let (known, flight, joined) = {
            let mut plan = inner.plan();
            let known = inner.store.get(code).unwrap_or_default();
            if let Some(answer) = known.seen.as_ref().and_then(|seen| inner.remembered(seen, force)) {
                inner.polls_saved.inc();
                return Ok(answer);
            }
            // It may have been started since.
            let may_remember = known.tracked.is_none() && !force;
            let remembered = plan.unknown.get(code).filter(|_| may_remember);
            let remembered = remembered.filter(|(since, _)| clock::now() - *since < UNKNOWN_FOR);
            if let Some((_, error)) = remembered {
                inner.polls_saved.inc();
                return Err(error.clone().into());
            }
            match plan.under_way.get(code).filter(|flight| flight.is_under_way()) {
                Some(flight) => (known, flight.clone(), true),
                None => {
                    let flight = inner.call(code.clone(), None, known.seen.is_some());
                    plan.under_way.insert(code.clone(), flight.clone());
                    (known, flight, false)
                }
            }
        };
        if joined {
            inner.polls_saved.inc();
        }
        let first = known.seen.is_none();
        let result = flight.landed().await.unwrap_or(Err(Error::Crashed));
        let (seen, stale) = match result {
            Ok(seen) => (seen, None),
            Err(error) => {
                let why = if matches!(error, Error::NoTurn) { Stale::Budget } else { Stale::Gateway };
                let last = known.seen.filter(|seen| clock::now() - seen.asked < inner.stale_for);
                let Some(last) = last else { return Err(error) };
                (last, Some(why))
            }
        };
        let how = How::Asked { first, joined, stale };
        Ok(Answer { age: clock::now() - seen.asked, report: seen.report, how })
    }

    /// The last that is known, if it is young enough to be served when the gateway fails.
    pub(crate) fn last(&self, code: &WatchCode) -> Option<Answer> {
        let seen = self.inner.store.get(code)?.seen?;
        let answer = self.inner.last(&seen);
        (seen.report.status.is_final() || answer.age < self.inner.stale_for).then_some(answer)
    }

    /// Waits for this payment: it is polled for as long as the follower lives.
    pub(crate) fn follow(&self, code: &WatchCode) -> Follower {
        Follower::new(self.inner.clone(), code)
    }

    /// Waits for all payments that were started here: every open one is polled for as long as the feed lives. Resumes
    /// after the event of that id, if there is one.
    pub(crate) fn feed(&self, after: Option<&str>) -> Feed {
        Feed::new(self.inner.clone(), after)
    }

    /// Returns when no call is under way any more.
    pub(crate) async fn idle(&self) {
        self.inner.airport.idle().await;
    }

    /// How many payments are followed at this moment.
    pub(crate) fn followed(&self) -> usize {
        self.inner.plan().followed.len()
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let saved = self.inner.polls_saved.clone();
        registry.register("polls_saved", "Answers to watches that took no call of their own to the gateway", saved);
        let unconfirmed = self.inner.unconfirmed.clone();
        registry.register("unconfirmed", "Final answers on a shared connection that were not confirmed", unconfirmed);
        let mismatches = self.inner.amount_mismatches.clone();
        registry.register("amount_mismatch", "Payments that the gateway tells another amount of", mismatches);
        let unknown = self.inner.unknown_statuses.clone();
        registry.register("unknown_status", "Changes to a status that the gateway's guide does not know", unknown);
    }
}

impl Plan {
    /// Nobody waits for this payment any more.
    fn let_go_of(&mut self, code: &WatchCode, store: &Store) {
        let is_open =
            |record: Record| record.tracked.is_some() && !record.seen.is_some_and(|seen| seen.report.status.is_final());
        if self.feeds > 0 && store.get(code).is_some_and(is_open) {
            return;
        }
        if let Some(Followed { slot: Some(slot), .. }) = self.followed.remove(code) {
            self.agenda.remove(code, slot);
        }
    }

    /// A reader of all payments has gone.
    fn close_feed(&mut self) {
        self.feeds -= 1;
        if self.feeds > 0 {
            return;
        }
        self.adopted = 0;
        let Self { followed, agenda, .. } = self;
        followed.retain(|code, followed| {
            let stays = followed.is_waited_for();
            if let (false, Some(slot)) = (stays, followed.slot) {
                agenda.remove(code, slot);
            }
            stays
        });
    }
}

impl Inner {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the one call. It settles what it learns by itself: who asked may have gone. With a `turn` it is the
    /// scheduler's own.
    fn call(self: &Arc<Self>, code: WatchCode, turn: Option<Turn>, has_answer: bool) -> Flight<Result<Seen, Error>> {
        let this = self.clone();
        self.airport.launch(async move {
            let (began, in_background) = (clock::now(), turn.is_some());
            // A crash is an end too: whoever waits for this payment must not wait in vain.
            let settled = async {
                let polled = this.poll(&code, turn, has_answer).await?;
                // What is new is kept first; then everybody hears of it.
                Ok(this.store.settle(&code, polled.report, polled.asked).await)
            };
            let result = AssertUnwindSafe(settled).catch_unwind().await.unwrap_or(Err(Error::Crashed));
            this.land(&code, began, in_background, result)
        })
    }

    /// What is known, if that will do.
    fn remembered(&self, seen: &Seen, force: bool) -> Option<Answer> {
        let answer = self.last(seen);
        let fresh = answer.age < self.fresh_for && !force;
        (fresh || seen.report.status.is_final()).then_some(answer)
    }

    /// What is known, however old.
    fn last(&self, seen: &Seen) -> Answer {
        let age = clock::now() - seen.asked;
        let is_final = seen.report.status.is_final();
        let fresh_for = (!is_final).then(|| self.fresh_for.saturating_sub(age));
        Answer { report: seen.report.clone(), age, how: How::Hit { fresh_for } }
    }

    /// The call is over: what it learned takes its place on the board in the same moment.
    fn land(
        &self,
        code: &WatchCode,
        began: Instant,
        in_background: bool,
        result: Result<Settled, Error>,
    ) -> Result<Seen, Error> {
        let mut guard = self.plan();
        let plan = &mut *guard;
        plan.under_way.remove(code);
        plan.in_background -= usize::from(in_background);
        let landed = match result {
            Ok(Settled { seen, before }) => {
                let odd = tell::tell(&before, &seen);
                self.amount_mismatches.inc_by(odd.amount.into());
                self.unknown_statuses.inc_by(odd.status.into());
                plan.unknown.remove(code);
                Ok(seen)
            }
            Err(Error::Gateway(error @ gateway::Error::UnknownCode(_))) => {
                if self.store.get(code).is_some() {
                    // We know better: it exists, so this answer is a failure.
                    Err(error.of_known_code().into())
                } else {
                    let now = clock::now();
                    // A call each, so never more of them than the budget makes in that time.
                    plan.unknown.retain(|_, (since, _)| now - *since < UNKNOWN_FOR);
                    plan.unknown.insert(code.clone(), (now, error.clone()));
                    Err(error.into())
                }
            }
            Err(error) => Err(error),
        };
        if let Some(followed) = plan.followed.get(code) {
            followed.tell(&landed);
        }
        self.landed(plan, code, began, landed.as_ref().map(|seen| seen.asked));
        self.bell.notify_one();
        let known = || self.store.get(code).is_some_and(|known| known.seen.is_some());
        if let Err(error) = &landed
            && !matches!(error, Error::Gateway(gateway::Error::SecretUnavailable))
            && (plan.followed.contains_key(code) || known())
        {
            // Once, however many are waiting; who has nothing to fall back on is told, and that is logged there.
            tracing::warn!(%error, "no new answer about a payment: the last known one is served while it is young enough");
        }
        landed
    }
}

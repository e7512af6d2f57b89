//! The board: what is known of each payment, and one call to the gateway for all who ask.

mod budget;
mod poll;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use self::budget::Budget;
use crate::clock::{self, Instant};
use crate::flight::{Airport, Flight};
use crate::gateway::{self, Gateway};
use crate::payment::{Report, Status, WatchCode};
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
    /// Calls per second, all payments together, repeats included.
    pub(crate) poll_rate: NonZeroU32,
    /// Watch codes kept in memory.
    pub(crate) max_tracked: NonZeroU32,
}

impl Default for Config {
    fn default() -> Self {
        #[expect(clippy::unwrap_used, reason = "neither is zero")]
        let (poll_rate, max_tracked) = (NonZeroU32::new(20).unwrap(), NonZeroU32::new(100_000).unwrap());
        Self { fresh_for: Duration::from_secs(1), stale_for: Duration::from_secs(600), poll_rate, max_tracked }
    }
}

/// How long a code that the gateway does not know is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// Answers questions about payments. Clones share everything.
#[derive(Clone)]
pub(crate) struct Board(Arc<Inner>);

struct Inner {
    fresh_for: Duration,
    stale_for: Duration,
    gateway: Arc<Gateway>,
    store: Arc<Store>,
    budget: Budget,
    airport: Airport,
    calls: Mutex<Calls>,
    polls_saved: Counter,
}

/// One lock for both, and for the look into the store before a call: who finds nothing fresh joins the call that is
/// under way or makes the only one.
#[derive(Default)]
struct Calls {
    under_way: HashMap<WatchCode, Flight<Result<Seen, Error>>>,
    /// Unheard-of codes, and when the gateway said so.
    unknown: HashMap<WatchCode, (Instant, gateway::Error)>,
}

/// An answer to a question.
#[derive(Clone)]
pub(crate) struct Answer {
    /// What the gateway said.
    pub(crate) report: Arc<Report>,
    /// How long ago it was asked.
    pub(crate) age: Duration,
    /// How the answer was come by.
    pub(crate) how: How,
}

/// How an answer was come by, as RFC 9211 tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// From memory, which is fresh for so long still; a final answer is fresh for ever.
    Hit {
        /// `None`: for ever.
        fresh_for: Option<Duration>,
    },
    /// The gateway was asked.
    Asked {
        /// Nothing was known before.
        first: bool,
        /// Somebody else's question was joined.
        joined: bool,
        /// The gateway gave nothing: this is the last that was known.
        stale: Option<Stale>,
    },
}

/// Why an old answer has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// The gateway failed.
    Gateway,
    /// There was no turn for a call.
    Budget,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The gateway, or the way to it.
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    /// No turn for a call came in time.
    #[error("no turn within watch.poll_rate")]
    NoTurn,
    /// A bug of ours.
    #[error("the call crashed")]
    Crashed,
}

impl Board {
    /// An empty board.
    pub(crate) fn new(config: &Config, gateway: Arc<Gateway>, store: Arc<Store>, airport: Airport) -> Self {
        Self(Arc::new(Inner {
            fresh_for: config.fresh_for,
            stale_for: config.stale_for,
            gateway,
            store,
            budget: Budget::new(config.poll_rate),
            airport,
            calls: Mutex::default(),
            polls_saved: Counter::default(),
        }))
    }

    /// What the gateway says of this payment: from memory while that is fresh (unless `force`d), else from one call
    /// that serves everyone who asks meanwhile.
    ///
    /// # Errors
    /// When the gateway gives nothing and nothing young enough is known.
    pub(crate) async fn ask(&self, code: &WatchCode, force: bool) -> Result<Answer, Error> {
        let board = &self.0;
        let (known, flight, joined) = {
            let mut calls = board.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let known = board.store.get(code).unwrap_or_default();
            if let Some(answer) = known.seen.as_ref().and_then(|seen| board.remembered(seen, force)) {
                board.polls_saved.inc();
                return Ok(answer);
            }
            let remembered = calls.unknown.get(code).filter(|(since, _)| !force && clock::now() - *since < UNKNOWN_FOR);
            if let Some((_, error)) = remembered {
                board.polls_saved.inc();
                return Err(error.clone().into());
            }
            match calls.under_way.get(code).filter(|flight| flight.is_under_way()) {
                Some(flight) => (known, flight.clone(), true),
                None => {
                    let flight = self.call(code.clone());
                    calls.under_way.insert(code.clone(), flight.clone());
                    (known, flight, false)
                }
            }
        };
        if joined {
            board.polls_saved.inc();
        }
        let first = known.seen.is_none();
        let result = flight.landed().await.unwrap_or(Err(Error::Crashed));
        let (seen, stale) = match result {
            Ok(seen) => (seen, None),
            Err(error) => {
                let why = if matches!(error, Error::NoTurn) { Stale::Budget } else { Stale::Gateway };
                let last = known.seen.filter(|seen| clock::now() - seen.asked < board.stale_for);
                let Some(last) = last else { return Err(error) };
                (last, Some(why))
            }
        };
        let how = How::Asked { first, joined, stale };
        Ok(Answer { age: clock::now() - seen.asked, report: seen.report, how })
    }

    /// Makes the one call. It settles what it learns by itself: who asked may have gone.
    fn call(&self, code: WatchCode) -> Flight<Result<Seen, Error>> {
        let this = self.clone();
        self.0.airport.launch(async move {
            let result = poll::poll(&this.0.gateway, &this.0.budget, &code).await;
            this.0.land(&code, result)
        })
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let saved = self.0.polls_saved.clone();
        registry.register("polls_saved", "Answers to watches that took no call of their own to the gateway", saved);
    }
}

impl Inner {
    /// What is known, if that will do.
    fn remembered(&self, seen: &Seen, force: bool) -> Option<Answer> {
        let age = clock::now() - seen.asked;
        let fresh_for = if seen.report.status.is_final() {
            None
        } else if force || age >= self.fresh_for {
            return None;
        } else {
            Some(self.fresh_for - age)
        };
        Some(Answer { report: seen.report.clone(), age, how: How::Hit { fresh_for } })
    }

    /// The call is over: what it learned takes its place on the board in the same moment.
    fn land(&self, code: &WatchCode, result: Result<poll::Polled, Error>) -> Result<Seen, Error> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.under_way.remove(code);
        let landed = match result {
            Ok(polled) => {
                let Settled { seen, before } = self.store.settle(code, polled.report, polled.asked);
                tell(&before, &seen);
                Ok(seen)
            }
            Err(Error::Gateway(error @ gateway::Error::UnknownCode(_))) => {
                if self.store.get(code).is_some() {
                    // We know better: it exists, so this answer is a failure.
                    Err(error.of_known_code().into())
                } else {
                    let now = clock::now();
                    // A call each, so never more of them than the budget makes in that time.
                    calls.unknown.retain(|_, (since, _)| now - *since < UNKNOWN_FOR);
                    calls.unknown.insert(code.clone(), (now, error.clone()));
                    Err(error.into())
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &landed
            && self.store.get(code).is_some_and(|known| known.seen.is_some())
        {
            // Once, however many are waiting; who has nothing to fall back on is told, and that is logged there.
            tracing::warn!(%error, "no new answer about a payment: the last known one is served while it is young enough");
        }
        landed
    }
}

/// One line for each change of a status, and for each answer that should not be.
fn tell(before: &Record, seen: &Seen) {
    let status = &seen.report.status;
    let last = before.seen.as_ref().map(|seen| &seen.report.status);
    let payment = before.payment.as_ref();
    let code = payment.map(|payment| payment.code.to_string());
    let amount = &seen.report.amount;
    if let Some(payment) = payment
        && payment.amount.to_string() != **amount
        && before.seen.as_ref().is_none_or(|seen| seen.report.amount != *amount)
    {
        tracing::warn!(code, asked = %payment.amount, told = amount, "the gateway tells another amount than was started");
    }
    if last == Some(status) {
        return;
    }
    tracing::info!(code, from = last.map(Status::label), to = status.label(), "payment status");
    if matches!(status, Status::Other(_)) {
        tracing::warn!(
            code,
            ?status,
            "the gateway gave a status that its guide does not know; it is passed on as it is"
        );
    }
}

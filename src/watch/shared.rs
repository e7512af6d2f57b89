//! What the poller, its driver and those who wait share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::{Notify, oneshot, watch};

use super::answer::{Answer, Error, How};
use super::news::News;
use super::queue::CallerId;
use super::state::{Input, Known, PollState};
use super::unknown::UnknownCodes;
use crate::clock::{self, Instant};
use crate::gateway::Gateway;
use crate::payment::WatchCode;
use crate::store::{Changes, Observation, Payments, Record};
use crate::tasks::{SharedTask, SharedTasks};

/// What all clones of a poller have in common, with the subscriptions and feeds that came of them.
pub(super) struct Inner {
    pub(super) fresh_for: Duration,
    pub(super) stale_for: Duration,
    pub(super) gateway: Arc<Gateway>,
    pub(super) store: Payments,
    pub(super) changes: Changes,
    pub(super) tasks: SharedTasks,
    pub(super) shared: Mutex<Shared>,
    /// Rings when the driver's loop should look at the state again.
    pub(super) bell: Notify,
    pub(super) polls_saved: Counter,
    /// Second answers that were not as the first.
    pub(super) unconfirmed: Counter,
    /// Answers that name another amount than was started.
    pub(super) amount_mismatches: Counter,
    /// Answers with a status that the guide does not know.
    pub(super) unknown_statuses: Counter,
    /// Payments completed after another one of their reference.
    pub(super) paid_twice: Counter,
}

/// What stands behind the one lock: the state, and the channels that belong to it. The look into the store before a call
/// is made under this lock too: a caller that finds nothing fresh joins the call that is under way, or makes the only one.
pub(super) struct Shared {
    pub(super) state: PollState,
    /// The calls that are under way.
    pub(super) calls: HashMap<WatchCode, UnderWay>,
    pub(super) last_call: u64,
    /// To those who wait for a payment.
    pub(super) news: HashMap<WatchCode, watch::Sender<News>>,
    pub(super) unknown: UnknownCodes,
    /// Callers that wait for a permit.
    pub(super) callers: HashMap<CallerId, Caller>,
    pub(super) last_caller: CallerId,
    /// Nothing is due before then.
    pub(super) wake_up: Instant,
}

/// A call to the gateway, which any number of callers wait for.
pub(super) type Call = SharedTask<Result<Observation, Error>>;

/// A call that is under way.
pub(super) struct UnderWay {
    pub(super) task: Call,
    /// Tells it from others for the same code.
    pub(super) number: u64,
    /// How many wait for its result.
    pub(super) waiters: usize,
    pub(super) stage: Stage,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Begun,
    /// It waits for a permit.
    Queued(CallerId),
    /// It has had one: the gateway is being asked, or is about to be.
    Sent,
}

/// Waits for a permit for a call.
pub(super) struct Caller {
    pub(super) code: WatchCode,
    /// Dropped if nobody waits for the call any more.
    pub(super) reply: oneshot::Sender<Result<Permit, Error>>,
}

/// The right to make one call. Its place in the rate window rests from the moment when it is dropped: not while the lock
/// is held, because that takes it.
pub(super) struct Permit {
    inner: Arc<Inner>,
    is_unused: bool,
}

impl Permit {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let is_unused = false;
        Self { inner, is_unused }
    }

    /// No call was made.
    pub(super) fn unused(mut self) {
        self.is_unused = true;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.input(match self.is_unused {
            true => Input::PermitUnused,
            false => Input::PermitReturned,
        });
    }
}

impl Shared {
    pub(super) fn new(state: PollState) -> Self {
        Self {
            state,
            calls: HashMap::new(),
            last_call: 0,
            news: HashMap::new(),
            unknown: UnknownCodes::default(),
            callers: HashMap::new(),
            last_caller: CallerId::default(),
            wake_up: clock::now(),
        }
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store knows of this payment, as far as the state wants to know.
    pub(super) fn known(&self, code: &WatchCode) -> Known {
        self.store
            .get(code)
            .as_ref()
            .map(Known::from)
            .unwrap_or_default()
    }

    /// What is known, however old.
    pub(super) fn last(&self, observation: &Observation) -> Answer {
        let age = clock::now() - observation.asked;
        let is_final = observation.report.status.is_final();
        let fresh_for = (!is_final).then(|| self.fresh_for.saturating_sub(age));
        Answer {
            report: observation.report.clone(),
            age,
            how: How::Hit { fresh_for },
        }
    }
}

impl From<&Record> for Known {
    fn from(record: &Record) -> Self {
        let observation = record.observation.as_ref();
        Self {
            started: record
                .stored
                .as_ref()
                .map(|stored| record.followed_since.unwrap_or(stored.since)),
            asked: observation.map(|observation| observation.asked),
            is_final: observation.is_some_and(|observation| observation.report.status.is_final()),
            polling_ended: record.polling_ended,
        }
    }
}

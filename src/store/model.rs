//! The words of the store: what is kept, and what happens to it.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Instant;
use crate::payment::{Amount, Asked, Code, IdempotencyKey, Payment, Report, WatchCode};

/// How long things are kept, and how much of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Watch codes at most.
    pub(crate) watch_codes: usize,
    /// Bytes of everything, at most: then what has finished leaves the lists, and at last nothing is started any more.
    pub(crate) bytes: u64,
    /// Answers under a key are kept this long.
    pub(crate) answers: Duration,
    /// Payments are kept this long after they were completed, and their references with them.
    pub(crate) finished: Duration,
    /// Payments are polled this long in the background.
    pub(crate) polled: Duration,
}

/// An open payment is let go this long after it is not polled any more.
const OPEN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

impl Limits {
    /// Returns the age at which an open payment is let go.
    pub(super) fn open(&self) -> Duration {
        self.polled + OPEN_FOR
    }
}

/// A payment that was started here, and when.
pub(crate) struct StoredPayment {
    /// Its place in the order of starts, from 1.
    pub(crate) number: u64,
    pub(crate) payment: Payment,
    /// For its age.
    pub(crate) since: Instant,
    /// For people and other programs.
    pub(crate) started_at: Timestamp,
}

/// What is known of one watch code.
#[derive(Clone, Default)]
pub(crate) struct Record {
    /// The payment, if it was started here.
    pub(crate) stored: Option<Arc<StoredPayment>>,
    /// The last answer of the gateway, if there was one.
    pub(crate) observation: Option<Observation>,
    /// A message says, or is about to say, that this payment is not polled in the background any more.
    pub(crate) polling_ended: bool,
    /// A later payment of the same reference was started at this moment: this one is polled for as long.
    pub(crate) followed_since: Option<Instant>,
}

/// That a payment was seen to be completed.
#[derive(Clone, Debug)]
pub(crate) struct Completion {
    /// When this program heard of it.
    pub(crate) seen_at: Timestamp,
    /// Another payment of the same reference that was completed before.
    pub(crate) paid_twice_with: Option<WatchCode>,
}

/// An answer, and when it was asked for: it says nothing about what happened after that moment.
#[derive(Clone)]
pub(crate) struct Observation {
    pub(crate) report: Arc<Report>,
    pub(crate) asked: Instant,
}

/// What an answer did to what was known.
#[derive(Clone)]
pub(crate) struct Settled {
    /// What is known now: a final status is never taken back.
    pub(crate) observation: Observation,
    /// What was known before.
    pub(crate) before: Record,
    /// If this answer completes a payment that was started here.
    pub(crate) completion: Option<Completion>,
}

/// A payment that was started here, and what is known of it.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) stored: Arc<StoredPayment>,
    pub(crate) observation: Option<Observation>,
    pub(crate) completion: Option<Completion>,
}

impl Settled {
    /// Returns the other payment of the same reference, if this answer completes a second one.
    pub(crate) fn paid_twice_with(&self) -> Option<&WatchCode> {
        self.completion.as_ref()?.paid_twice_with.as_ref()
    }
}

impl Known {
    /// Returns the other payment of the same reference, if this one was completed after it.
    pub(crate) fn paid_twice_with(&self) -> Option<&WatchCode> {
        self.completion.as_ref()?.paid_twice_with.as_ref()
    }
}

impl Record {
    /// Returns whether it is of this payment, and not of another that has its watch code by now.
    pub(super) fn is_of(&self, payment: &StoredPayment) -> bool {
        self.stored
            .as_ref()
            .is_some_and(|stored| stored.number == payment.number)
    }

    /// Returns whether the gateway need not be asked any more.
    pub(super) fn is_final(&self) -> bool {
        self.observation
            .as_ref()
            .is_some_and(|observation| observation.report.status.is_final())
    }

    /// Returns the report to show from now on: a final status is never taken back, and an equal report keeps its place
    /// in memory.
    pub(super) fn newer(&self, report: Arc<Report>) -> Arc<Report> {
        match &self.observation {
            Some(observation)
                if observation.report.status.is_final()
                    || observation.report.body == report.body =>
            {
                observation.report.clone()
            }
            _ => report,
        }
    }
}

/// A start that was answered under a key.
pub(crate) struct Answer {
    pub(crate) key: IdempotencyKey,
    /// What was asked for.
    pub(crate) request: Asked,
    pub(crate) body: StartBody,
    pub(crate) since: Instant,
}

/// The gateway's answer to a start, which each of its callers gets with the `pay_url` of its own redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartBody {
    pub(crate) code: Code,
    pub(crate) watch_code: WatchCode,
    /// The gateway's object as it came, scrubbed, without a `pay_url`.
    pub(crate) object: Arc<str>,
}

/// What became of a payment, for a caller who asked to start it again.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) watch_code: WatchCode,
    pub(crate) amount: Amount,
    /// The last answer about it.
    pub(crate) report: Option<Arc<Report>>,
}

/// A payment was started, or the gateway reported something new about it.
#[derive(Clone)]
pub(crate) struct Change {
    /// Its place in the order of all changes, from 1.
    pub(crate) position: u64,
    pub(crate) stored: Arc<StoredPayment>,
    /// `None` while the gateway has not been asked.
    pub(crate) report: Option<Arc<Report>>,
    pub(crate) paid_twice_with: Option<WatchCode>,
}

/// The changes after that position are not all there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfReach;

/// What a message to the app is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The payer has paid.
    Completed,
    /// `watch.give_up_after` is over: the payment is not polled in the background any more.
    PollingEnded,
}

impl Kind {
    /// Its name outside.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Completed => "payment.completed",
            Self::PollingEnded => "payment.polling_ended",
        }
    }
}

/// What a message is about.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) stored: &'a StoredPayment,
    pub(crate) report: Option<&'a Report>,
    /// Another payment of the same reference that was completed before.
    pub(crate) paid_twice_with: Option<&'a WatchCode>,
}

/// Returns what is posted to the app about this payment.
pub(crate) type Compose = fn(Kind, Subject<'_>, Timestamp) -> String;

/// One message for the app.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Its place in the order of all messages, from 1.
    pub(crate) number: u64,
    /// The same for every try.
    pub(crate) id: String,
    /// The number of the payment that it is about.
    pub(crate) payment: u64,
    /// The codes of that payment, which may be forgotten before the message is.
    pub(crate) code: Code,
    pub(crate) watch_code: WatchCode,
    pub(crate) kind: Kind,
    /// What is posted: the same bytes for every try.
    pub(crate) body: Arc<str>,
    pub(crate) created_at: Timestamp,
    /// The same moment, for its age.
    pub(crate) since: Instant,
    pub(crate) tries: u32,
    /// When the last try that failed was over.
    pub(crate) failed: Option<Instant>,
    /// The app has asked not to be posted it again before this moment (`Retry-After`).
    pub(crate) not_before: Option<Instant>,
    /// Why the last try failed.
    pub(crate) last_error: Option<String>,
    pub(crate) state: DeliveryState,
}

impl Delivery {
    /// Returns the same message, due at the end of this time or when the wait that the app asked for is over, if it
    /// failed within this time and waits for longer.
    pub(super) fn hastened(&self, away: &RangeInclusive<Instant>) -> Option<Self> {
        let DeliveryState::Due(at) = self.state else {
            return None;
        };
        let sooner = self
            .not_before
            .map_or(*away.end(), |not_before| not_before.max(*away.end()));
        let is_one = self.failed.is_some_and(|failed| away.contains(&failed));
        (is_one && sooner < at).then(|| Self {
            state: DeliveryState::Due(sooner),
            ..self.clone()
        })
    }
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryState {
    /// To be posted, again or for the first time, from this moment on.
    Due(Instant),
    /// The app took it.
    Delivered(Instant),
    /// The app does not want it, or did not take it for days.
    Failed(Instant),
}

impl DeliveryState {
    /// Its name outside.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Due(_) => "pending",
            Self::Delivered(_) => "delivered",
            Self::Failed(_) => "failed",
        }
    }
}

/// How the app has been doing, by the messages that are still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastTries {
    /// When it took one last.
    pub(crate) taken: Option<Instant>,
    /// When the oldest message was made that it has not taken since then, and that is still to be posted.
    pub(crate) failing: Option<Instant>,
}

/// Why a start was not kept: nobody may hear of its payment.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// It could not be written.
    #[error(transparent)]
    WriteFailed(#[from] WriteFailed),
    /// Its codes are another payment's.
    #[error(transparent)]
    CodeReused(CodeReused),
    /// Another process has answered its key, or has a payment of its reference, since it was claimed: that one counts.
    #[error("another process was faster")]
    Overtaken,
}

/// The gateway answered a start with the code or the watch code of a payment that was started here before, and that is
/// not the one of this start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway answered with the codes of another payment")]
pub(crate) struct CodeReused {
    /// What the gateway gave.
    pub(crate) given: (Code, WatchCode),
    /// What the payment started before has.
    pub(crate) known: (Code, WatchCode),
}

/// An event could not be written: nobody may hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has no room, or could not be written")]
pub(crate) struct WriteFailed;

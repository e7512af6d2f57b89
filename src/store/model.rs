//! The words of the store: what is kept, and what happens to it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::Timestamp;

use crate::clock::Instant;
use crate::payment::{Code, Fingerprint, IdempotencyKey, Payment, Report, WatchCode};

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
}

/// A payment that was started here, and the last answer about it.
pub(crate) type Known = (Arc<StoredPayment>, Option<Observation>);

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
    pub(crate) request: Fingerprint,
    /// The whole answer, as it was given.
    pub(crate) body: Arc<str>,
    pub(crate) since: Instant,
}

/// A payment was started, or the gateway reported something new about it.
#[derive(Clone)]
pub(crate) struct Change {
    /// Its place in the order of all changes, from 1.
    pub(crate) position: u64,
    pub(crate) stored: Arc<StoredPayment>,
    /// `None` while the gateway has not been asked.
    pub(crate) report: Option<Arc<Report>>,
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

/// What is true once it has been written.
#[derive(Clone)]
pub(super) enum Event {
    /// A payment was started, and answered under a key.
    Started {
        stored: Arc<StoredPayment>,
        position: u64,
        answer: Option<Arc<Answer>>,
    },
    /// The gateway has answered a start with a payment that was started before, under another key.
    Again { answer: Option<Arc<Answer>> },
    /// The gateway reported something new about a payment that was started here; `delivery` is the message to the app.
    Observed {
        stored: Arc<StoredPayment>,
        observation: Observation,
        polling_ended: bool,
        position: u64,
        delivery: Option<Arc<Delivery>>,
    },
    /// A payment is not polled in the background any more; `delivery` is the message to the app.
    PollingEnded {
        stored: Arc<StoredPayment>,
        observation: Option<Observation>,
        delivery: Option<Arc<Delivery>>,
    },
    /// A delivery is in another state.
    Delivery(Arc<Delivery>),
}

/// A row that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    Payment(u64),
    Answer(IdempotencyKey),
    Delivery(u64),
}

impl Event {
    /// Returns what the row of a payment is from now on.
    pub(super) fn payment(&self) -> Option<(&StoredPayment, Option<&Observation>, bool)> {
        match self {
            Self::Started { stored, .. } => Some((stored, None, false)),
            Self::Observed {
                stored,
                observation,
                polling_ended,
                ..
            } => Some((stored, Some(observation), *polling_ended)),
            Self::PollingEnded {
                stored,
                observation,
                ..
            } => Some((stored, observation.as_ref(), true)),
            Self::Again { .. } | Self::Delivery(_) => None,
        }
    }

    /// Returns what the journal says about it.
    pub(super) fn change(&self) -> Option<Change> {
        let (stored, position, report) = match self {
            Self::Started {
                stored, position, ..
            } => (stored, *position, None),
            Self::Observed {
                stored,
                position,
                observation,
                ..
            } => (stored, *position, Some(observation.report.clone())),
            Self::Again { .. } | Self::PollingEnded { .. } | Self::Delivery(_) => return None,
        };
        Some(Change {
            position,
            stored: stored.clone(),
            report,
        })
    }

    /// Returns what was answered under a key.
    pub(super) fn answer(&self) -> Option<&Arc<Answer>> {
        match self {
            Self::Started { answer, .. } | Self::Again { answer } => answer.as_ref(),
            _ => None,
        }
    }

    /// Returns the message to the app, new or changed.
    pub(super) fn delivery(&self) -> Option<&Arc<Delivery>> {
        match self {
            Self::Observed { delivery, .. } | Self::PollingEnded { delivery, .. } => {
                delivery.as_ref()
            }
            Self::Delivery(delivery) => Some(delivery),
            Self::Started { .. } | Self::Again { .. } => None,
        }
    }

    /// Returns whether it is untrue when it cannot be written.
    pub(super) fn is_refusable(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Again { .. })
    }

    /// Returns whether it writes this row, so that an earlier decision to delete it does not hold any more.
    pub(super) fn writes(&self, row: &Removal) -> bool {
        match row {
            Removal::Payment(number) => {
                matches!(self.payment(), Some((stored, _, _)) if stored.number == *number)
            }
            Removal::Answer(key) => self.answer().is_some_and(|answer| answer.key == *key),
            Removal::Delivery(number) => self
                .delivery()
                .is_some_and(|delivery| delivery.number == *number),
        }
    }
}

/// An event could not be written: nobody may hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has no room, or could not be written")]
pub(crate) struct WriteFailed;

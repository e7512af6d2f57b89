//! What happens to what is kept, and the rows that come of it.

use std::sync::Arc;

use super::model::{Answer, Change, Completion, Delivery, Observation, StoredPayment};
use crate::payment::IdempotencyKey;

/// What is true once it has been written.
#[derive(Clone)]
pub(super) enum Event {
    /// A payment was started, and answered under a key.
    Started {
        stored: Arc<StoredPayment>,
        position: u64,
        answer: Option<Arc<Answer>>,
    },
    /// A start was answered with a payment that was started before, under another key.
    Again { answer: Option<Arc<Answer>> },
    /// The gateway reported something new about a payment that was started here; `delivery` is the message to the app.
    Observed {
        stored: Arc<StoredPayment>,
        observation: Observation,
        polling_ended: bool,
        /// If it is completed.
        completion: Option<Completion>,
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
    /// Of a completed payment: all but what its reference still needs.
    AllButReference(u64),
    Answer(IdempotencyKey),
    Delivery(u64),
}

impl Event {
    /// Returns what the row of a payment is from now on.
    pub(super) fn payment(&self) -> Option<PaymentState<'_>> {
        let state = |stored, observation, polling_ended, completion| PaymentState {
            stored,
            observation,
            polling_ended,
            completion,
        };
        match self {
            Self::Started { stored, .. } => Some(state(stored, None, false, None)),
            Self::Observed {
                stored,
                observation,
                polling_ended,
                completion,
                ..
            } => Some(state(
                stored,
                Some(observation),
                *polling_ended,
                completion.as_ref(),
            )),
            Self::PollingEnded {
                stored,
                observation,
                ..
            } => Some(state(stored, observation.as_ref(), true, None)),
            Self::Again { .. } | Self::Delivery(_) => None,
        }
    }

    /// Returns what the journal says about it.
    pub(super) fn change(&self) -> Option<Change> {
        let (stored, position, report, paid_twice_with) = match self {
            Self::Started {
                stored, position, ..
            } => (stored, *position, None, None),
            Self::Observed {
                stored,
                position,
                observation,
                completion,
                ..
            } => (
                stored,
                *position,
                Some(observation.report.clone()),
                completion
                    .as_ref()
                    .and_then(|completion| completion.paid_twice_with.clone()),
            ),
            Self::Again { .. } | Self::PollingEnded { .. } | Self::Delivery(_) => return None,
        };
        Some(Change {
            position,
            stored: stored.clone(),
            report,
            paid_twice_with,
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
            Removal::Payment(number) | Removal::AllButReference(number) => {
                matches!(self.payment(), Some(payment) if payment.stored.number == *number)
            }
            Removal::Answer(key) => self.answer().is_some_and(|answer| answer.key == *key),
            Removal::Delivery(number) => self
                .delivery()
                .is_some_and(|delivery| delivery.number == *number),
        }
    }
}

/// What the row of a payment says.
pub(super) struct PaymentState<'a> {
    pub(super) stored: &'a StoredPayment,
    pub(super) observation: Option<&'a Observation>,
    pub(super) polling_ended: bool,
    pub(super) completion: Option<&'a Completion>,
}

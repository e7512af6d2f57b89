//! What happened, on its way to being true.

use std::sync::Arc;

use super::answers::Answer;
use super::journal::Change;
use super::outbox::Delivery;
use super::{Observation, StoredPayment};
use crate::clock::Reading;
use crate::payment::IdempotencyKey;

/// An event that is to be written down, and what the clocks showed when it was handed over for that.
pub(super) struct Noted {
    pub(super) event: Event,
    pub(super) reading: Reading,
}

/// What is true once it has been written down.
#[derive(Clone)]
pub(super) enum Event {
    /// A payment was started, and answered under a key.
    Started {
        stored: Arc<StoredPayment>,
        position: u64,
        answer: Option<Arc<Answer>>,
    },
    /// The gateway has given one again that was started before; that was answered under another key.
    Again { answer: Option<Arc<Answer>> },
    /// The gateway reported something new about a payment that was started here; `delivery` is the message to the app.
    Observed {
        stored: Arc<StoredPayment>,
        observation: Observation,
        polling_ended: bool,
        position: u64,
        delivery: Option<Arc<Delivery>>,
    },
    /// It is not polled in the background any more; `delivery` is the message to the app.
    PollingEnded {
        stored: Arc<StoredPayment>,
        observation: Option<Observation>,
        delivery: Option<Arc<Delivery>>,
    },
    /// A delivery is in another state.
    Delivery(Arc<Delivery>),
}

/// A row that is to be deleted.
#[derive(Clone)]
pub(super) enum Removal {
    Payment(u64),
    Answer(IdempotencyKey),
    Delivery(u64),
}

impl Event {
    /// What a payment's row is from now on.
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

    /// What stands in the journal about it.
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

    /// What was answered under a key.
    pub(super) fn answer(&self) -> Option<&Arc<Answer>> {
        match self {
            Self::Started { answer, .. } | Self::Again { answer } => answer.as_ref(),
            _ => None,
        }
    }

    /// The message to the app, new or changed.
    pub(super) fn delivery(&self) -> Option<&Arc<Delivery>> {
        match self {
            Self::Observed { delivery, .. } | Self::PollingEnded { delivery, .. } => {
                delivery.as_ref()
            }
            Self::Delivery(delivery) => Some(delivery),
            Self::Started { .. } | Self::Again { .. } => None,
        }
    }

    /// Whether it is untrue when it cannot be written.
    pub(super) fn is_refusable(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Again { .. })
    }
}

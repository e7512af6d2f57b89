//! What happened, on its way to being true.

use std::sync::Arc;

use super::answers::Answer;
use super::journal::Change;
use super::outbox::Delivery;
use super::{Seen, Tracked};
use crate::clock::Reading;
use crate::payment::IdempotencyKey;

/// A fact that is to be written down, and what the clocks showed when it was handed over for that.
pub(super) struct Noted {
    pub(super) fact: Fact,
    pub(super) reading: Reading,
}

/// What is true once it has been written down.
#[derive(Clone)]
pub(super) enum Fact {
    /// A payment was started, and answered under a key.
    Started { tracked: Arc<Tracked>, position: u64, answer: Option<Arc<Answer>> },
    /// The gateway has given one again that was started before; that was answered under another key.
    Again { answer: Option<Arc<Answer>> },
    /// The gateway told something new about a payment that was started here; the app is to be told of it.
    Told { tracked: Arc<Tracked>, seen: Seen, polling_ended: bool, position: u64, delivery: Option<Arc<Delivery>> },
    /// It is not polled in the background any more; the app is to be told of it.
    PollingEnded { tracked: Arc<Tracked>, seen: Option<Seen>, delivery: Option<Arc<Delivery>> },
    /// A delivery is in another state.
    Delivery(Arc<Delivery>),
}

/// A row that is to be deleted.
#[derive(Clone)]
pub(super) enum Gone {
    Payment(u64),
    Answer(IdempotencyKey),
    Delivery(u64),
}

impl Fact {
    /// What a payment's row is from now on.
    pub(super) fn payment(&self) -> Option<(&Tracked, Option<&Seen>, bool)> {
        match self {
            Self::Started { tracked, .. } => Some((tracked, None, false)),
            Self::Told { tracked, seen, polling_ended, .. } => Some((tracked, Some(seen), *polling_ended)),
            Self::PollingEnded { tracked, seen, .. } => Some((tracked, seen.as_ref(), true)),
            Self::Again { .. } | Self::Delivery(_) => None,
        }
    }

    /// What stands in the journal about it.
    pub(super) fn change(&self) -> Option<Change> {
        let (tracked, position, report) = match self {
            Self::Started { tracked, position, .. } => (tracked, *position, None),
            Self::Told { tracked, position, seen, .. } => (tracked, *position, Some(seen.report.clone())),
            Self::Again { .. } | Self::PollingEnded { .. } | Self::Delivery(_) => return None,
        };
        Some(Change { position, tracked: tracked.clone(), report })
    }

    /// What was answered under a key.
    pub(super) fn answer(&self) -> Option<&Arc<Answer>> {
        match self {
            Self::Started { answer, .. } | Self::Again { answer } => answer.as_ref(),
            _ => None,
        }
    }

    /// What the app is to be told, or how far that has come.
    pub(super) fn delivery(&self) -> Option<&Arc<Delivery>> {
        match self {
            Self::Told { delivery, .. } | Self::PollingEnded { delivery, .. } => delivery.as_ref(),
            Self::Delivery(delivery) => Some(delivery),
            Self::Started { .. } | Self::Again { .. } => None,
        }
    }

    /// Whether it is untrue when it cannot be written.
    pub(super) fn is_refusable(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Again { .. })
    }
}

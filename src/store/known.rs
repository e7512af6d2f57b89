//! What is known of a payment.

use std::sync::Arc;

use jiff::Timestamp;

use crate::clock::Instant;
use crate::payment::{Payment, Report};

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
    /// It is of this payment, and not of another that has its watch code by now.
    pub(super) fn is_of(&self, payment: &StoredPayment) -> bool {
        self.stored
            .as_ref()
            .is_some_and(|stored| stored.number == payment.number)
    }

    /// The gateway need not be asked any more.
    pub(super) fn is_final(&self) -> bool {
        self.observation
            .as_ref()
            .is_some_and(|observation| observation.report.status.is_final())
    }

    /// What is to be shown from now on: a final status is never taken back, and the same again keeps its place in
    /// memory.
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

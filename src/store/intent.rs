//! What is to happen. What comes of it depends on what is known when its turn comes to be written.

use std::sync::Arc;

use super::model::{Answer, Delivery, Settled};
use crate::clock::{Instant, Reading};
use crate::payment::{Payment, Report, WatchCode};

pub(super) enum Intent {
    /// A payment was started, and is to be answered under a key.
    Start {
        payment: Payment,
        answer: Option<Arc<Answer>>,
        at: Reading,
    },
    /// A start was given the payment of its reference, and is to be answered with it under a key.
    Answer(Arc<Answer>),
    /// The gateway reported this about a payment; it was asked at that moment.
    Report {
        code: WatchCode,
        report: Arc<Report>,
        asked: Instant,
        at: Reading,
        /// The id of the message to the app, if there is to be one.
        message: String,
    },
    /// A payment is not to be polled in the background any more.
    EndPolling {
        code: WatchCode,
        at: Reading,
        message: String,
    },
    /// A message to the app is to be in another state.
    Delivery(Arc<Delivery>),
    /// Who waits for this waits for all before it.
    Nothing,
}

/// What has come of an intent.
pub(super) enum Effect {
    /// It is as it was to be.
    Done,
    /// What the report of the gateway did to what was known.
    Settled(Settled),
}

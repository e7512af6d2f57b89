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
        /// The last payment of its reference when it was claimed, 0 for none. A later one is somebody else's.
        last_of_reference: Option<u64>,
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
    },
    /// A payment is not to be polled in the background any more.
    EndPolling { code: WatchCode, at: Reading },
    /// A message to the app was posted, and is in another state by that.
    Posted(Arc<Delivery>),
    /// A message to the app is to be due at another moment.
    Due(Arc<Delivery>),
    /// Who waits for this waits for all before it.
    Nothing,
}

impl Intent {
    /// Returns whether it is untrue when it cannot be written.
    pub(super) fn is_refusable(&self) -> bool {
        matches!(self, Self::Start { .. } | Self::Answer(_) | Self::Nothing)
    }

    /// Puts this wall clock in the place of the one by which it was made.
    pub(super) fn set_wall(&mut self, reading: Reading) {
        match self {
            Self::Start { at, .. } | Self::Report { at, .. } | Self::EndPolling { at, .. } => {
                at.wall = reading.precise_wall_at(at.now);
            }
            Self::Answer(_) | Self::Posted(_) | Self::Due(_) | Self::Nothing => {}
        }
    }
}

/// What has come of an intent.
#[derive(Clone)]
pub(super) enum Effect {
    /// It is as it was to be.
    Done,
    /// What the report of the gateway did to what was known.
    Settled(Settled),
}

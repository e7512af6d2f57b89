//! How a start may fail.

use std::time::Duration;

use crate::gateway::{self, Outcome};
use crate::payment::WatchCode;
use crate::store::{CodeReused, Fate, StartBody};

/// Why there is no payment to show.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Too many; nothing was sent.
    #[error("too many starts")]
    RateLimited {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The gateway, or the way to it.
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    /// The key was used for another start.
    #[error("this key was used for another start")]
    Mismatch(Option<Fate>),
    /// The payment of the reference is open, and is for another amount or other fields.
    #[error("the payment of this reference is another one")]
    ReferenceMismatch(Fate),
    /// The payment of the reference is completed.
    #[error("the payment of this reference is completed")]
    ReferencePaid(Fate),
    /// The gateway is to be asked for the payment of this watch code before this start may be repeated: it holds the
    /// reference, and is so old that it is not polled any more.
    #[error("an older payment of this reference is to be asked for first")]
    AskFirst(WatchCode),
    /// The gateway answered with the codes of another payment.
    #[error(transparent)]
    CodeReused(CodeReused),
    /// There is no room for a further payment or key.
    #[error("the store is full")]
    StoreFull,
    /// The payment cannot be kept, or could not be.
    #[error("the store has no room, or could not be written")]
    WriteFailed {
        /// The gateway may have started one.
        sent: bool,
    },
    /// Another replica has done something under the same key or reference: the start is to be claimed again.
    #[error("another replica was faster")]
    Again,
    /// A bug of ours: what the gateway did is not known.
    #[error("the start crashed")]
    Crashed,
}

/// What a start ends with.
pub(super) type Started = Result<StartBody, Error>;

impl Error {
    /// Whether the gateway may have started a payment.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::RateLimited { .. }
            | Self::Mismatch(_)
            | Self::ReferenceMismatch(_)
            | Self::ReferencePaid(_)
            | Self::AskFirst(_)
            | Self::StoreFull
            | Self::Again
            | Self::WriteFailed { sent: false } => Outcome::NotSent,
            Self::Gateway(error) => error.outcome(),
            Self::Crashed | Self::CodeReused(_) | Self::WriteFailed { sent: true } => {
                Outcome::Unknown
            }
        }
    }
}

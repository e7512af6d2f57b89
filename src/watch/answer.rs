//! What the poller answers, and how it came by it.

use std::sync::Arc;
use std::time::Duration;

use crate::gateway;
use crate::payment::Report;

/// An answer to a question.
#[derive(Clone)]
pub(crate) struct Answer {
    /// What the gateway said.
    pub(crate) report: Arc<Report>,
    /// How long ago it was asked.
    pub(crate) age: Duration,
    /// How the answer was come by.
    pub(crate) how: How,
}

/// How an answer was come by, as RFC 9211 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// From memory, and how long it stays fresh; a final answer is fresh for ever.
    Hit {
        /// `None`: for ever.
        fresh_for: Option<Duration>,
    },
    /// The gateway was asked.
    Asked {
        /// Nothing was known before.
        first: bool,
        /// Somebody else's question was joined.
        joined: bool,
        /// The gateway gave nothing: this is the last that was known.
        stale: Option<Stale>,
    },
}

/// Why an old answer has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// The gateway failed.
    Gateway,
    /// There was no permit for a call.
    RateLimited,
}

impl From<&Error> for Stale {
    fn from(error: &Error) -> Self {
        match error {
            Error::NoPermit | Error::Abandoned => Self::RateLimited,
            Error::Gateway(_) | Error::Crashed => Self::Gateway,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The gateway, or the way to it.
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    /// No permit for a call came in time.
    #[error("no permit within watch.poll_rate")]
    NoPermit,
    /// Nobody waited for the call any more before it had a permit. Who asks then asks anew.
    #[error("nobody waits for the answer")]
    Abandoned,
    /// A bug of ours.
    #[error("the call crashed")]
    Crashed,
}

impl Error {
    /// Asking again will not help.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Gateway(gateway::Error::UnknownCode(_)))
    }
}

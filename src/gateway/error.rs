//! What can go wrong between us and the gateway: a variant is a thing that the caller can do about it.

use std::time::Duration;

/// Whether the gateway may have done what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Surely not: nothing reached it.
    NotSent,
    /// It said no.
    Rejected,
    /// It may have: bytes left and no whole answer came.
    Unknown,
}

/// A call that failed. `Clone`, because everyone who joined it gets it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// There is no secret yet.
    #[error("there is no merchant secret yet")]
    SecretUnavailable,
    /// DNS, TCP or TLS failed; says how.
    #[error("no connection to the gateway: {0}")]
    Unreachable(String),
    /// Bytes left, and no whole answer came in time.
    #[error("the gateway did not answer in time")]
    Timeout,
    /// An answer that is none.
    #[error("{0}")]
    BadAnswer(BadAnswer),
    /// It asks for a pause, and may say how long.
    #[error("the gateway is busy")]
    Busy(GatewayMessage, Option<Duration>),
    /// It does not want this payment.
    #[error("the gateway refuses this payment")]
    Rejected(GatewayMessage),
    /// It does not take our secret.
    #[error("the gateway refuses the merchant secret")]
    RefusedSecret(GatewayMessage),
    /// It does not know the watch code.
    #[error("the gateway does not know this watch code")]
    UnknownCode(GatewayMessage),
}

/// What the gateway said beside its no: for people, scrubbed and short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GatewayMessage {
    /// Its HTTP status.
    pub(crate) status: Option<u16>,
    /// Its message, if it gave one.
    pub(crate) message: Option<String>,
}

/// An answer that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct BadAnswer {
    /// What is wrong with it.
    pub(crate) what: String,
    /// What it said.
    pub(crate) gateway_message: GatewayMessage,
    /// The connection broke off: a call that may be made twice may be worth a second try.
    pub(crate) broken_off: bool,
    /// How much patience it asks for, if it does.
    pub(crate) retry_after: Option<Duration>,
}

impl Error {
    /// An answer that cannot be used, and what it said.
    pub(super) fn bad_answer(what: impl Into<String>, gateway_message: GatewayMessage) -> Self {
        Self::BadAnswer(BadAnswer {
            what: what.into(),
            gateway_message,
            broken_off: false,
            retry_after: None,
        })
    }

    /// Its own words changed: those that quote what the other side wrote, be it a certificate.
    pub(super) fn map_words(self, change: impl Fn(String) -> String) -> Self {
        match self {
            Self::Unreachable(why) => Self::Unreachable(change(why)),
            Self::BadAnswer(bad) => Self::BadAnswer(BadAnswer {
                what: change(bad.what),
                ..bad
            }),
            other => other,
        }
    }

    /// Whether the gateway may have done it.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::SecretUnavailable | Self::Unreachable(_) => Outcome::NotSent,
            Self::Timeout | Self::BadAnswer(_) => Outcome::Unknown,
            Self::Busy(..) | Self::Rejected(_) | Self::RefusedSecret(_) | Self::UnknownCode(_) => {
                Outcome::Rejected
            }
        }
    }

    /// What the gateway said, if it said anything.
    pub(crate) fn gateway_message(&self) -> Option<&GatewayMessage> {
        match self {
            Self::SecretUnavailable | Self::Unreachable(_) | Self::Timeout => None,
            Self::BadAnswer(bad) => Some(&bad.gateway_message),
            Self::Busy(gateway_message, _)
            | Self::Rejected(gateway_message)
            | Self::RefusedSecret(gateway_message)
            | Self::UnknownCode(gateway_message) => Some(gateway_message),
        }
    }

    /// A call that may be made twice is worth a second try.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::BadAnswer(bad) => bad.broken_off,
            _ => false,
        }
    }

    /// Asking about another payment would end the same way: it is not about this one.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout | Self::Busy(..) | Self::RefusedSecret(_) => true,
            // A firewall says 403 to every question.
            Self::BadAnswer(bad) => {
                bad.broken_off
                    || bad
                        .gateway_message
                        .status
                        .is_some_and(|status| status == 403 || status >= 500)
            }
            Self::SecretUnavailable | Self::Rejected(_) | Self::UnknownCode(_) => false,
        }
    }

    /// How much patience the gateway asks for, at most five minutes.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        /// A gateway that asks for more wants something else.
        const LONGEST: Duration = Duration::from_secs(300);
        match self {
            Self::Busy(_, wait) => wait.map(|wait| wait.min(LONGEST)),
            Self::BadAnswer(bad) => bad.retry_after.map(|wait| wait.min(LONGEST)),
            _ => None,
        }
    }

    /// The same answer about a code that is known to exist.
    pub(crate) fn of_known_code(self) -> Self {
        match self {
            Self::UnknownCode(gateway_message) => Self::bad_answer(
                "the gateway does not know a payment that it knew before",
                gateway_message,
            ),
            other => other,
        }
    }

    /// From a closed set, for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::SecretUnavailable => "secret_unavailable",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::BadAnswer(_) => "bad_answer",
            Self::Busy(..) => "busy",
            Self::Rejected(_) => "rejected",
            Self::RefusedSecret(_) => "refused_secret",
            Self::UnknownCode(_) => "unknown_code",
        }
    }
}

impl Outcome {
    /// The word for it, in answers, logs and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}

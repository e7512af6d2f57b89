//! The errors of a call to the gateway. A variant stands for what a caller can do about it.

use std::time::Duration;

/// Whether the gateway may have done what the request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has not: nothing reached it.
    NotSent,
    /// It has not: it refused.
    Rejected,
    /// It may have: bytes left, and no usable answer came.
    Unknown,
}

/// Why a call failed. It is `Clone` because every caller that joined the call gets it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The file of the secret is missing.
    #[error("there is no merchant secret yet")]
    SecretUnavailable,
    /// DNS, TCP or TLS failed. Says how.
    #[error("no connection to the gateway: {0}")]
    Unreachable(String),
    /// Bytes left, and no whole answer came in time.
    #[error("the gateway did not answer in time")]
    Timeout,
    /// The answer cannot be used.
    #[error("{0}")]
    BadAnswer(BadAnswer),
    /// The gateway asks for a pause, and may say how long.
    #[error("the gateway is busy")]
    Busy(GatewayMessage, Option<Duration>),
    /// The gateway refuses this payment.
    #[error("the gateway refuses this payment")]
    Rejected(GatewayMessage),
    /// The gateway refuses the secret.
    #[error("the gateway refuses the merchant secret")]
    RefusedSecret(GatewayMessage),
    /// The gateway does not know the watch code.
    #[error("the gateway does not know this watch code")]
    UnknownCode(GatewayMessage),
}

/// What the gateway said about a failure: for people, short, and without the secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GatewayMessage {
    /// The HTTP status.
    pub(crate) status: Option<u16>,
    /// The message, if there is one.
    pub(crate) message: Option<String>,
}

/// An answer that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct BadAnswer {
    /// What is wrong with it.
    pub(crate) what: String,
    /// What the gateway said.
    pub(crate) gateway_message: GatewayMessage,
    /// Whether the connection broke, so that a call that may be repeated is worth another try.
    pub(crate) broken_off: bool,
    /// The pause that it asks for, if it asks for one.
    pub(crate) retry_after: Option<Duration>,
}

impl Error {
    /// An answer that cannot be used, and what the gateway said in it.
    pub(super) fn bad_answer(what: impl Into<String>, gateway_message: GatewayMessage) -> Self {
        Self::BadAnswer(BadAnswer {
            what: what.into(),
            gateway_message,
            broken_off: false,
            retry_after: None,
        })
    }

    /// Changes those texts that may quote the other side, such as the names in a certificate.
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

    /// Returns whether the gateway may have done what the request asks for.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::SecretUnavailable | Self::Unreachable(_) => Outcome::NotSent,
            Self::Timeout | Self::BadAnswer(_) => Outcome::Unknown,
            Self::Busy(..) | Self::Rejected(_) | Self::RefusedSecret(_) | Self::UnknownCode(_) => {
                Outcome::Rejected
            }
        }
    }

    /// Returns what the gateway said, if there was an answer.
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

    /// Returns the status of the gateway's answer, if there was one.
    pub(crate) fn gateway_status(&self) -> Option<u16> {
        self.gateway_message()?.status
    }

    /// Returns whether a call that may be repeated is worth another try.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::BadAnswer(bad) => bad.broken_off,
            _ => false,
        }
    }

    /// Returns whether a call about another payment would fail in the same way.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout | Self::Busy(..) | Self::RefusedSecret(_) => true,
            // A firewall answers 403 to every request.
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

    /// Returns the pause that the gateway asks for, at most five minutes.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        /// A longer pause is probably a mistake.
        const LONGEST: Duration = Duration::from_secs(300);
        match self {
            Self::Busy(_, wait) => wait.map(|wait| wait.min(LONGEST)),
            Self::BadAnswer(bad) => bad.retry_after.map(|wait| wait.min(LONGEST)),
            _ => None,
        }
    }

    /// Returns the error for a payment that is known to exist: an unknown code is then a bad answer.
    pub(crate) fn of_known_code(self) -> Self {
        match self {
            Self::UnknownCode(gateway_message) => Self::bad_answer(
                "the gateway does not know a payment that it knew before",
                gateway_message,
            ),
            other => other,
        }
    }

    /// Returns a label from a closed set, for metrics.
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
    /// Returns the label for answers, logs and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}

//! Errors of a start in HTTP.

use std::time::Duration;

use super::fate::is_completed;
use super::problem::{CODE_REUSED, ErrorCode, Problem};
use crate::start::{self, BadRequest};

impl From<BadRequest> for Problem {
    fn from(bad: BadRequest) -> Self {
        let code = match bad {
            BadRequest::InvalidJson(_) | BadRequest::RepeatedKey(_) => ErrorCode::InvalidJson,
            BadRequest::SecretNotAccepted => ErrorCode::SecretNotAccepted,
            BadRequest::UnknownField { .. } => ErrorCode::UnknownField,
            BadRequest::InvalidAmount { .. } => ErrorCode::InvalidAmount,
            BadRequest::RedirectNotAllowed { .. } => ErrorCode::RedirectNotAllowed,
            BadRequest::InvalidReference(_) => ErrorCode::InvalidReference,
            BadRequest::IdempotencyRequired => ErrorCode::IdempotencyRequired,
        };
        Self::new(code, bad.to_string())
    }
}

impl From<start::Error> for Problem {
    fn from(error: start::Error) -> Self {
        let outcome = Some(error.outcome());
        let problem = match error {
            start::Error::RateLimited { retry_after } => {
                let detail = "There are more starts than start.rate and start.burst allow: try again after Retry-After.";
                Self {
                    retry_after: Some(retry_after),
                    ..Self::new(ErrorCode::RateLimited, detail)
                }
            }
            start::Error::Mismatch(fate) => Self::new(
                ErrorCode::IdempotencyMismatch,
                format!(
                    "This Idempotency-Key was used for a start with another amount, reference or field{}: take a new key for a new start.",
                    fate.as_ref().map_or("", |fate| if is_completed(fate) {
                        ", and its payment is completed"
                    } else {
                        ", and its payment is open"
                    })
                ),
            ),
            start::Error::ReferenceMismatch(fate) => Self {
                fate: Some(Box::new(fate)),
                ..Self::new(
                    ErrorCode::ReferenceMismatch,
                    "This reference has an open payment for another amount or with other fields, and its page can still be paid: send the payer there, or give another amount, a deposit or an instalment a reference of its own, like 7-2.",
                )
            },
            start::Error::ReferencePaid(fate) => Self {
                fate: Some(Box::new(fate)),
                ..Self::new(
                    ErrorCode::ReferencePaid,
                    "The payment of this reference is completed: mark the order as paid. A further payment for it needs a reference of its own, like 7-2.",
                )
            },
            // The API asks, and the story claims again, and the start is repeated.
            start::Error::AskFirst(_) | start::Error::Again => {
                Self::new(ErrorCode::Internal, "This is a bug in tillgate.")
            }
            start::Error::CodeReused(_) => Self::new(ErrorCode::GatewayBadAnswer, CODE_REUSED),
            start::Error::StoreFull => Self {
                retry_after: Some(Duration::from_secs(60)),
                ..Self::new(
                    ErrorCode::Overloaded,
                    "The store is full (store.max_bytes) of open payments, live keys, references, and messages that the app has not taken (webhook.url), and none of these may go.",
                )
            },
            start::Error::WriteFailed { .. } => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(
                    ErrorCode::StoreUnavailable,
                    "The payment could not be kept (store.url): make room there, or see to it that its database can be reached. It is tried again every second.",
                )
            },
            start::Error::Gateway(error) => error.into(),
            start::Error::Crashed => Self::new(ErrorCode::Internal, "This is a bug in tillgate."),
        };
        Self { outcome, ..problem }
    }
}

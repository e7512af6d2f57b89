//! What the gateway says, for the programs in `tests/fuzz`: not a part of tillgate.

use std::sync::Arc;

use bytes::Bytes;
use secrecy::SecretString;

use super::Sharing;
use super::error::Error;
use super::scrub::Scrubber;
use super::wire::{self, Answer, Scrubbed};

/// A start that the gateway took: code, watch code, and the object as a caller gets it.
///
/// # Errors
/// What a caller gets instead.
pub fn started(status: u16, body: &[u8], secret: &str) -> Result<(String, String, String), String> {
    let started = scrubbed(status, body, secret, wire::started)?;
    let answer = crate::json::Json::Object(started.answer).to_string();
    Ok((
        started.code.to_string(),
        started.watch_code.to_string(),
        answer,
    ))
}

/// The status of a payment, the object as a caller gets it, and its fingerprint.
///
/// # Errors
/// What a caller gets instead.
pub fn watched(
    status: u16,
    body: &[u8],
    secret: &str,
) -> Result<(String, String, [u8; 16]), String> {
    let code = "watch_1".parse().map_err(|_| "a code")?;
    let report = scrubbed(status, body, secret, |answer| wire::report(&code, answer))?;
    Ok((
        report.status.to_string(),
        report.body.to_string(),
        report.fingerprint.0,
    ))
}

fn scrubbed<T>(
    status: u16,
    body: &[u8],
    secret: &str,
    meaning: impl FnOnce(Scrubbed) -> Result<T, Error>,
) -> Result<T, String> {
    let scrubber = Scrubber::new(vec![Arc::new(SecretString::from(secret))]);
    let body = Bytes::copy_from_slice(body);
    let answer = Answer {
        status,
        retry_after: None,
        content_type: None,
        body,
        connection: Sharing::Own,
    };
    meaning(answer.scrubbed(&scrubber)).map_err(|error| format!("{error:?}"))
}

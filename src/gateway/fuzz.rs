//! Access to the reading of answers, for the programs in `tests/fuzz`. Not part of tillgate.

use std::sync::Arc;

use bytes::Bytes;
use secrecy::SecretString;

use super::error::Error;
use super::scrub::Scrubber;
use super::wire::{self, Answer, Scrubbed};
use crate::client::Sharing;

/// Reads the answer to a start. Returns the code, the watch code, and the object for the caller.
///
/// # Errors
/// Returns the error for the caller.
pub fn started(status: u16, body: &[u8], secret: &str) -> Result<(String, String, String), String> {
    let started = scrubbed(status, body, secret, wire::started)?;
    let answer = crate::json::Json::Object(started.answer).to_string();
    Ok((
        started.code.to_string(),
        started.watch_code.to_string(),
        answer,
    ))
}

/// Reads the answer about a status. Returns the status, the object for the caller, and its fingerprint.
///
/// # Errors
/// Returns the error for the caller.
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
    let scrubber = Scrubber::new(&[Arc::new(SecretString::from(secret))]);
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

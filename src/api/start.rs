//! `POST /api/start_payment`

use hyper::Response;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::problem::{Problem, Word};
use crate::json::Json;
use crate::serve::{self, Body};
use crate::start::Starter;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What can be told from the headers: before a byte of the body is read.
pub(super) fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_json = |value: &HeaderValue| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    let one_json = types.next().is_some_and(is_json) && types.next().is_none();
    if !one_json || headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::new(
            Word::UnsupportedMediaType,
            "Send JSON with this header line, once, and without Content-Encoding: Content-Type: application/json",
        ));
    }
    if headers.contains_key(IDEMPOTENCY_KEY) {
        // To take no notice of it would break the promise that the caller relies on.
        return Err(Problem::new(
            Word::InvalidIdempotencyKey,
            "This version does not keep idempotency keys: leave the Idempotency-Key header out.",
        ));
    }
    Ok(())
}

/// Starts what the body asks for.
pub(super) async fn start(starter: &Starter, body: &[u8]) -> Result<Response<Body>, Problem> {
    let request = starter.parse(body)?;
    let answer = starter.start(request).await?;
    let mut response = Response::new(serve::full(Json::Object(answer).to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

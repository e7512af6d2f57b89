//! `POST /api/start_payment`

use hyper::Response;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::problem::{ErrorCode, Problem};
use crate::payment::{IdempotencyKey, WatchCode};
use crate::server::{self, Body};
use crate::start::{self, Reply, Starter};
use crate::telemetry::RequestId;
use crate::watch::{self, StatusPoller};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What the headers alone show, checked before a byte of the body is read; gives the name of this start.
pub(super) fn check(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    check_content(headers)?;
    key(headers)
}

fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_json = |value: &HeaderValue| {
        let essence = value
            .as_bytes()
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default();
        essence
            .trim_ascii()
            .eq_ignore_ascii_case(b"application/json")
    };
    let one_json = types.next().is_some_and(is_json) && types.next().is_none();
    if !one_json || headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::new(
            ErrorCode::UnsupportedMediaType,
            "Send JSON with this header line, once, and without Content-Encoding: Content-Type: application/json",
        ));
    }
    Ok(())
}

/// The name that the caller gives to this start.
fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(first) = keys.next() else {
        return Ok(None);
    };
    let key = first
        .to_str()
        .ok()
        .filter(|_| keys.next().is_none())
        .and_then(|key| key.parse().ok())
        .filter(|key: &IdempotencyKey| !key.is_placeholder());
    key.map(Some).ok_or_else(|| {
        let problem = Problem::new(
            ErrorCode::InvalidIdempotencyKey,
            "An Idempotency-Key is 1 to 255 printable ASCII characters, bare or in quotes, in one header line, and not what a program sends that has none, like undefined or order-null.",
        );
        problem.found(&String::from_utf8_lossy(first.as_bytes()))
    })
}

/// Starts what the body asks for.
pub(super) async fn start(
    starter: &Starter,
    poller: &StatusPoller,
    body: Vec<u8>,
    key: Option<IdempotencyKey>,
) -> Result<Response<Body>, Problem> {
    let request = starter.parse(&body, key.is_some())?;
    // It may wait long, and what is left of the body is small.
    drop(body);
    let mut asked = None;
    let reply = loop {
        match starter.start(&request, key.as_ref(), asked.as_ref()).await {
            Err(start::Error::AskFirst(code)) => {
                ask_first(poller, &code).await?;
                asked = Some(code);
            }
            result => break result?,
        }
    };
    let Reply { body, is_replayed } = reply;
    let mut response = Response::new(server::full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if is_replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Asks the gateway for a payment that is too old to be polled, before another one of its reference is started. What it
/// says is in the store afterwards. A payment that the gateway does not know any more is in nobody's way.
async fn ask_first(poller: &StatusPoller, code: &WatchCode) -> Result<(), Problem> {
    match poller.ask_now(code).await {
        Ok(()) => Ok(()),
        Err(watch::Error::Gateway(error)) if error.gateway_status() == Some(404) => {
            tracing::warn!(
                watch_code = code.shortened(),
                request_id = RequestId::current().as_deref(),
                "the gateway does not know the older payment of a reference any more: a new one is started"
            );
            Ok(())
        }
        Err(error) => Err(Problem::not_sent(error.into())),
    }
}

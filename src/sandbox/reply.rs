//! What the gateway's API answers, and the ways in which a fault spoils it.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use std::time::Duration;

use super::Reset;
use super::fault::Kind;
use super::ledger::{Payment, told};
use crate::clock;
use crate::server::{Body, BoxError, full};

const HUGE_BYTES: usize = 1024 * 1024;

/// `{"message":"ok"}` as gzip has it.
const GZIPPED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\xca\x4d\x2d\x2e\x4e\x4c\x4f\x55\xb2\x52\xca\xcf\x56\xaa\x05\x00\xe4\x78\x85\x23\x10\x00\x00\x00";

/// A status and a JSON object. Its fields keep their order and are JSON text, so that a long amount goes out digit for
/// digit and a fault can change one of them.
pub(super) struct Reply {
    status: StatusCode,
    fields: Vec<(&'static str, String)>,
}

impl Reply {
    pub(super) fn ok() -> Self {
        Reply {
            status: StatusCode::OK,
            fields: Vec::new(),
        }
    }

    pub(super) fn message(status: StatusCode, message: &str) -> Self {
        Reply {
            status,
            fields: Vec::new(),
        }
        .text("message", message)
    }

    pub(super) fn started(payment: &Payment) -> Self {
        Reply::ok()
            .text("code", &payment.code)
            .text("message", "Payment started")
            .text("watch_code", &payment.watch_code)
    }

    pub(super) fn watched(payment: &Payment, merchant: &str) -> Self {
        Reply::ok()
            .text("status", payment.status())
            .json("amount", payment.amount.as_str())
            .text("merchant", merchant)
            .text("created_at", &told(payment.created_at))
            .json(
                "completed_at",
                payment
                    .completed_at()
                    .map_or("null".to_owned(), |time| quoted(&told(time))),
            )
    }

    pub(super) fn text(self, name: &'static str, value: &str) -> Self {
        self.json(name, quoted(value))
    }

    pub(super) fn json(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        response(self.status, "application/json", self.body())
    }

    fn body(&self) -> String {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    }

    /// A field that is not there stays away: a refusal has none of them.
    fn set(mut self, name: &str, change: impl Fn(&str) -> String) -> Self {
        for (_, value) in self.fields.iter_mut().filter(|(known, _)| *known == name) {
            *value = change(value);
        }
        self
    }

    fn without(mut self, names: &[&str]) -> Self {
        self.fields.retain(|(name, _)| !names.contains(name));
        self
    }
}

impl Reply {
    /// The answer as this kind of fault leaves it. `echo` is the field that reveals too much, where one does.
    pub(super) async fn spoilt(
        self,
        kind: Kind,
        echo: (&'static str, String),
    ) -> Result<Response<Body>, Reset> {
        let reply = match kind {
            Kind::Reset => return Err(Reset),
            // Longer than any caller waits, but not for ever: who hung up is not noticed before something is written.
            Kind::Hang => {
                clock::sleep(Duration::from_secs(600)).await;
                return Err(Reset);
            }
            Kind::Status { code, retry_after } => return Ok(failed(code, retry_after)),
            Kind::Truncate => return Ok(truncated(self.status, &self.body())),
            Kind::Redirect => {
                let moved = Reply::message(StatusCode::TEMPORARY_REDIRECT, "Moved").into_response();
                return Ok(with(
                    moved,
                    header::LOCATION,
                    HeaderValue::from_static("http://127.0.0.1:9/"),
                ));
            }
            Kind::NotJson => {
                return Ok(response(
                    StatusCode::OK,
                    "text/html",
                    "<!doctype html><h1>Be right back</h1>",
                ));
            }
            Kind::Encoded => {
                let encoded = response(self.status, "application/json", GZIPPED);
                return Ok(with(
                    encoded,
                    header::CONTENT_ENCODING,
                    HeaderValue::from_static("gzip"),
                ));
            }
            Kind::EchoSecret => self.text(echo.0, &echo.1),
            Kind::Huge => {
                let bare = self.body().len() + r#","padding":"""#.len();
                self.text("padding", &"x".repeat(HUGE_BYTES.saturating_sub(bare)))
            }
            Kind::MissingField => self.without(&["watch_code", "status"]),
            Kind::BadCode => self
                .set("code", |_| quoted("pay/ment 1"))
                .set("watch_code", |_| quoted("wat/ch 1")),
            Kind::Reopen => self
                .set("status", |_| quoted("created"))
                .set("completed_at", |_| "null".to_owned()),
            Kind::UnknownStatus => self.set("status", |_| quoted("on_hold")),
            Kind::WrongAmount => self.set("amount", one_more),
        };
        Ok(reply.into_response())
    }
}

fn failed(code: u16, retry_after: Option<u64>) -> Response<Body> {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let failed = Reply::message(status, "The sandbox was told to fail").into_response();
    match retry_after {
        Some(seconds) => with(failed, header::RETRY_AFTER, HeaderValue::from(seconds)),
        None => failed,
    }
}

/// Promises the whole body, sends half, fails. The pause lets the half leave first: hyper throws away what it has not
/// written when a body fails. `map_frame` forgets the length of the half, which would contradict the promise.
fn truncated(status: StatusCode, body: &str) -> Response<Body> {
    let fails = async {
        clock::sleep(Duration::from_millis(10)).await;
        Some(Err::<HeaderMap, BoxError>("cut off by a fault".into()))
    };
    let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
    let half = Full::new(half)
        .map_err(|never| match never {})
        .with_trailers(fails)
        .map_frame(|frame| frame);
    let cut = response(status, "application/json", "").map(|_| half.boxed_unsync());
    with(cut, header::CONTENT_LENGTH, HeaderValue::from(body.len()))
}

/// The number plus one. Where that is not easily said (forty digits), another number.
fn one_more(number: &str) -> String {
    let end = number
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(number.len());
    let (whole, rest) = number.split_at(end);
    let more = whole
        .parse::<u128>()
        .ok()
        .and_then(|whole| whole.checked_add(1))
        .unwrap_or(1);
    format!("{more}{rest}")
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(super) fn with(
    mut response: Response<Body>,
    name: HeaderName,
    value: HeaderValue,
) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

//! The ways in which a fault changes an answer.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};

use super::fault::Kind;
use super::reply::{Reply, quoted, response, with};
use crate::clock;
use crate::server::{Body, BoxError};

/// The length of a huge body.
const HUGE_BYTES: usize = 1024 * 1024;

/// `{"message":"ok"}`, compressed by gzip.
const GZIPPED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\xca\x4d\x2d\x2e\x4e\x4c\x4f\x55\xb2\x52\xca\xcf\x56\xaa\x05\x00\xe4\x78\x85\x23\x10\x00\x00\x00";

/// The connection is to be cut without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sandbox cuts this connection by a fault")]
pub struct Reset;

impl Reply {
    /// Returns the answer as this kind of fault leaves it. `echo` is the field in which `echo-secret` has the secret.
    ///
    /// # Errors
    /// The connection is to be cut without an answer.
    pub(super) async fn spoilt(
        self,
        kind: Kind,
        echo: (&'static str, String),
    ) -> Result<Response<Body>, Reset> {
        match kind {
            Kind::Reset => Err(Reset),
            // Longer than any caller waits, but not for ever: a caller that hangs up is noticed only when something is written.
            Kind::Hang => {
                clock::sleep(Duration::from_secs(600)).await;
                Err(Reset)
            }
            Kind::Status { code, retry_after } => Ok(failed(code, retry_after)),
            Kind::Truncate => Ok(truncated(self.status, &self.body())),
            Kind::Redirect => Ok(redirect()),
            Kind::NotJson => Ok(response(
                StatusCode::OK,
                "text/html",
                "<!doctype html><h1>Be right back</h1>",
            )),
            Kind::Encoded => Ok(with(
                response(self.status, "application/json", GZIPPED),
                header::CONTENT_ENCODING,
                HeaderValue::from_static("gzip"),
            )),
            Kind::EchoSecret
            | Kind::Huge
            | Kind::MissingField
            | Kind::BadCode
            | Kind::Reopen
            | Kind::UnknownStatus
            | Kind::WrongAmount => Ok(self.altered(kind, echo).into_response()),
        }
    }

    /// Returns the answer with other fields; the other kinds change none.
    fn altered(self, kind: Kind, echo: (&'static str, String)) -> Self {
        match kind {
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
            _ => self,
        }
    }
}

fn redirect() -> Response<Body> {
    with(
        Reply::message(StatusCode::TEMPORARY_REDIRECT, "Moved").into_response(),
        header::LOCATION,
        HeaderValue::from_static("http://127.0.0.1:9/"),
    )
}

fn failed(code: u16, retry_after: Option<u64>) -> Response<Body> {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let failed = Reply::message(status, "The sandbox was told to fail").into_response();
    match retry_after {
        Some(seconds) => with(failed, header::RETRY_AFTER, HeaderValue::from(seconds)),
        None => failed,
    }
}

/// Announces the whole body, sends half of it, and fails. The pause lets the half leave: hyper discards what it has not
/// written when a body fails. `map_frame` drops the length of the half, which would contradict the announcement.
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

/// Returns the number plus one, or another number if that does not fit into 128 bits.
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

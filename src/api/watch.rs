//! `GET /watch/{watch_code}`

use std::fmt::Write;

use hyper::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use crate::payment::WatchCode;
use crate::serve::{self, Body};
use crate::watch::{Answer, Board, How, Stale};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What the gateway says of this payment.
pub(super) async fn watch(board: &Board, code: &WatchCode, headers: &HeaderMap) -> Result<Response<Body>, Problem> {
    let force = has_directive(headers, "no-cache");
    let answer = board.ask(code, force).await?;
    let tag = entity_tag(&answer.report.body);
    let mut response = if matches(headers, &tag) {
        let mut response = Response::new(serve::full(""));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(serve::full(answer.report.body.to_string()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    let headers = response.headers_mut();
    headers.insert(AGE, HeaderValue::from(answer.age.as_secs()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    #[expect(clippy::expect_used, reason = "both are made of constants, digits and hexadecimal digits")]
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("a header value"));
    #[expect(clippy::expect_used, reason = "both are made of constants, digits and hexadecimal digits")]
    headers.insert(CACHE_STATUS, HeaderValue::from_str(&cache_status(&answer)).expect("a header value"));
    Ok(response)
}

/// Strong, and the same for the same meaning in whatever run of whatever process: the body is canonical.
fn entity_tag(body: &str) -> String {
    let mut tag = String::with_capacity(34);
    tag.push('"');
    for byte in &Sha256::digest(body)[..16] {
        // Writing to a string cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

/// `If-None-Match` (RFC 9110, section 13.1.2): a list or `*`, compared weakly.
fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|candidate| candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag)
}

fn has_directive(headers: &HeaderMap, directive: &str) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(directive))
}

/// RFC 9211.
fn cache_status(answer: &Answer) -> String {
    /// A final answer never goes stale; the header wants a number, and this is as long as caches keep anything.
    const A_YEAR: u64 = 31_536_000;
    match answer.how {
        How::Hit { fresh_for } => {
            format!("tillgate; hit; ttl={}", fresh_for.map_or(A_YEAR, |fresh_for| fresh_for.as_secs()))
        }
        How::Asked { first, joined, stale } => {
            let mut status = String::from(if first { "tillgate; fwd=uri-miss" } else { "tillgate; fwd=stale" });
            if joined {
                status.push_str("; collapsed");
            }
            status.push_str(match stale {
                None => "",
                Some(Stale::Gateway) => "; detail=stale-if-error",
                Some(Stale::Budget) => "; detail=budget",
            });
            status
        }
    }
}

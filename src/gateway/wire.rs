//! Requests as the gateway's guide has them, and what its answers mean.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request};

use super::error::Said;
use super::scrub::Scrubber;
use super::{BadAnswer, BaseUrl, Error, Started};
use crate::client::{Cut, Sharing, Terms, Transport, TransportError};
use crate::clock;
use crate::json::{self, Json, Object};
use crate::payment::{Report, Status, WatchCode};

/// As much of what the gateway says as a person is shown.
const MAX_MESSAGE: usize = 200;

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
    pub(super) connection: Sharing,
}

/// A whole answer that the secret was taken out of: the only kind that is read.
pub(super) struct Scrubbed {
    said: Said,
    retry_after: Option<Duration>,
    object: Result<Object, &'static str>,
}

/// A POST with exactly these headers: nothing that our caller sent in one is ever passed on.
pub(super) fn post(base: &BaseUrl, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = get(base, path);
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *request.body_mut() = Full::new(body);
    request
}

/// A GET, likewise.
pub(super) fn get(base: &BaseUrl, path: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    #[expect(clippy::expect_used, reason = "a parsed URL, a constant, and a code without anything to escape")]
    let uri = format!("{base}{path}").parse().expect("a URI");
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tillgate/", env!("CARGO_PKG_VERSION"))));
    request
}

/// Sends the request and reads the answer whole, within the terms.
pub(super) async fn exchange(
    transport: &dyn Transport,
    request: Request<Full<Bytes>>,
    terms: Terms,
) -> Result<Answer, Error> {
    let answer = transport.exchange(request, terms).await.map_err(|error| match error {
        TransportError::NotSent(why) => Error::Unreachable(why),
        TransportError::Broken(why) => broken_off(None, &why),
        TransportError::TimedOut => Error::Timeout,
    })?;
    let status = answer.status;
    let said = || Said { status: Some(status), message: None };
    if answer.headers.get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
        return Err(Error::bad_answer("the gateway sent an encoded answer that nobody asked for", said()));
    }
    match answer.cut {
        None => {}
        Some(Cut::TimedOut) => return Err(Error::Timeout),
        Some(Cut::Broken(why)) => return Err(broken_off(Some(status), &why)),
        Some(Cut::TooLarge) => {
            let max_bytes = terms.max_bytes;
            let what = format!("the gateway's answer is over {max_bytes} bytes (gateway.max_response_bytes)");
            return Err(Error::bad_answer(what, said()));
        }
    }
    let retry_after = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(clock::parse_retry_after);
    Ok(Answer { status, retry_after, body: answer.body, connection: answer.connection })
}

fn broken_off(status: Option<u16>, why: &str) -> Error {
    let what = format!("the connection to the gateway broke off before the answer was whole: {why}");
    Error::BadAnswer(BadAnswer { what, said: Said { status, message: None }, broken_off: true })
}

impl Answer {
    /// Takes the secret out.
    pub(super) fn scrubbed(self, scrubber: &Scrubber) -> Scrubbed {
        let object = json::parse_object(&self.body).map(|object| {
            let mut value = Json::Object(object);
            scrubber.scrub(&mut value);
            match value {
                Json::Object(object) => object,
                _ => Object::new(),
            }
        });
        let message = match &object {
            Ok(object) => ["message", "error", "detail"].iter().find_map(|name| json::get(object, name)?.as_text()),
            Err(_) => None,
        };
        let message = message.map(|message| {
            // What is left out could have stood in the middle of the secret: looked through again. A limit could cut it
            // in two, and half of it would not be found: shortened last.
            let message: String = message.chars().filter(|c| !c.is_control()).collect();
            scrubber.text(message).chars().take(MAX_MESSAGE).collect()
        });
        Scrubbed { said: Said { status: Some(self.status), message }, retry_after: self.retry_after, object }
    }
}

/// What the answer to a start means.
pub(super) fn started(answer: Scrubbed) -> Result<Started, Error> {
    let said = answer.said;
    let object = match said.status {
        Some(200 | 201) => answer.object.map_err(|why| no_object(why, &said))?,
        Some(400 | 422) => return Err(Error::Rejected(said)),
        Some(401 | 403) => return Err(Error::RefusedSecret(said)),
        Some(429) => return Err(Error::Busy(said, answer.retry_after)),
        _ => return Err(unexpected(said)),
    };
    let text = |name| json::get(&object, name).and_then(Json::as_text);
    let (code, watch_code) = (text("code").map(str::parse), text("watch_code").map(str::parse));
    let (Some(Ok(code)), Some(Ok(watch_code))) = (code, watch_code) else {
        return Err(Error::bad_answer("code or watch_code is missing in the gateway's answer, or malformed", said));
    };
    Ok(Started { code, watch_code, answer: object })
}

/// What the answer to a watch of that code means.
pub(super) fn report(code: &WatchCode, answer: Scrubbed) -> Result<Report, Error> {
    let said = answer.said;
    let object = match said.status {
        Some(200) => answer.object.map_err(|why| no_object(why, &said))?,
        Some(404) => return Err(Error::UnknownCode(said)),
        Some(401 | 403) => return Err(Error::RefusedSecret(said)),
        Some(429) => return Err(Error::Busy(said, answer.retry_after)),
        _ => return Err(unexpected(said)),
    };
    let field = |name| json::get(&object, name);
    // The guide's answer names none; one that does must not be another payment's, told on a connection that has got out
    // of step.
    if field("watch_code").is_some_and(|other| other.as_text() != Some(&code.to_string())) {
        return Err(Error::bad_answer("the gateway's answer is about another payment", said));
    }
    let (Some(status), Some(Json::Literal(amount))) = (field("status").and_then(Json::as_text), field("amount")) else {
        return Err(Error::bad_answer("status or amount is missing in the gateway's answer, or malformed", said));
    };
    // What an app acts on must be there; the rest may be missing, but not be something else than the guide says.
    let is_text_or_absent = |name| field(name).is_none_or(|value| value.as_text().is_some());
    let completed_at_ok = is_text_or_absent("completed_at") || field("completed_at").is_some_and(Json::is_null);
    let number = amount.starts_with(|c: char| c.is_ascii_digit());
    if status.is_empty()
        || !number
        || !completed_at_ok
        || !["merchant", "created_at"].into_iter().all(is_text_or_absent)
    {
        return Err(Error::bad_answer("a field of the gateway's answer is malformed", said));
    }
    let status = Status::from(status);
    let body = Json::Object(object).canonical().to_string();
    let fingerprint = json::fingerprint(&body);
    Ok(Report { status, body: body.into(), fingerprint })
}

fn no_object(why: &str, said: &Said) -> Error {
    Error::bad_answer(format!("the gateway's answer is not a JSON object: {why}"), said.clone())
}

fn unexpected(said: Said) -> Error {
    let what = match said.status {
        Some(300..400) => "the gateway answered with a redirect, which is never followed: is gateway.url right?",
        Some(400..500) => "the gateway does not know this request: is gateway.url right?",
        Some(500..) => "the gateway failed",
        _ => "the gateway gave an answer that its guide does not know",
    };
    Error::bad_answer(what, said)
}

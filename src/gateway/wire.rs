//! The requests of the gateway's guide, and the meaning of the answers.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request};

use super::error::{BadAnswer, Error, GatewayMessage};
use super::order::Started;
use super::read::{self, Fields, Reading};
use super::scrub::Scrubber;
use super::url::BaseUrl;
use crate::client::{self, Cut, Sharing, Terms, Transport, TransportError};
use crate::clock;
use crate::json::{self, Json};
use crate::payment::{Decimal, Report, Status, WatchCode};

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) content_type: Option<String>,
    pub(super) body: Bytes,
    pub(super) connection: Sharing,
}

/// A whole answer without the secret. Only such an answer is interpreted.
pub(super) struct Scrubbed {
    gateway_message: GatewayMessage,
    retry_after: Option<Duration>,
    fields: Result<Fields, &'static str>,
}

/// Makes a POST request. It has these header fields alone: none of the caller's request is passed on.
pub(super) fn post(base: &BaseUrl, path: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = get(base, path);
    *request.method_mut() = Method::POST;
    request
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *request.body_mut() = Full::new(body);
    request
}

/// Makes a GET request. It has these header fields alone.
pub(super) fn get(base: &BaseUrl, path: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    #[expect(
        clippy::expect_used,
        reason = "a parsed URL, a constant, and a code without anything to escape"
    )]
    let uri = format!("{base}{path}").parse().expect("a URI");
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("tillgate/", env!("CARGO_PKG_VERSION"))),
    );
    request
}

/// Sends the request, and reads the whole answer within the terms.
///
/// # Errors
/// Fails if no whole answer comes, or if that of a success cannot be read.
pub(super) async fn exchange(
    transport: &dyn Transport,
    request: Request<Full<Bytes>>,
    terms: Terms,
) -> Result<Answer, Error> {
    let answer = transport
        .exchange(request, terms)
        .await
        .map_err(|error| match error {
            TransportError::NotSent(why) => Error::Unreachable(why),
            TransportError::Broken(why) => broken_off(None, &why),
            TransportError::TimedOut => Error::Timeout,
        })?;
    let status = answer.status;
    let header = |name| {
        answer
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let retry_after = header(RETRY_AFTER).and_then(clock::parse_retry_after);
    let content_type = header(CONTENT_TYPE).map(str::to_owned);
    let body = match unreadable(&answer, terms.max_bytes)? {
        None => answer.body,
        Some(what) if (200..300).contains(&status) => {
            return Err(Error::bad_answer(what, of_status(status)));
        }
        // The status alone says what a refusal means.
        Some(_) => Bytes::new(),
    };
    Ok(Answer {
        status,
        retry_after,
        content_type,
        body,
        connection: answer.connection,
    })
}

/// Returns why the body cannot be read; `None` if it can.
///
/// # Errors
/// Fails if the answer did not come whole.
fn unreadable(answer: &client::Answer, max_bytes: usize) -> Result<Option<String>, Error> {
    let mut codings = answer.headers.get_all(CONTENT_ENCODING).iter();
    match &answer.cut {
        Some(Cut::TimedOut) => Err(Error::Timeout),
        Some(Cut::Broken(why)) => Err(broken_off(Some(answer.status), why)),
        Some(Cut::TooLarge) => Ok(Some(format!(
            "the gateway's answer is over {max_bytes} bytes (gateway.max_response_bytes)"
        ))),
        None if codings.all(is_identity) => Ok(None),
        None => Ok(Some(
            "the gateway sent an encoded answer that nobody asked for".to_owned(),
        )),
    }
}

/// A status without a message.
fn of_status(status: u16) -> GatewayMessage {
    GatewayMessage {
        status: Some(status),
        message: None,
    }
}

/// Whether a `Content-Encoding` names no coding but `identity`.
fn is_identity(codings: &HeaderValue) -> bool {
    let is_none = |coding: &str| coding.is_empty() || coding.eq_ignore_ascii_case("identity");
    codings
        .to_str()
        .is_ok_and(|codings| codings.split(',').map(str::trim).all(is_none))
}

fn broken_off(status: Option<u16>, why: &str) -> Error {
    let what =
        format!("the connection to the gateway broke off before the answer was whole: {why}");
    Error::BadAnswer(BadAnswer {
        what,
        gateway_message: status.map(of_status).unwrap_or_default(),
        broken_off: true,
        retry_after: None,
    })
}

impl Answer {
    /// Removes the secret, and reads the fields.
    pub(super) fn scrubbed(self, scrubber: &Scrubber) -> Scrubbed {
        let Self {
            status,
            retry_after,
            content_type,
            body,
            connection: _,
        } = self;
        let Reading { fields, message } =
            read::read(status, content_type.as_deref(), &body, scrubber);
        Scrubbed {
            gateway_message: GatewayMessage {
                status: Some(status),
                message,
            },
            retry_after,
            fields,
        }
    }
}

impl Scrubbed {
    /// Returns the fields of a success.
    fn into_fields(self) -> Result<(Fields, GatewayMessage), Error> {
        let why = match self.fields {
            Ok(fields) => match fields.echoed {
                None => return Ok((fields, self.gateway_message)),
                Some(name) => {
                    format!("the gateway's answer has the merchant secret in its {name}")
                }
            },
            Err(why) => format!("the gateway's answer is not a JSON object: {why}"),
        };
        Err(Error::bad_answer(why, self.gateway_message))
    }

    /// Interprets a refusal that means the same for a start and for a status.
    fn into_refusal(self) -> Error {
        let Self {
            gateway_message,
            retry_after,
            fields,
        } = self;
        match gateway_message.status {
            Some(401) => Error::RefusedSecret(gateway_message),
            // A firewall in front of the gateway answers with a page.
            Some(403) if fields.is_ok() => Error::RefusedSecret(gateway_message),
            Some(429) => Error::Busy(gateway_message, retry_after),
            _ => unexpected(gateway_message, retry_after),
        }
    }
}

/// Interprets the answer to a start.
pub(super) fn started(answer: Scrubbed) -> Result<Started, Error> {
    let (fields, gateway_message) = match answer.gateway_message.status {
        Some(200 | 201 | 203) => answer.into_fields()?,
        Some(400 | 422) => return Err(Error::Rejected(answer.gateway_message)),
        _ => return Err(answer.into_refusal()),
    };
    let field = |name| {
        fields
            .once(name)
            .map_err(|twice| Error::bad_answer(twice, gateway_message.clone()))
    };
    let code = field("code")?.and_then(Json::as_text).map(str::parse);
    let watch_code = field("watch_code")?.and_then(Json::as_text).map(str::parse);
    let (Some(Ok(code)), Some(Ok(watch_code))) = (code, watch_code) else {
        return Err(Error::bad_answer(
            "code or watch_code is missing in the gateway's answer, or malformed",
            gateway_message,
        ));
    };
    Ok(Started {
        code,
        watch_code,
        answer: fields.into_object(),
    })
}

/// Interprets the answer about the status of this payment.
pub(super) fn report(code: &WatchCode, answer: Scrubbed) -> Result<Report, Error> {
    let (fields, gateway_message) = match answer.gateway_message.status {
        Some(200 | 203) => answer.into_fields()?,
        Some(404) => return Err(Error::UnknownCode(answer.gateway_message)),
        _ => return Err(answer.into_refusal()),
    };
    let field = |name| {
        fields
            .once(name)
            .map_err(|twice| Error::bad_answer(twice, gateway_message.clone()))
    };
    // The guide's answer has no code. If there is one, it must not be that of another payment, whose answer came late on the
    // same connection. What is no watch code at all says nothing.
    let other = field("watch_code")?.and_then(Json::as_text);
    let other = other.and_then(|other| other.parse::<WatchCode>().ok());
    if other.is_some_and(|other| other != *code) {
        return Err(Error::bad_answer(
            "the gateway's answer is about another payment",
            gateway_message,
        ));
    }
    let status = field("status")?
        .and_then(Json::as_text)
        .filter(|status| !status.is_empty())
        .map(Status::from);
    let Some(status) = status else {
        return Err(Error::bad_answer(
            "status is missing in the gateway's answer, or malformed",
            gateway_message,
        ));
    };
    if !field("amount")?.is_none_or(is_amount) {
        return Err(Error::bad_answer(
            "amount is malformed in the gateway's answer",
            gateway_message,
        ));
    }
    // Other fields are passed on whatever they are, so that they cannot keep the status from the app.
    let body = Json::Object(fields.into_object()).canonical().to_string();
    let fingerprint = json::fingerprint(&body);
    Ok(Report {
        status,
        body: body.into(),
        fingerprint,
    })
}

/// Whether the value is a number, a text with a number in it, or null, which stands for no amount.
fn is_amount(value: &Json) -> bool {
    match value {
        Json::Literal(number) => value.is_null() || Decimal::parse(number).is_some(),
        Json::Text(number) => Decimal::parse(number).is_some(),
        Json::Array(_) | Json::Object(_) => false,
    }
}

fn unexpected(gateway_message: GatewayMessage, retry_after: Option<Duration>) -> Error {
    let what = match gateway_message.status {
        Some(300..400) => {
            "the gateway answered with a redirect, which is never followed: is gateway.url right?"
        }
        Some(403) => {
            "the answer is a 403 without a JSON object: a firewall or proxy in front of the gateway probably gave it"
        }
        Some(400..500) => "the gateway does not know this request: is gateway.url right?",
        Some(500..) => "the gateway failed",
        _ => "the gateway gave an answer that its guide does not know",
    };
    let retry_after = retry_after.filter(|_| gateway_message.status == Some(503));
    Error::BadAnswer(BadAnswer {
        what: what.to_owned(),
        gateway_message,
        broken_off: false,
        retry_after,
    })
}

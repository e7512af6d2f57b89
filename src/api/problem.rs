//! Errors in HTTP: `application/problem+json` (RFC 9457). Here and nowhere else an error gets a status.

mod code;

use std::time::Duration;

use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

pub(super) use self::code::ErrorCode;
use super::Route;
use super::fate::completed_at;
use crate::clock;
use crate::gateway::{self, Outcome};
use crate::json::quoted;
use crate::payment::Malformed;
use crate::server::{self, Body, Rejection};
use crate::start::Quoted;
use crate::store::Fate;
use crate::watch;

/// The detail of an answer that has the codes of another payment. Here starting again is not known to be safe.
pub(super) const CODE_REUSED: &str = "The gateway answered with the code of a payment that was started before, for another order: it is given to nobody, and starting again may give the same. Ask the gateway's operator why it gives one code twice.";

/// Says how to set what a text names, where there is no configuration file; `None` if it names no setting.
pub(super) type Hint = fn(&str) -> Option<String>;

/// An error on its way out.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) code: ErrorCode,
    /// What to do about it.
    pub(super) detail: String,
    /// The whole value that is wrong, as the caller wrote it: it is quoted at the end of the detail.
    pub(super) found: Option<Box<str>>,
    /// Of a start: whether the gateway may have done it. Shown only where a start was asked for.
    pub(super) outcome: Option<Outcome>,
    pub(super) retry_after: Option<Duration>,
    pub(super) allow: Option<&'static str>,
    pub(super) gateway: gateway::GatewayMessage,
    /// The payment that the key or the reference of a start belongs to.
    pub(super) fate: Option<Box<Fate>>,
    pub(super) close: bool,
}

impl Problem {
    /// Nothing was sent to the gateway.
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let outcome = if code == ErrorCode::Internal {
            Outcome::Unknown
        } else {
            Outcome::NotSent
        };
        let gateway = gateway::GatewayMessage::default();
        Self {
            code,
            detail: detail.into(),
            found: None,
            outcome: Some(outcome),
            retry_after: None,
            allow: None,
            gateway,
            fate: None,
            close: false,
        }
    }

    /// With the value that is wrong.
    pub(super) fn found(self, value: &str) -> Self {
        Self {
            found: Some(value.into()),
            ..self
        }
    }

    /// Quotes the value that is wrong, without what `scrub` takes out of it.
    pub(super) fn quoting(mut self, scrub: impl Fn(String) -> String) -> Self {
        if let Some(found) = self.found.take() {
            // Before it is shortened: a part of what `scrub` looks for may not be found any more.
            let found = Quoted::text(scrub(found.into()));
            self.detail.push_str(&format!(" It is {found}."));
        }
        self
    }

    /// With a hint on how to set what the detail names.
    pub(super) fn hinting(mut self, hint: Hint) -> Self {
        if let Some(hint) = hint(&self.detail) {
            self.detail.push_str(&format!(" {hint}"));
        }
        self
    }

    pub(super) fn draining() -> Self {
        let detail = "This sidecar is shutting down: ask again, the next one will answer.";
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(ErrorCode::Draining, detail)
        }
    }

    /// As many callers wait as may.
    pub(super) fn too_many_waiters() -> Self {
        let detail = "Three quarters of listen.max_connections are waiting or streaming already: ask without waiting, or later.";
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(ErrorCode::Overloaded, detail)
        }
    }

    /// As many lists are being read as there may be.
    pub(super) fn too_many_lists() -> Self {
        let detail = "Too many lists are being read at once: ask again when one of yours has been read to its end.";
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(ErrorCode::Overloaded, detail)
        }
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            ErrorCode::Unauthorized,
            "Send Authorization: Bearer TOKEN with one of the tokens in listen.token_file.",
        )
    }

    /// There are only these methods, as `Allow` lists them.
    pub(super) fn method_not_allowed(methods: &'static str) -> Self {
        let detail = format!("Use {} here.", methods.replace(", ", " or "));
        Self {
            allow: Some(methods),
            ..Self::new(ErrorCode::MethodNotAllowed, detail)
        }
    }

    /// The route does not take this method, or leads nowhere.
    pub(super) fn not_here(route: Route) -> Self {
        if let Some(methods) = route.methods() {
            return Self::method_not_allowed(methods);
        }
        let detail = if route == Route::Pay {
            "The pay page is the gateway's: send the payer to the pay_url that the start answered with."
        } else {
            "There are POST /api/start_payment, GET /watch/{watch_code}, GET /events, GET /payments, GET /deliveries, POST /deliveries/{id}/redeliver and GET /openapi.json, which describes them."
        };
        Self::new(ErrorCode::NotFound, detail)
    }

    /// Of this route: whether a payment was started is shown only where one was to be, and there what it means.
    pub(super) fn of(mut self, route: Route) -> Self {
        match (route, self.outcome) {
            (Route::Start, Some(Outcome::Unknown)) if self.detail != CODE_REUSED => self.detail.push_str(
                " It is not known whether the gateway started a payment, but nobody has the code of it, so nobody can pay it: starting again is safe.",
            ),
            (Route::Start, _) => {}
            _ => self.outcome = None,
        }
        self
    }

    /// The connection ends with this answer: what else comes on it cannot be told from the rest of this request.
    pub(super) fn closing(self) -> Self {
        Self {
            close: true,
            ..self
        }
    }

    /// Not the caller's fault: somebody will look for the reason in the log.
    pub(super) fn is_ours_or_the_gateways(&self) -> bool {
        self.code.source() == "gateway" || self.code.row().1 >= 500
    }

    pub(super) fn outcome_label(&self) -> Option<&'static str> {
        self.outcome.map(Outcome::label)
    }

    /// Codes are listed to nobody whose right to them is not known.
    pub(super) fn token_required() -> Self {
        Self::new(
            ErrorCode::TokenRequired,
            "This lists the codes of payments, and every program on this machine could ask for it: set listen.token_file, and send a token; or ask over a Unix socket, which listen.address may have beside this one.",
        )
    }

    /// Its body.
    pub(super) fn body(&self, request_id: &str) -> String {
        let (code, status, title) = self.code.row();
        let mut body = format!(
            r#"{{"error":"{code}","detail":{},"status":{status},"type":"urn:tillgate:error:{code}","title":{},"source":"{}","retryable":{},"request_id":{}"#,
            quoted(&self.detail),
            quoted(title),
            self.code.source(),
            self.code.retryable(),
            quoted(request_id),
        );
        if let Some(outcome) = self.outcome {
            body.push_str(&format!(r#","outcome":"{}""#, outcome.label()));
        }
        if let Some(status) = self.gateway.status {
            body.push_str(&format!(r#","gateway_status":{status}"#));
        }
        if let Some(message) = &self.gateway.message {
            body.push_str(&format!(r#","gateway_message":{}"#, quoted(message)));
        }
        if let Some(fate) = &self.fate {
            body.push_str(&format!(
                r#","watch_code":{},"requested_amount":{},"completed_at":{}"#,
                quoted(&fate.watch_code.to_string()),
                fate.amount,
                completed_at(fate),
            ));
        }
        body.push('}');
        body
    }

    /// The same, found before the gateway was asked to start anything.
    pub(super) fn not_sent(self) -> Self {
        Self {
            outcome: Some(Outcome::NotSent),
            ..self
        }
    }

    /// What all replicas know is asked for, and the store that they share is away.
    pub(super) fn store_away() -> Self {
        let detail = "The database of store.url cannot be reached, and without it nobody knows what all replicas have written: try again after Retry-After.";
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(ErrorCode::StoreUnavailable, detail)
        }
    }

    /// As it goes out.
    pub(super) fn render(self, request_id: &str) -> Response<Body> {
        let (_, status, _) = self.code.row();
        let mut response = Response::new(server::full(self.body(request_id)));
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(wait) = self.retry_after {
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(clock::retry_after_seconds(wait)),
            );
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.code == ErrorCode::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let problem = match rejection {
            Rejection::Malformed(what) => Self::new(
                ErrorCode::BadRequest,
                format!("This request is not well-formed: {what}."),
            ),
            Rejection::HeadersTooLarge => Self::new(
                ErrorCode::HeadersTooLarge,
                "A head has at most 100 fields and 16 KiB: send fewer or shorter headers.",
            ),
            Rejection::TargetTooLong => {
                Self::new(ErrorCode::UriTooLong, "A target has at most 8 KiB.")
            }
            Rejection::Expectation => Self::new(
                ErrorCode::ExpectationFailed,
                "The only expectation is 100-continue.",
            ),
            Rejection::TooSlow => Self::new(
                ErrorCode::RequestTimeout,
                "The head did not come in time (listen.header_timeout).",
            ),
            Rejection::Overloaded => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(
                    ErrorCode::Overloaded,
                    "There are too many connections (listen.max_connections): reuse them.",
                )
            },
        };
        problem.closing()
    }
}

impl From<Malformed> for Problem {
    fn from(Malformed: Malformed) -> Self {
        Self::new(
            ErrorCode::InvalidWatchCode,
            "A watch code is 1 to 256 of A-Z a-z 0-9 - . _ ~, as the start answered it, never percent-encoded.",
        )
    }
}

impl From<watch::Error> for Problem {
    fn from(error: watch::Error) -> Self {
        match error {
            watch::Error::Gateway(error) => error.into(),
            watch::Error::NoPermit | watch::Error::Abandoned => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(
                    ErrorCode::Overloaded,
                    "There was no turn for a call to the gateway (watch.poll_rate): ask again.",
                )
            },
            watch::Error::Crashed => Self::new(ErrorCode::Internal, "This is a bug in tillgate."),
        }
    }
}

impl From<gateway::Error> for Problem {
    fn from(error: gateway::Error) -> Self {
        use gateway::Error;
        let (outcome, gateway_message) = (
            Some(error.outcome()),
            error.gateway_message().cloned().unwrap_or_default(),
        );
        let asked_for = error.retry_after();
        let (code, detail, retry_after) = match error {
            Error::SecretUnavailable => (
                ErrorCode::SecretUnavailable,
                "The merchant secret is not there yet: put it into the file that merchant.secret_file names.".to_owned(),
                Some(Duration::from_secs(1)),
            ),
            Error::Unreachable(why) => {
                (ErrorCode::GatewayUnreachable, format!("No connection to the gateway (gateway.url): {why}."), None)
            }
            Error::Timeout => (
                ErrorCode::GatewayTimeout,
                "The gateway did not answer within gateway.timeout.".to_owned(),
                None,
            ),
            Error::BadAnswer(bad) => (ErrorCode::GatewayBadAnswer, sentence(&bad.to_string()), asked_for),
            Error::Busy(..) => (
                ErrorCode::GatewayBusy,
                "The gateway limits its callers: try again after Retry-After.".to_owned(),
                Some(asked_for.unwrap_or(Duration::from_secs(1))),
            ),
            Error::Rejected(gateway_message) => {
                let why = if gateway_message.message.is_some() { ": see gateway_message" } else { ", and does not say why" };
                (ErrorCode::GatewayRejected, format!("The gateway refuses this payment{why}."), None)
            }
            Error::RefusedSecret(_) => (
                ErrorCode::GatewayRefusedSecret,
                "The gateway does not take the merchant secret: put the right one into merchant.secret_file (or merchant.secret).".to_owned(),
                None,
            ),
            Error::UnknownCode(_) => (
                ErrorCode::UnknownWatchCode,
                "The gateway does not know this watch code: use the watch_code that the start answered with.".to_owned(),
                None,
            ),
        };
        Self {
            outcome,
            retry_after,
            gateway: gateway_message,
            ..Self::new(code, detail)
        }
    }
}

/// With a capital at its beginning and a mark at its end.
fn sentence(words: &str) -> String {
    let mut rest = words.chars();
    let first = rest
        .next()
        .map(|first| first.to_uppercase().to_string())
        .unwrap_or_default();
    format!(
        "{first}{}{}",
        rest.as_str(),
        if words.ends_with('?') { "" } else { "." }
    )
}

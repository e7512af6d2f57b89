//! `GET /watch/{watch_code}`: an answer now, an answer when there is a change, or every change.

use std::time::Duration;

use hyper::header::{
    ACCEPT, AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH,
};
use hyper::{Response, StatusCode};
use url::form_urlencoded;

use super::Route;
use super::page;
use super::problem::{ErrorCode, Problem};
use super::stream::{Source, event, response};
use super::waiter_limit::{Kind, WaiterLimit, WaiterSlot};
use super::waiting::Interruption;
use crate::clock::{self, Instant};
use crate::payment::{Fingerprint, WatchCode};
use crate::server::{self, Body};
use crate::watch::{Answer, Error, How, Stale, StatusPoller, Subscription};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The code in `/watch/{watch_code}`.
pub(super) fn code(path: &str) -> Result<WatchCode, Problem> {
    let code = path.strip_prefix("/watch/").unwrap_or_default();
    Ok(code.parse::<WatchCode>()?)
}

/// What a caller asks for.
pub(super) struct Question<'a> {
    pub(super) code: &'a WatchCode,
    pub(super) headers: &'a HeaderMap,
    /// How long to wait for a change.
    pub(super) wait: Option<Duration>,
}

impl Question<'_> {
    /// `wait=25`, whole seconds; more than `max_wait` is `max_wait`.
    pub(super) fn wait(query: &str, max_wait: Duration) -> Result<Option<Duration>, Problem> {
        let mut waits = form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| name == "wait")
            .map(|(_, value)| value);
        let Some(wait) = waits.next() else {
            return Ok(None);
        };
        let (Some(wait), None) = (page::digits(wait), waits.next()) else {
            let detail = "wait is a number of whole seconds, once, like ?wait=25.";
            return Err(Problem::new(ErrorCode::InvalidWait, detail));
        };
        // More digits than fit are a very long time too.
        Ok(Some(
            Duration::from_secs(wait.parse().unwrap_or(u64::MAX)).min(max_wait),
        ))
    }

    /// Server-sent events are wanted, and rather than JSON: a caller who names both as good, or none, gets JSON.
    pub(super) fn wants_stream(&self) -> bool {
        let values = self
            .headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let ranges: Vec<_> = values
            .flat_map(|value| value.split(','))
            .map(media_range)
            .collect();
        let quality = |kind: &str| {
            ranges
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(kind))
                .map(|(_, quality)| *quality)
        };
        let (stream, json) = (
            quality("text/event-stream").unwrap_or(0.0),
            quality("application/json"),
        );
        let any = quality("application/*").or(quality("*/*")).unwrap_or(0.0);
        stream > 0.0 && json.map_or(stream >= any, |json| stream > json)
    }

    fn forces(&self) -> bool {
        let values = self
            .headers
            .get_all(CACHE_CONTROL)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case("no-cache"))
    }

    /// `If-None-Match` (RFC 9110, section 13.1.2): a list or `*`, compared weakly. `None`: it is not there.
    fn has(&self, tag: &str) -> Option<bool> {
        let mut values = self
            .headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .peekable();
        values.peek()?;
        let mut candidates = values.flat_map(|value| value.split(',')).map(str::trim);
        Some(candidates.any(|candidate| {
            candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag
        }))
    }
}

/// The id of the last event that the caller got.
pub(super) fn last_event(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(LAST_EVENT_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty())
}

/// A media range and its quality (RFC 9110, section 12.5.1).
fn media_range(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (
        kind,
        quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)),
    )
}

/// What the gateway says of this payment: now, or once it is something else than the caller knows.
pub(super) async fn watch(
    poller: &StatusPoller,
    question: &Question<'_>,
    waiters: &WaiterLimit,
    interruption: &Interruption,
) -> Result<Response<Body>, Problem> {
    let answer = match question.wait {
        None | Some(Duration::ZERO) => poller.ask(question.code, question.forces()).await?,
        Some(wait) => {
            wait_for_change(poller, question, clock::now() + wait, waiters, interruption).await?
        }
    };
    let tag = entity_tag(answer.report.fingerprint);
    let mut response = if question.has(&tag) == Some(true) {
        let mut response = Response::new(server::full(""));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(server::full(answer.report.body.to_string()));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    let headers = response.headers_mut();
    headers.insert(AGE, HeaderValue::from(answer.age.as_secs()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    #[expect(
        clippy::expect_used,
        reason = "both are made of constants, digits and hexadecimal digits"
    )]
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("a header value"));
    #[expect(
        clippy::expect_used,
        reason = "both are made of constants, digits and hexadecimal digits"
    )]
    headers.insert(
        CACHE_STATUS,
        HeaderValue::from_str(&cache_status(&answer)).expect("a header value"),
    );
    Ok(response)
}

/// The first answer that the caller does not know, or that is final; at the deadline the last there is.
async fn wait_for_change(
    poller: &StatusPoller,
    question: &Question<'_>,
    deadline: Instant,
    waiters: &WaiterLimit,
    interruption: &Interruption,
) -> Result<Answer, Problem> {
    let code = question.code;
    let ask = poller.ask(code, question.forces());
    tokio::pin!(ask);
    let mut answer = tokio::select! {
        answer = &mut ask => answer,
        interrupted = interruption.comes() => match poller.last(code) {
            Some(last) => return Ok(last),
            None if interrupted.is_draining() => return Err(Problem::draining()),
            // It may have closed its sending half alone.
            None => tokio::select! {
                answer = &mut ask => return Ok(answer?),
                () = interruption.drains() => return Err(Problem::draining()),
            },
        },
        () = clock::sleep_until(deadline) => match poller.last(code) {
            Some(last) => return Ok(last),
            // There is nothing that could be answered yet.
            None => tokio::select! {
                answer = &mut ask => return Ok(answer?),
                () = interruption.drains() => return Err(Problem::draining()),
            },
        },
    };
    // Without a tag: what this request learned first.
    let mut first = None;
    let mut is_news = |answer: &Answer| {
        let fingerprint = answer.report.fingerprint;
        let first = *first.get_or_insert(fingerprint);
        question
            .has(&entity_tag(fingerprint))
            .map_or(first != fingerprint, |has| !has)
    };
    let mut waiting = None;
    loop {
        match &answer {
            Ok(answer) if answer.report.status.is_final() || is_news(answer) => break,
            Err(error) if error.is_final() => break,
            _ if clock::now() >= deadline => break,
            // Other failures may pass while the caller waits.
            _ => {}
        }
        let subscription = match &mut waiting {
            Some((subscription, _)) => subscription,
            None => {
                let slot = waiters.take(&Kind::LONG_POLL)?;
                let (subscription, _) = waiting.insert((poller.subscribe(code), slot));
                // What changed since the answer is returned now.
                answer = subscription.now().unwrap_or(answer);
                continue;
            }
        };
        let (is_over, is_draining) = tokio::select! {
            () = subscription.changed() => (false, false),
            () = clock::sleep_until(deadline) => (true, false),
            interrupted = interruption.comes() => (true, interrupted.is_draining()),
        };
        answer = subscription.now().unwrap_or(answer);
        if is_draining && answer.is_err() {
            return Err(Problem::draining());
        }
        if is_over {
            break;
        }
    }
    Ok(answer?)
}

/// Longest wait for the gateway to say whether there is anything to stream.
const HEAD_WITHIN: Duration = Duration::from_secs(1);

/// Every state of this payment from now on, until the final one.
pub(super) async fn stream(
    poller: &StatusPoller,
    question: &Question<'_>,
    request_id: &str,
    interruption: Interruption,
    slot: WaiterSlot,
) -> Response<Body> {
    if let Some(last) = last_event(question.headers) {
        // Only the gateway may know that this was the final one: after a restart there is nothing in memory, and what
        // another sidecar has sent may be news here.
        let known = match poller
            .last(question.code)
            .filter(|known| known.report.status.is_final())
        {
            Some(known) => Some(known),
            // The head of a stream comes at once, however long the gateway takes.
            None => tokio::select! {
                known = clock::timeout(HEAD_WITHIN, poller.ask(question.code, false)) => known.ok().and_then(Result::ok),
                _ = interruption.comes() => None,
            },
        };
        let has_it = |answer: Answer| {
            answer.report.status.is_final()
                && answer.report.fingerprint.to_string() == last.trim_matches('"')
        };
        if known.is_some_and(has_it) {
            // Keeps an `EventSource` from coming back (WHATWG HTML, section 9.2.3).
            let mut nothing_more = Response::new(server::full(""));
            *nothing_more.status_mut() = StatusCode::NO_CONTENT;
            return nothing_more;
        }
    }
    let changes = Changes {
        poller: poller.clone(),
        code: question.code.clone(),
        subscription: poller.subscribe(question.code),
        asked: false,
        told: None,
        over: false,
        request_id: request_id.to_owned(),
    };
    response(changes, interruption, slot)
}

/// Every state of one payment.
struct Changes {
    poller: StatusPoller,
    code: WatchCode,
    subscription: Subscription,
    asked: bool,
    told: Option<Fingerprint>,
    over: bool,
    request_id: String,
}

impl Source for Changes {
    async fn next(&mut self) -> Option<String> {
        if self.over {
            return None;
        }
        loop {
            match self.subscription.now() {
                Some(Ok(answer)) if self.told != Some(answer.report.fingerprint) => {
                    self.told = Some(answer.report.fingerprint);
                    self.over = answer.report.status.is_final();
                    return Some(event(
                        "payment",
                        &answer.report.fingerprint.to_string(),
                        &answer.report.body,
                    ));
                }
                Some(Err(error)) if error.is_final() => return Some(self.end(error)),
                // Other failures may pass.
                _ => {}
            }
            if self.asked {
                self.subscription.changed().await;
            } else {
                // What was known was sent at once; what this returns comes through the subscription.
                let asked = self.poller.ask(&self.code, false).await;
                self.asked = true;
                if let Err(error) = asked
                    && error.is_final()
                {
                    return Some(self.end(error));
                }
            }
        }
    }
}

impl Changes {
    /// The last event of a payment that there is not.
    fn end(&mut self, error: Error) -> String {
        self.over = true;
        let problem = Problem::from(error).of(Route::Watch).body(&self.request_id);
        // An `EventSource` comes back whatever the answer is: not every second.
        format!("event: problem\nretry: 60000\ndata: {problem}\n\n")
    }
}

/// Strong.
fn entity_tag(fingerprint: Fingerprint) -> String {
    format!("\"{fingerprint}\"")
}

/// RFC 9211.
fn cache_status(answer: &Answer) -> String {
    /// A final answer never goes stale; the header wants a number, and this is as long as caches keep anything.
    const A_YEAR: u64 = 31_536_000;
    match answer.how {
        How::Hit { fresh_for } => {
            format!(
                "tillgate; hit; ttl={}",
                fresh_for.map_or(A_YEAR, |fresh_for| fresh_for.as_secs())
            )
        }
        How::Asked {
            first,
            joined,
            stale,
        } => {
            let mut status = String::from(if first {
                "tillgate; fwd=uri-miss"
            } else {
                "tillgate; fwd=stale"
            });
            if joined {
                status.push_str("; collapsed");
            }
            status.push_str(match stale {
                None => "",
                Some(Stale::Gateway) => "; detail=stale-if-error",
                Some(Stale::RateLimited) => "; detail=budget",
            });
            status
        }
    }
}

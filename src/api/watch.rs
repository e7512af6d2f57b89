//! `GET /watch/{watch_code}`: an answer now, an answer when there is a change, or every change.

mod question;

use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Duration;

use hyper::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

pub(super) use self::question::{Question, code, last_event};
use super::Route;
use super::problem::Problem;
use super::stream::{Block, Source, response};
use super::waiter_limit::{Kind, WaiterLimit, WaiterSlot};
use super::waiting::Interruption;
use crate::clock::{self, Instant};
use crate::payment::{Fingerprint, WatchCode};
use crate::server::{self, Body};
use crate::telemetry::RequestId;
use crate::watch::{Answer, Error, How, Stale, StatusPoller, Subscription};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What the gateway says of this payment: now, or once it is something else than the caller knows.
pub(super) async fn watch(
    poller: &StatusPoller,
    question: &Question<'_>,
    waiters: &WaiterLimit,
    interruption: &Interruption,
) -> Result<Response<Body>, Problem> {
    let answer = match question.wait {
        None | Some(Duration::ZERO) => answer_now(poller, question, interruption).await?,
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

/// The answer to the question itself.
async fn answer_now(
    poller: &StatusPoller,
    question: &Question<'_>,
    interruption: &Interruption,
) -> Result<Answer, Error> {
    let ask = poller.ask(question.code, question.forces());
    tokio::pin!(ask);
    tokio::select! {
        answer = &mut ask => answer,
        () = interruption.hangs_up() => after_hanging_up(poller, question, ask).await,
    }
}

/// How long a caller who has hung up keeps its place, while the gateway is not being asked.
const GONE_FOR: Duration = Duration::from_millis(200);

/// The answer for a caller who has closed its sending half. It may still read: so it gets the answer if the gateway is
/// being asked; but nothing waits in a queue for it, because most of those who do so have gone.
async fn after_hanging_up(
    poller: &StatusPoller,
    question: &Question<'_>,
    mut ask: Pin<&mut impl Future<Output = Result<Answer, Error>>>,
) -> Result<Answer, Error> {
    if let Ok(answer) = clock::timeout(GONE_FOR, &mut ask).await {
        return answer;
    }
    if poller.is_being_asked(question.code) {
        return ask.await;
    }
    poller.last(question.code).ok_or(Error::NoPermit)
}

/// The first answer that the caller does not know, or that is final; at the deadline the last there is.
async fn wait_for_change(
    poller: &StatusPoller,
    question: &Question<'_>,
    deadline: Instant,
    waiters: &WaiterLimit,
    interruption: &Interruption,
) -> Result<Answer, Problem> {
    let mut answer = match first_answer(poller, question, deadline, interruption).await {
        ControlFlow::Continue(answer) => answer,
        ControlFlow::Break(result) => return result,
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
                let slot = waiters.take(Kind::LONG_POLL)?;
                let (subscription, _) = waiting.insert((poller.subscribe(question.code), slot));
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

/// The answer to the question itself, to go on with; or the result, if the wait is over before it is there.
async fn first_answer(
    poller: &StatusPoller,
    question: &Question<'_>,
    deadline: Instant,
    interruption: &Interruption,
) -> ControlFlow<Result<Answer, Problem>, Result<Answer, Error>> {
    let ask = poller.ask(question.code, question.forces());
    tokio::pin!(ask);
    let interrupted = tokio::select! {
        answer = &mut ask => return ControlFlow::Continue(answer),
        interrupted = interruption.comes() => Some(interrupted),
        () = clock::sleep_until(deadline) => None,
    };
    // While there is nothing that could be answered, the caller waits on for the gateway.
    let answer = async {
        match (poller.last(question.code), interrupted) {
            (Some(last), _) => Ok(last),
            (None, Some(_)) => after_hanging_up(poller, question, ask).await,
            (None, None) => tokio::select! {
                answer = &mut ask => answer,
                () = interruption.hangs_up() => after_hanging_up(poller, question, ask).await,
            },
        }
    };
    ControlFlow::Break(tokio::select! {
        biased;
        answer = answer => answer.map_err(Problem::from),
        () = interruption.drains() => Err(Problem::draining()),
    })
}

/// Longest wait for the gateway to say whether there is anything to stream.
const HEAD_WITHIN: Duration = Duration::from_secs(1);

/// Every state of this payment from now on, until the final one.
pub(super) async fn stream(
    poller: &StatusPoller,
    question: &Question<'_>,
    request_id: &RequestId,
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
        request_id: request_id.clone(),
    };
    response(changes, request_id, interruption, slot)
}

/// Every state of one payment.
struct Changes {
    poller: StatusPoller,
    code: WatchCode,
    subscription: Subscription,
    asked: bool,
    told: Option<Fingerprint>,
    over: bool,
    request_id: RequestId,
}

impl Source for Changes {
    async fn next(&mut self) -> Option<Block> {
        if self.over {
            return None;
        }
        loop {
            match self.subscription.now() {
                Some(Ok(answer)) if self.told != Some(answer.report.fingerprint) => {
                    self.told = Some(answer.report.fingerprint);
                    self.over = answer.report.status.is_final();
                    return Some(Block::event(
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
                // What was known was sent at once; what this returns comes through the subscription, also when nobody
                // waits here any more, since a comment was due.
                self.asked = true;
                let asked = self.poller.ask(&self.code, false).await;
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
    fn end(&mut self, error: Error) -> Block {
        self.over = true;
        let problem = Problem::from(error).of(Route::Watch).body(&self.request_id);
        // An `EventSource` comes back whatever the answer is: not every second.
        Block::event_without_id("problem", &problem).retrying(Duration::from_secs(60))
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

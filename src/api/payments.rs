//! `GET /payments`, and a payment as it and `/events` show it.

use std::sync::Arc;

use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::problem::{Problem, Word};
use crate::clock;
use crate::json::{self, Json, Object};
use crate::payment::{Report, Status};
use crate::serve::{self, Body};
use crate::store::{Store, Tracked};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// One page of what was started here, the newest first.
pub(super) fn payments(store: &Store, query: &str) -> Result<Response<Body>, Problem> {
    let Query { status, limit, after } = Query::parse(query)?;
    let mut found = store.before(after, status.as_ref(), limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map_or(Json::null(), |(last, _)| Json::Text(last.number.to_string()));
    let shown = found.into_iter().map(|(tracked, seen)| {
        let mut object = object(&tracked, seen.as_ref().map(|seen| &seen.report));
        let polled = seen.map_or(Json::null(), |seen| Json::Text(clock::wall_at(seen.asked).to_string()));
        set(&mut object, "started_at", Json::Text(tracked.started_at.to_string()));
        set(&mut object, "last_polled_at", polled);
        Json::Object(object)
    });
    let page = vec![("payments".to_owned(), Json::Array(shown.collect())), ("next".to_owned(), next)];
    let mut response = Response::new(serve::full(Json::Object(page).to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The guide's fields, null where they are not known yet, what else the gateway told, and both codes.
pub(super) fn object(tracked: &Tracked, report: Option<&Arc<Report>>) -> Object {
    // A report's body is an object: it was one when it came.
    let mut object = report.and_then(|report| json::parse_object(report.body.as_bytes()).ok()).unwrap_or_default();
    let mut default = |name: &str, value: Json| {
        if json::get(&object, name).is_none() {
            object.push((name.to_owned(), value));
        }
    };
    default("status", Json::Text(Status::Created.to_string()));
    default("amount", Json::Literal(tracked.payment.amount.to_string().into()));
    for name in ["merchant", "created_at", "completed_at"] {
        default(name, Json::null());
    }
    set(&mut object, "code", Json::Text(tracked.payment.code.to_string()));
    set(&mut object, "watch_code", Json::Text(tracked.payment.watch_code.to_string()));
    object
}

/// Ours, whatever the gateway has under that name.
fn set(object: &mut Object, name: &str, value: Json) {
    object.retain(|(key, _)| key != name);
    object.push((name.to_owned(), value));
}

struct Query {
    status: Option<Status>,
    limit: usize,
    /// Numbers below this one.
    after: u64,
}

impl Query {
    fn parse(query: &str) -> Result<Self, Problem> {
        let invalid = |what: &str| Problem::new(Word::InvalidQuery, what);
        let (mut status, mut limit, mut after) = (None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_repeated = match name {
                "status" => status.replace(value).is_some(),
                "limit" => limit.replace(value).is_some(),
                "after" => after.replace(value).is_some(),
                _ => return Err(invalid("There are the parameters status, limit and after.")),
            };
            if is_repeated {
                return Err(invalid("Give each parameter once."));
            }
        }
        let status = match status {
            None => None,
            Some("created") => Some(Status::Created),
            Some("completed") => Some(Status::Completed),
            Some(_) => return Err(invalid("status is created or completed.")),
        };
        let limit = limit.map_or(Some(DEFAULT_LIMIT), number).filter(|limit| (1..=MAX_LIMIT).contains(limit));
        let after = after.map_or(Some(u64::MAX), number).filter(|after| *after > 0);
        Ok(Self {
            status,
            limit: limit.ok_or_else(|| invalid("limit is a number from 1 to 1000."))?,
            after: after.ok_or_else(|| invalid("after is what the last page gave as next."))?,
        })
    }
}

/// Digits and nothing else.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

//! Lists in pages: what is asked for, and how a page is answered.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::form_urlencoded;

use super::problem::{ErrorCode, Problem};
use crate::json::Json;
use crate::payment::Status;
use crate::server::{self, Body};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Pages that are made, or not yet read to their end: each may have hundreds of kilobytes.
const AT_ONCE: usize = 16;

/// Room for pages.
pub(super) struct Pages(Arc<Semaphore>);

/// A page that keeps its room until it has been read.
struct Page {
    text: String,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// JSON, as an answer.
pub(super) fn json(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(server::full(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Pages {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// A page of what `find` finds, which is asked for one more than the page has, to tell if there are more; `number`
    /// and `show` tell of each.
    ///
    /// # Errors
    /// When too many are being read.
    pub(super) fn page<T>(
        &self,
        name: &str,
        limit: usize,
        find: impl FnOnce(usize) -> Vec<T>,
        number: impl Fn(&T) -> u64,
        show: impl Fn(&T) -> Json,
    ) -> Result<Response<Body>, Problem> {
        let room = self
            .0
            .clone()
            .try_acquire_owned()
            .map_err(|_| Problem::too_many_lists())?;
        let mut found = find(limit + 1);
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| more)
            .map_or(Json::null(), |last| Json::Text(number(last).to_string()));
        let shown = Json::Array(found.iter().map(show).collect());
        let text =
            Json::Object(vec![(name.to_owned(), shown), ("next".to_owned(), next)]).to_string();
        Ok(json(Bytes::from_owner(Page { text, _room: room })))
    }
}

/// Which page.
pub(super) struct Query {
    pub(super) status: Option<Status>,
    pub(super) limit: usize,
    /// Numbers below this one.
    pub(super) after: u64,
}

impl Query {
    /// Reads it; `parameters` are those that there are.
    pub(super) fn parse(query: &str, parameters: &[&str]) -> Result<Self, Problem> {
        let invalid = |what: &str| Problem::new(ErrorCode::InvalidQuery, what);
        let (mut status, mut limit, mut after) = (None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !parameters.contains(&&*name) {
                return Err(invalid(&format!(
                    "There are the parameters {}.",
                    parameters.join(", ")
                )));
            }
            let is_repeated = match &*name {
                "status" => status.replace(value).is_some(),
                "limit" => limit.replace(value).is_some(),
                _ => after.replace(value).is_some(),
            };
            if is_repeated {
                return Err(invalid("Give each parameter once."));
            }
        }
        let status = match status.as_deref() {
            None => None,
            Some("created") => Some(Status::Created),
            Some("completed") => Some(Status::Completed),
            Some(_) => return Err(invalid("status is created or completed.")),
        };
        let limit = limit
            .map_or(Some(DEFAULT_LIMIT), number)
            .filter(|limit| (1..=MAX_LIMIT).contains(limit));
        let after = after
            .map_or(Some(u64::MAX), number)
            .filter(|after| *after > 0);
        Ok(Self {
            status,
            limit: limit.ok_or_else(|| invalid("limit is a number from 1 to 1000."))?,
            after: after.ok_or_else(|| invalid("after is what the last page gave as next."))?,
        })
    }
}

/// Digits as they were written, and nothing else: what was percent-encoded has become another text.
pub(super) fn digits(value: Cow<'_, str>) -> Option<&str> {
    match value {
        Cow::Borrowed(text) => Some(text)
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())),
        Cow::Owned(_) => None,
    }
}

fn number<T: FromStr>(value: Cow<'_, str>) -> Option<T> {
    digits(value)?.parse().ok()
}

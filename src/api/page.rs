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
use crate::server::{self, Body};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Pages that are made, or not yet read to their end: each may have hundreds of kilobytes.
const AT_ONCE: usize = 16;

/// Room for pages.
pub(super) struct Pages(Arc<Semaphore>);

/// Room for one page.
pub(super) struct Room(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

struct Page {
    text: String,
    _room: Room,
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

    /// Room for a page, before it is made.
    ///
    /// # Errors
    /// When too many are being read.
    pub(super) fn room(&self) -> Result<Room, Problem> {
        let room = self.0.clone().try_acquire_owned();
        room.map(Room).map_err(|_| Problem::too_many_lists())
    }
}

impl Room {
    /// A page that keeps its room until it has been read.
    pub(super) fn page(self, text: String) -> Bytes {
        Bytes::from_owner(Page { text, _room: self })
    }
}

/// Cuts what was found to a page, where one more was looked for than it has; returns what `after` is for the next one.
pub(super) fn cut<T>(
    found: &mut Vec<T>,
    limit: usize,
    number: impl Fn(&T) -> u64,
) -> Option<String> {
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| more)?;
    Some(number(last).to_string())
}

/// The parameters of a query.
pub(super) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    /// Reads them; `names` are those that there are.
    pub(super) fn parse(query: &'a str, names: &[&str]) -> Result<Self, Problem> {
        let mut all: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !names.contains(&&*name) {
                let names = names.join(", ");
                let why = format!("There are the parameters {names}, and not this one.");
                return Err(invalid(&why).found(&name));
            }
            if all.iter().any(|(other, _)| *other == name) {
                return Err(invalid(&format!("{name} is given twice.")).found(&value));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// Returns the value of that name.
    pub(super) fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut all = self.0.iter();
        all.find(|(other, _)| other == name)
            .map(|(_, value)| value.clone())
    }

    /// The value of that name is not what it is to be.
    pub(super) fn invalid(&self, name: &str, why: &str) -> Problem {
        let problem = invalid(&format!("{name} {why}."));
        match self.get(name) {
            Some(value) => problem.found(&value),
            None => problem,
        }
    }

    /// How many a page has at most.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.get("limit").map_or(Some(DEFAULT_LIMIT), number);
        let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.ok_or_else(|| self.invalid("limit", "is a number from 1 to 1000"))
    }

    /// A page has numbers below this one.
    pub(super) fn after(&self) -> Result<u64, Problem> {
        let after = self.get("after").map_or(Some(u64::MAX), number);
        let after = after.filter(|after| *after > 0);
        after.ok_or_else(|| self.invalid("after", "is what the last page gave as next"))
    }
}

/// A query that is not well-formed, and why.
fn invalid(why: &str) -> Problem {
    Problem::new(ErrorCode::InvalidQuery, why)
}

/// Returns digits as they were written, and nothing else: what was percent-encoded has become another text.
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

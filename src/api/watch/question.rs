//! What a caller of `GET /watch/{watch_code}` asks for: its path, query and headers.

use std::time::Duration;

use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderName, IF_NONE_MATCH};
use url::form_urlencoded;

use crate::api::problem::{ErrorCode, Problem};
use crate::api::{accept, page};
use crate::payment::WatchCode;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The code in `/watch/{watch_code}`.
pub(in crate::api) fn code(path: &str) -> Result<WatchCode, Problem> {
    let code = path.strip_prefix("/watch/").unwrap_or_default();
    let parsed = code.parse::<WatchCode>();
    parsed.map_err(|malformed| Problem::from(malformed).found(code))
}

/// What a caller asks for.
pub(in crate::api) struct Question<'a> {
    pub(in crate::api) code: &'a WatchCode,
    pub(in crate::api) headers: &'a HeaderMap,
    /// How long to wait for a change.
    pub(in crate::api) wait: Option<Duration>,
}

impl Question<'_> {
    /// `wait=25`, whole seconds; more than `max_wait` is `max_wait`.
    pub(in crate::api) fn wait(
        query: &str,
        max_wait: Duration,
    ) -> Result<Option<Duration>, Problem> {
        let mut waits = form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| name == "wait")
            .map(|(_, value)| value);
        let Some(value) = waits.next() else {
            return Ok(None);
        };
        let (Some(wait), None) = (page::digits(value.clone()), waits.next()) else {
            let detail = "wait is a number of whole seconds, once, like ?wait=25.";
            return Err(Problem::new(ErrorCode::InvalidWait, detail).found(&value));
        };
        // More digits than fit are a very long time too.
        Ok(Some(
            Duration::from_secs(wait.parse().unwrap_or(u64::MAX)).min(max_wait),
        ))
    }

    /// Server-sent events are wanted, and rather than JSON.
    pub(in crate::api) fn wants_stream(&self) -> bool {
        accept::prefers(self.headers, "text/event-stream")
    }

    pub(super) fn forces(&self) -> bool {
        let values = self
            .headers
            .get_all(CACHE_CONTROL)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case("no-cache"))
    }

    /// `If-None-Match` (RFC 9110, section 13.1.2): a list or `*`, compared weakly. A bare tag counts as one in quotes,
    /// because a client that drops the quotes would otherwise ask again and again. `None`: it is not there.
    pub(super) fn has(&self, tag: &str) -> Option<bool> {
        let mut values = self
            .headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .peekable();
        values.peek()?;
        let mut candidates = values.flat_map(|value| value.split(',')).map(str::trim);
        let bare = tag.trim_matches('"');
        Some(candidates.any(|candidate| {
            let candidate = candidate.strip_prefix("W/").unwrap_or(candidate);
            candidate == "*" || candidate == tag || candidate == bare
        }))
    }
}

/// The id of the last event that the caller got.
pub(in crate::api) fn last_event(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(LAST_EVENT_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty())
}

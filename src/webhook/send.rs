//! One signed POST to the app, and what came of it. The only file of the room that knows HTTP.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CONTENT_TYPE, DATE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{Request, Response, StatusCode, Uri};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use url::Url;

use super::attempt::Posted;
use super::message;
use super::sign::Keys;
use crate::client::{Network, Transport, TransportError};
use crate::clock;
use crate::file::{Reload, ReloadableFile};
use crate::{random, text};

/// An http(s) URL that a request can be sent to.
#[derive(Clone, Debug)]
pub(crate) struct Target(Uri);

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("this is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("this is not an http(s) URL".to_owned());
        }
        // What stands in these could be a credential: it is not repeated.
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL has a user name or password in it: the app knows tillgate by its signature".to_owned());
        }
        let uri = url.as_str().split('#').next().unwrap_or_default().parse();
        uri.map(Self)
            .map_err(|_| "the URL has characters that no request can have".to_owned())
    }
}

impl Target {
    /// The URL.
    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The way to the app.
pub(crate) struct Sender {
    target: Target,
    keys: Arc<ReloadableFile<Keys>>,
    network: Arc<Network>,
    /// The network, unless a test has put something in its place.
    transport: Arc<dyn Transport>,
    timeout: Duration,
}

const AGENT: &str = concat!("tillgate/", env!("CARGO_PKG_VERSION"));
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

impl Sender {
    /// To this target, signing with these keys as they are at the time.
    pub(crate) fn new(
        target: Target,
        keys: Arc<ReloadableFile<Keys>>,
        network: Arc<Network>,
        timeout: Duration,
    ) -> Self {
        Self {
            target,
            keys,
            transport: network.clone(),
            network,
            timeout,
        }
    }

    /// The same, where the app is reached in another way.
    pub(crate) fn over(self, transport: Arc<dyn Transport>) -> Self {
        Self { transport, ..self }
    }

    /// The time limit of one try.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The file of the keys, to look at for changes.
    pub(crate) fn keys(&self) -> Arc<dyn Reload> {
        self.keys.clone()
    }

    /// The network to the app, whose files are to be looked at too.
    pub(crate) fn network(&self) -> &Arc<Network> {
        &self.network
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.network.register(registry);
        let failures = self.keys.failures.clone();
        registry.register(
            "webhook_key_reload_failures",
            "Looks at the key file that found nothing usable",
            failures,
        );
    }

    /// Posts it, once. What the app says of a failure goes through `scrub` before any of it is shown.
    pub(super) async fn post(
        &self,
        id: &str,
        body: &str,
        scrub: &(dyn Fn(String) -> String + Sync),
    ) -> Posted {
        match self.try_post(id, body, scrub).await {
            Ok((answer, why)) => posted(&answer, why),
            Err(why) => Posted::Failed {
                why,
                retry_after: None,
            },
        }
    }

    /// Posts a message about nothing, once. Returns what the app said, if it took it.
    ///
    /// # Errors
    /// Says why it did not, as [`Sender::post`] does.
    pub(crate) async fn test(
        &self,
        scrub: &(dyn Fn(String) -> String + Sync),
    ) -> Result<String, String> {
        let id = format!("msg_{}", random::token(20));
        let body = message::test(clock::wall());
        let (answer, said) = self.try_post(&id, &body, scrub).await?;
        if answer.status().is_success() {
            Ok(said)
        } else {
            Err(said)
        }
    }

    /// Returns the answer, and what it says about itself.
    ///
    /// # Errors
    /// Says why there is none.
    async fn try_post(
        &self,
        id: &str,
        body: &str,
        scrub: &(dyn Fn(String) -> String + Sync),
    ) -> Result<(Response<Bytes>, String), String> {
        let keys = self.keys.get().ok_or("there is no key to sign with")?;
        let scrub = |text: String| keys.redact(scrub(text));
        let request = self.request(&keys, id, body);
        let request = request.ok_or("the request could not be made")?;
        let deadline = clock::now() + self.timeout;
        match self.transport.post(request, deadline, MAX_REASON).await {
            Ok(answer) => {
                let said = reason(&answer, clock::wall(), &scrub);
                Ok((answer, said))
            }
            Err(TransportError::NotSent(why)) => Err(scrub(format!("no connection: {why}"))),
            Err(TransportError::Broken(why)) => Err(scrub(format!(
                "the connection broke before an answer came: {why}"
            ))),
            Err(TransportError::TimedOut) => Err("no answer within webhook.timeout".to_owned()),
        }
    }

    /// The request, signed as of now; `None` if the id cannot stand in a header.
    fn request(&self, keys: &Keys, id: &str, body: &str) -> Option<Request<Full<Bytes>>> {
        let timestamp = clock::unix_seconds();
        let signature = keys.sign(id, timestamp, body);
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        Request::post(self.target.0.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, AGENT)
            .header(ID, id)
            .header(TIMESTAMP, timestamp)
            .header(SIGNATURE, signature)
            .body(body)
            .ok()
    }
}

/// What an answer means for the message, with what it says about itself.
fn posted(answer: &Response<Bytes>, why: String) -> Posted {
    let status = answer.status();
    if status.is_success() {
        return Posted::Delivered;
    }
    if status == StatusCode::GONE {
        return Posted::Unwanted { why };
    }
    let retry_after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    Posted::Failed {
        why,
        retry_after: retry_after.and_then(clock::parse_retry_after),
    }
}

/// Most bytes that are read of an answer that is no success: more than is shown, so that no secret in it is cut in two
/// before it is looked for.
const MAX_REASON: usize = 16 * 1024;
/// Most characters of it that are shown.
const SHOWN: usize = 200;
/// Clocks that are further apart than this are worth a word: a receiver refuses a signature that is too old.
const CLOCKS_DIFFER: i64 = 60;

/// What an answer says about itself: its status, where it points to, its first characters, and how far
/// its clock is from ours.
fn reason(answer: &Response<Bytes>, now: Timestamp, scrub: &dyn Fn(String) -> String) -> String {
    let mut reason = format!("status {}", answer.status().as_u16());
    let header = |name| {
        answer
            .headers()
            .get(name)
            .map(|value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()))
    };
    if let Some(location) = header(LOCATION) {
        reason.push_str(&format!(
            ", Location {}",
            shown(&scrub(location.into_owned()))
        ));
    }
    let body = shown(&scrub(String::from_utf8_lossy(answer.body()).into_owned()));
    if !body.is_empty() {
        reason.push_str(&format!(": {body}"));
    }
    let date = header(DATE).and_then(|date| clock::parse_http_date(&date));
    let ahead = date.map_or(0, |date| date.as_second() - now.as_second());
    if ahead.abs() > CLOCKS_DIFFER {
        let (seconds, which) = (ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" });
        reason.push_str(&format!(" (the clock there is {seconds} s {which} ours)"));
    }
    reason
}

/// In one line, and not too long.
fn shown(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text::printable(&line).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let answer = |headers: &[(&str, &str)], body: &str| {
            let mut answer = Response::builder().status(500);
            for (name, value) in headers {
                answer = answer.header(*name, *value);
            }
            answer
                .body(Bytes::copy_from_slice(body.as_bytes()))
                .unwrap()
        };
        let reason = |answer: &Response<Bytes>, now| reason(answer, now, &|text| text);
        assert_eq!(reason(&answer(&[], ""), now), "status 500");
        let found = reason(
            &answer(&[("location", "/login")], " no\r\n\tsuch \u{7}\u{202e} key"),
            now,
        );
        assert_eq!(found, "status 500, Location /login: no such  key");
        let late = reason(
            &answer(&[("date", "Mon, 31 Dec 2029 23:58:00 GMT")], ""),
            now,
        );
        assert_eq!(late, "status 500 (the clock there is 120 s behind ours)");
        assert_eq!(
            reason(
                &answer(&[("date", "Tue, 01 Jan 2030 00:00:59 GMT")], ""),
                now
            ),
            "status 500"
        );
        assert_eq!(
            reason(&answer(&[], &"ü".repeat(1000)), now).chars().count(),
            "status 500: ".len() + SHOWN
        );
    }
}

//! Posts a webhook to the app: a signed POST, and what came of it.

mod sign;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use url::Url;

pub(crate) use self::sign::{Keys, fresh_key};
use crate::client::{Network, Transport, TransportError};
use crate::clock;
use crate::file::{Look, Watched};
use crate::text::{self, FilePath};

/// `[webhook]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Where the app is told of its payments; without it, it is not.
    #[serde(with = "text")]
    pub(crate) url: Option<Target>,
    /// The keys that sign, one a line. Required with `url`.
    #[serde(with = "text")]
    pub(crate) secret_file: Option<FilePath>,
    /// For one try.
    #[serde(with = "clock::text")]
    pub(crate) timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: None, secret_file: None, timeout: Duration::from_secs(15) }
    }
}

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
        uri.map(Self).map_err(|_| "the URL has characters that no request can have".to_owned())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What came of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// The app took it.
    Delivered,
    /// It did not, for this reason; and it may have said how long to wait.
    Failed { why: String, retry_after: Option<Duration> },
    /// It does not want it.
    Gone,
}

/// The way to the app.
pub(crate) struct Courier {
    target: Target,
    keys: Arc<Watched<Keys>>,
    network: Network,
    timeout: Duration,
}

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

impl Courier {
    /// To this target, signing with these keys as they are at the time.
    pub(crate) fn new(target: Target, keys: Arc<Watched<Keys>>, network: Network, timeout: Duration) -> Self {
        Self { target, keys, network, timeout }
    }

    /// The file of the keys, to look at for changes.
    pub(crate) fn keys(&self) -> Arc<dyn Look> {
        self.keys.clone()
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let failures = self.keys.failures.clone();
        registry.register("webhook_key_reload_failures", "Looks at the key file that found nothing usable", failures);
    }

    /// Posts it, once.
    pub(crate) async fn post(&self, id: &str, body: &str) -> Posted {
        let failed = |why: &str| Posted::Failed { why: why.to_owned(), retry_after: None };
        let Some(keys) = self.keys.get() else { return failed("there is no key to sign with") };
        let timestamp = clock::unix_seconds();
        let mut request = Request::post(self.target.0.clone());
        let signature = HeaderValue::try_from(keys.sign(id, timestamp, body));
        let (Some(headers), Ok(id), Ok(signature)) = (request.headers_mut(), HeaderValue::try_from(id), signature)
        else {
            return failed("the request could not be made");
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("tillgate/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ID, id);
        headers.insert(TIMESTAMP, HeaderValue::from(timestamp));
        headers.insert(SIGNATURE, signature);
        let Ok(request) = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))) else {
            return failed("the request could not be made");
        };
        // The head of the answer is all that counts: its body is not read.
        match self.network.send(request, clock::now() + self.timeout).await {
            Ok(answer) if answer.status().is_success() => Posted::Delivered,
            Ok(answer) if answer.status() == StatusCode::GONE => Posted::Gone,
            Ok(answer) => {
                let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                Posted::Failed {
                    why: format!("status {}", answer.status().as_u16()),
                    retry_after: retry_after.and_then(clock::parse_retry_after),
                }
            }
            Err(TransportError::NotSent(_)) => failed("no connection"),
            Err(TransportError::Broken(_)) => failed("the connection broke off"),
            Err(TransportError::TimedOut) => failed("no answer in time"),
        }
    }
}

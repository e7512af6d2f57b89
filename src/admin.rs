//! The operator's listener: probes, metrics, status. It reads and never does; it has no secret and no whole code.

mod figures;
mod fleet;
mod format;
mod history;
mod page;
mod plot;
mod snapshot;
mod sources;
mod status;
mod tables;

use std::convert::Infallible;
use std::sync::Arc;

use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use hyper::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, REFRESH, X_CONTENT_TYPE_OPTIONS};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tower::Service;
use url::form_urlencoded;

use self::history::{History, Hour, Point};
pub(crate) use self::snapshot::Rooms;
use self::sources::Sources;
use self::status::Status;
use crate::clock;
use crate::readiness::Readiness;
use crate::server::{self, Address, Body, Rejection};
use crate::telemetry;
use crate::text;

/// The default of `admin.address`, which `dev` uses too.
pub(crate) const DEFAULT_ADDRESS: Address = Address::Localhost(8701);

/// `[admin]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Where probes and scrapers find us.
    #[serde(with = "text::required")]
    pub(crate) address: Address,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: DEFAULT_ADDRESS,
        }
    }
}

/// The listener's answers. Clones share everything.
#[derive(Clone)]
pub(crate) struct Admin {
    sources: Arc<Sources>,
    /// Only programs of this machine reach it: then a foreign name is a trick (DNS rebinding).
    loopback: bool,
}

impl Admin {
    /// Serves the state of these.
    pub(crate) fn new(
        readiness: Readiness,
        registry: Registry,
        rooms: Rooms,
        loopback: bool,
    ) -> Self {
        let since = clock::now();
        let history = History::new(Point::new(since, &rooms.snapshot()));
        let sources = Sources {
            readiness,
            registry,
            rooms,
            history,
            since,
            started_at: clock::wall(),
        };
        Self {
            sources: Arc::new(sources),
            loopback,
        }
    }

    /// Remembers what the page shows of the last hour. Never returns.
    pub(crate) async fn keep_history(&self) {
        let mut next = self.sources.since;
        loop {
            next += history::EVERY;
            clock::sleep_until(next).await;
            let now = Point::new(clock::now(), &self.sources.rooms.snapshot());
            self.sources.history.keep(now);
        }
    }

    /// The listener as a service.
    pub(crate) fn service<B: Send + 'static>(
        self,
    ) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Unpin
    + Send
    + 'static {
        tower::service_fn(move |request: Request<B>| {
            let admin = self.clone();
            async move {
                let head = request.into_parts().0;
                Ok(finished(head.uri.path(), admin.answer(&head)))
            }
        })
    }

    /// Answers a request that is refused by its form.
    pub(crate) fn reject(&self, rejection: Rejection, head: &Parts) -> Response<Body> {
        let path = head.uri.path();
        let is_probe = matches!(path, "/livez" | "/readyz") || path.starts_with("/readyz/");
        let response = match rejection {
            // Whoever holds all the places must not make the process look dead, and be restarted for it.
            Rejection::Overloaded if is_probe => self.answer(head),
            _ => rejected(rejection),
        };
        finished(path, response)
    }

    fn answer(&self, head: &Parts) -> Response<Body> {
        if self.loopback && !is_from_here(head) {
            return text(
                StatusCode::FORBIDDEN,
                "403: not for browsers of other pages, and only under the name localhost\n",
            );
        }
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "405: use GET; there is nothing to do here\n",
            );
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match head.uri.path() {
            "/" => self.page(head.uri.query() != Some(page::STILL)),
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.ready(head.uri.query().unwrap_or_default()),
            "/metrics" => self.metrics(&head.headers),
            "/status" => self.status(),
            path => match path.strip_prefix("/readyz/") {
                Some(name) => self.check(name),
                None => text(
                    StatusCode::NOT_FOUND,
                    "404: there are /, /livez, /readyz?verbose, /readyz/NAME, /metrics and /status\n",
                ),
            },
        }
    }

    /// One of the checks as it is now. The store that replicas share may be away without making a replica unready.
    fn check(&self, name: &str) -> Response<Body> {
        let checks = self.sources.readiness.checks();
        let Some((name, ok)) = checks.iter().find(|(check, _)| *check == name) else {
            let names: Vec<_> = checks.iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            return text(
                StatusCode::NOT_FOUND,
                format!("404: the checks are {names}\n"),
            );
        };
        match (self.trouble(name), ok) {
            (Some(trouble), _) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")),
            (None, true) => text(StatusCode::OK, "ok\n"),
            (None, false) => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        }
    }

    /// What is the matter with a check that does not say all by itself.
    fn trouble(&self, name: &str) -> Option<String> {
        let (since, why) = self
            .sources
            .rooms
            .store
            .trouble()
            .filter(|_| name == "store")?;
        Some(format!("away {}s: {why}", since.as_secs()))
    }

    fn ready(&self, query: &str) -> Response<Body> {
        let ready = self.sources.readiness.is_ready();
        let mut body = String::new();
        if form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "verbose") {
            for (name, ok) in self.sources.readiness.checks() {
                let trouble = self.trouble(name);
                let state = match (&trouble, ok) {
                    (Some(trouble), _) => trouble,
                    (None, true) => "ok",
                    (None, false) => "not ready",
                };
                let sign = if ok { '+' } else { '-' };
                body.push_str(&format!("[{sign}]{name} {state}\n"));
            }
        }
        body.push_str(if ready { "ok\n" } else { "not ready\n" });
        text(
            if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            },
            body,
        )
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Body> {
        let accept = headers
            .get(ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .unwrap_or_default();
        let (kind, body) = if accept.contains("application/openmetrics-text") {
            (
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                telemetry::openmetrics(&self.sources.registry),
            )
        } else {
            (
                "text/plain; version=0.0.4; charset=utf-8",
                telemetry::prometheus(&self.sources.registry),
            )
        };
        let mut response = text(StatusCode::OK, body.unwrap_or_default());
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    fn status(&self) -> Response<Body> {
        let (status, _) = self.told();
        let mut response = text(
            StatusCode::OK,
            serde_json::to_string_pretty(&status).unwrap_or_default(),
        );
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn page(&self, refreshes: bool) -> Response<Body> {
        let (status, hour) = self.told();
        let mut response = text(StatusCode::OK, page::html(&status, &hour, refreshes));
        let headers = response.headers_mut();
        if refreshes {
            headers.insert(REFRESH, page::REFRESH.into());
        }
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        headers.insert(CONTENT_SECURITY_POLICY, page::POLICY.clone());
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }

    /// Everything as it is now, and the hour up to now.
    fn told(&self) -> (Status, Hour) {
        let now = self.sources.rooms.snapshot();
        let hour = self.sources.history.hour(Point::new(clock::now(), &now));
        (Status::new(&self.sources, now, &hour), hour)
    }
}

/// What every answer has.
fn finished(path: &str, mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Not at info: probes come every few seconds and say nothing.
    tracing::debug!(path, status = response.status().as_u16(), "admin request");
    response
}

/// Not a page of another site, and under a name that nobody else can give to this address. Without any name it is no
/// browser.
fn is_from_here(head: &Parts) -> bool {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let same_site = |site: &HeaderValue| site == "none" || site == "same-origin";
    let headers = &head.headers;
    let is_nameless = head.version == Version::HTTP_10 && !headers.contains_key(HOST);
    (is_nameless || server::is_local_host(headers))
        && !headers.contains_key(ORIGIN)
        && headers.get_all(SEC_FETCH_SITE).iter().all(same_site)
}

fn rejected(rejection: Rejection) -> Response<Body> {
    match rejection {
        Rejection::Overloaded => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "503: too many connections\n",
        ),
        Rejection::TooSlow => text(StatusCode::REQUEST_TIMEOUT, "408: too slow\n"),
        Rejection::Malformed(what) => text(
            StatusCode::BAD_REQUEST,
            format!("400: not a well-formed request: {what}\n"),
        ),
        _ => text(StatusCode::BAD_REQUEST, "400: not a well-formed request\n"),
    }
}

fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(server::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

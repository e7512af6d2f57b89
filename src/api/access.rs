//! What every request has: an id, its line in the log, and the headers of its answer.

use hyper::header::{
    CACHE_CONTROL, CONNECTION, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, Uri};

use super::problem::Problem;
use super::route::Route;
use crate::clock::{self, Instant};
use crate::random;
use crate::server::Body;
use crate::telemetry::{RequestId, Tally};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request from its head to its answer.
pub(super) struct Access {
    began: Instant,
    method: Method,
    pub(super) route: Route,
    pub(super) id: RequestId,
}

impl Access {
    pub(super) fn begin(method: &Method, uri: &Uri, headers: &HeaderMap) -> Self {
        Self {
            began: clock::now(),
            method: method.clone(),
            route: Route::of(uri.path()),
            id: request_id(headers),
        }
    }

    /// The answer as it goes out; it is logged, and an error is counted.
    pub(super) fn end(
        self,
        result: Result<Response<Body>, Problem>,
        is_draining: bool,
        refusals: &Tally,
    ) -> Response<Body> {
        let (method, id) = (self.method, self.id);
        let (mut response, error, outcome, detail) = match result {
            Ok(response) => (response, None, None, None),
            Err(problem) => {
                let problem = problem.of(self.route);
                let (error, outcome) = (problem.code.text(), problem.outcome_label());
                refusals.of(error).inc();
                let detail = problem
                    .is_ours_or_the_gateways()
                    .then(|| problem.detail.clone());
                (problem.render(&id), Some(error), outcome, detail)
            }
        };
        finish(response.headers_mut(), &id, is_draining);
        let (status, route) = (response.status().as_u16(), self.route.template());
        #[expect(clippy::cast_precision_loss, reason = "exact for centuries")]
        let duration_ms = (clock::now() - self.began).as_micros() as f64 / 1000.0;
        tracing::info!(%method, route, status, duration_ms, request_id = &*id, error, outcome, detail, "request");
        response
    }
}

/// What every answer has.
fn finish(headers: &mut HeaderMap, id: &str, is_draining: bool) {
    #[expect(
        clippy::expect_used,
        reason = "an id is made of letters, digits, dots, hyphens and underscores"
    )]
    headers.insert(
        REQUEST_ID,
        HeaderValue::from_str(id).expect("a header value"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if is_draining {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The caller's, if it is one that can stand in a log line as it is; else a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    let mut ids = headers.get_all(REQUEST_ID).iter();
    let (first, second) = (ids.next(), ids.next());
    let id = first
        .filter(|_| second.is_none())
        .and_then(|id| id.to_str().ok());
    let well_formed = |id: &&str| {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    id.filter(well_formed)
        .map_or_else(|| RequestId::new(&random::token(20)), RequestId::new)
}

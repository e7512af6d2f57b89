//! The merchant's API: HTTP in, for the app beside us.

mod auth;
mod config;
mod deliveries;
mod document;
mod events;
mod page;
mod payments;
mod problem;
mod route;
mod start;
mod stream;
mod waiter_limit;
mod waiting;
mod watch;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use hyper::header::{CACHE_CONTROL, CONNECTION, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Request, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tower::Service;

pub(crate) use self::auth::Tokens;
pub(crate) use self::config::{Config, DEFAULT_ADDRESS};
use self::document::Document;
use self::events::Events;
use self::page::Pages;
use self::problem::{ErrorCode, Problem};
use self::route::{Route, redelivered};
use self::waiter_limit::{Kind, WaiterLimit};
use self::waiting::Interruption;
use self::watch::Question;
use crate::file::ReloadableFile;
use crate::payment::WatchCode;
use crate::server::{Body, BoxError, ConnectionHandle, Rejection};
use crate::start::Starter;
use crate::store::{Payments, Store};
use crate::watch::StatusPoller;
use crate::webhook::Deliveries;
use crate::{clock, random};

/// The API and what is behind it. Clones share everything.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

struct Inner {
    starter: Starter,
    poller: StatusPoller,
    payments: Payments,
    deliveries: Deliveries,
    tokens: Option<Arc<ReloadableFile<Tokens>>>,
    /// Who gets in may see every code.
    lists: bool,
    waiters: WaiterLimit,
    max_body_bytes: usize,
    body_timeout: Duration,
    max_wait: Duration,
    draining: CancellationToken,
    pages: Pages,
    document: Document,
    refused: Family<Refused, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    error: &'static str,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Api {
    /// The API over these stories. With `tokens` every caller must show one; without, codes are listed only if `lists`.
    pub(crate) fn new(
        config: &Config,
        max_wait: Duration,
        starter: Starter,
        poller: StatusPoller,
        store: &Store,
        tokens: Option<Arc<ReloadableFile<Tokens>>>,
        lists: bool,
    ) -> Self {
        Self(Arc::new(Inner {
            starter,
            poller,
            payments: store.payments(),
            deliveries: Deliveries::new(store.outbox()),
            lists: lists || tokens.is_some(),
            tokens,
            waiters: WaiterLimit::new(config.limits().max_connections),
            max_body_bytes: config.max_body_bytes.get(),
            body_timeout: config.body_timeout,
            max_wait,
            draining: CancellationToken::new(),
            pages: Pages::new(),
            document: Document::default(),
            refused: Family::default(),
        }))
    }

    /// From here on every accepted request is answered with `draining`; who waits is answered now, and
    /// streams end.
    pub(crate) fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "refused",
            "Requests answered with an error, by its word",
            self.0.refused.clone(),
        );
        self.0.waiters.register(registry);
    }

    /// The API as a service.
    pub(crate) fn service<B>(
        self,
    ) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Unpin
    + Send
    + 'static
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
    {
        tower::service_fn(move |request| {
            let api = self.clone();
            // Each future that it goes through has room for it twice, where it came in and where it is kept: of a pointer
            // that is little, and as many wait as may be connected.
            let request = Box::new(request);
            async move { Ok(api.0.answer(request).await) }
        })
    }
}

impl Inner {
    /// One request: what every answer has, and its line in the log.
    async fn answer<B>(&self, request: Box<Request<B>>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin,
    {
        let began = clock::now();
        let method = request.method().clone();
        let route = Route::of(request.uri().path());
        let id = request_id(&request);
        // A bug in one request must not end the connection without an answer.
        let result = AssertUnwindSafe(self.route(route, request, &id))
            .catch_unwind()
            .await;
        let result = result.unwrap_or_else(|_| {
            Err(Problem::new(
                ErrorCode::Internal,
                "This is a bug in tillgate.",
            ))
        });
        let (mut response, error, outcome, detail) = match result {
            Ok(response) => (response, None, None, None),
            Err(problem) => {
                let problem = problem.of(route);
                let (code, outcome) = (problem.code.text(), problem.outcome_label());
                self.refused.get_or_create(&Refused { error: code }).inc();
                let detail = problem
                    .is_ours_or_the_gateways()
                    .then(|| problem.detail.clone());
                (problem.render(&id), Some(code), outcome, detail)
            }
        };
        let headers = response.headers_mut();
        #[expect(
            clippy::expect_used,
            reason = "an id is made of letters, digits, dots, hyphens and underscores"
        )]
        headers.insert(
            REQUEST_ID,
            HeaderValue::from_str(&id).expect("a header value"),
        );
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        if self.draining.is_cancelled() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let (status, route) = (response.status().as_u16(), route.template());
        #[expect(clippy::cast_precision_loss, reason = "exact for centuries")]
        let duration_ms = (clock::now() - began).as_micros() as f64 / 1000.0;
        tracing::info!(%method, route, status, duration_ms, request_id = id, error, outcome, detail, "request");
        response
    }

    async fn route<B>(
        &self,
        route: Route,
        request: Box<Request<B>>,
        id: &str,
    ) -> Result<Response<Body>, Problem>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin,
    {
        if let Some(rejection) = request.extensions().get::<Rejection>() {
            return Err((*rejection).into());
        }
        let unread = !request.body().is_end_stream();
        let refuse = |problem: Problem| if unread { problem.closing() } else { problem };
        let tokens = self.tokens.as_ref().map(|tokens| tokens.get());
        auth::check(request.headers(), tokens.as_ref().map(Option::as_deref)).map_err(refuse)?;
        if self.draining.is_cancelled() {
            return Err(refuse(Problem::draining()));
        }
        match (route, request.method()) {
            (Route::Start, &Method::POST) => {
                start::check_content(request.headers()).map_err(refuse)?;
                let key = start::key(request.headers()).map_err(refuse)?;
                let body = self
                    .read(request.into_body())
                    .await
                    .map_err(Problem::closing)?;
                start::start(&self.starter, &body, key).await
            }
            (Route::Watch, &Method::GET) => {
                let code = request
                    .uri()
                    .path()
                    .strip_prefix("/watch/")
                    .unwrap_or_default()
                    .parse::<WatchCode>();
                let code = code.map_err(|malformed| refuse(malformed.into()))?;
                let wait = Question::wait(request.uri().query(), self.max_wait).map_err(refuse)?;
                let interruption = self.interruption(&request);
                let question = Question {
                    code: &code,
                    headers: request.headers(),
                    wait,
                };
                if !question.wants_stream() {
                    return watch::watch(&self.poller, &question, &self.waiters, &interruption)
                        .await;
                }
                let slot = self.waiters.take(&Kind::STREAM).map_err(refuse)?;
                Ok(watch::stream(&self.poller, &question, id, interruption, slot).await)
            }
            (Route::Events | Route::Payments | Route::Deliveries, &Method::GET)
            | (Route::Redeliver, &Method::POST)
                if !self.lists =>
            {
                Err(refuse(Problem::token_required()))
            }
            (Route::Deliveries, &Method::GET) => deliveries::deliveries(
                &self.deliveries,
                &self.pages,
                request.uri().query().unwrap_or_default(),
            )
            .map_err(refuse),
            (Route::Redeliver, &Method::POST) => {
                let id = redelivered(request.uri().path()).unwrap_or_default();
                deliveries::redeliver(&self.deliveries, id)
                    .await
                    .map_err(refuse)
            }
            (Route::Events, &Method::GET) => {
                let slot = self.waiters.take(&Kind::EVENTS).map_err(refuse)?;
                let feed = self.poller.feed(watch::last_event(request.headers()));
                Ok(stream::response(
                    Events(feed),
                    self.interruption(&request),
                    slot,
                ))
            }
            (Route::Payments, &Method::GET) => payments::payments(
                &self.payments,
                &self.pages,
                request.uri().query().unwrap_or_default(),
            )
            .map_err(refuse),
            (Route::Document, &Method::GET) => self.document.answer(&self.starter),
            (Route::Start | Route::Redeliver, _) => {
                Err(refuse(Problem::method_not_allowed("POST")))
            }
            (
                Route::Watch
                | Route::Events
                | Route::Payments
                | Route::Deliveries
                | Route::Document,
                _,
            ) => Err(refuse(Problem::method_not_allowed("GET"))),
            (Route::Pay, _) => Err(refuse(Problem::new(
                ErrorCode::NotFound,
                "The pay page is the gateway's: send the payer to the pay_url that the start answered with.",
            ))),
            (Route::Nowhere, _) => Err(refuse(Problem::new(
                ErrorCode::NotFound,
                "There are POST /api/start_payment, GET /watch/{watch_code}, GET /events, GET /payments, GET /deliveries, POST /deliveries/{id}/redeliver and GET /openapi.json, which describes them.",
            ))),
        }
    }

    /// What may end the wait of this request.
    fn interruption<B>(&self, request: &Request<B>) -> Interruption {
        Interruption::new(
            self.draining.clone(),
            request.extensions().get::<ConnectionHandle>().cloned(),
        )
    }

    /// The whole body, within its size and time.
    async fn read<B>(&self, body: B) -> Result<Vec<u8>, Problem>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let too_large = || {
            let limit = self.max_body_bytes;
            Problem::new(
                ErrorCode::BodyTooLarge,
                format!("The body is over {limit} bytes (listen.max_body_bytes)."),
            )
        };
        if body.size_hint().lower() > self.max_body_bytes as u64 {
            return Err(too_large());
        }
        match clock::timeout(
            self.body_timeout,
            copied(Limited::new(body, self.max_body_bytes)),
        )
        .await
        {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(Problem::new(
                ErrorCode::BadRequest,
                "The body broke off, or is not framed as HTTP/1.1 has it (RFC 9112, section 7).",
            )),
            Err(_) => Err(Problem::new(
                ErrorCode::RequestTimeout,
                "The body did not come in time (listen.body_timeout).",
            )),
        }
    }
}

/// All of a body, copied: its pieces, if they were kept, would each hold on to the whole buffer that they came in, and a
/// body that comes byte by byte would cost many times its size.
async fn copied(
    mut body: impl HttpBody<Data = Bytes, Error = BoxError> + Unpin,
) -> Result<Vec<u8>, BoxError> {
    let mut copy = Vec::new();
    while let Some(frame) = body.frame().await {
        copy.extend_from_slice(frame?.data_ref().map_or(&[], Bytes::as_ref));
    }
    Ok(copy)
}

/// The caller's, if it is one that can stand in a log line as it is; else a new one.
fn request_id<B>(request: &Request<B>) -> String {
    let mut ids = request.headers().get_all(REQUEST_ID).iter();
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
        .map_or_else(|| random::token(20), ToOwned::to_owned)
}

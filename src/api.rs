//! The merchant's API: HTTP in, for the app beside us.

mod accept;
mod access;
mod auth;
mod body;
mod config;
mod deliveries;
mod document;
mod events;
mod fate;
mod page;
mod payments;
mod problem;
mod route;
mod start;
mod start_problem;
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
use hyper::body::Body as HttpBody;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::access::Access;
pub(crate) use self::auth::Tokens;
use self::body::BodyLimits;
pub(crate) use self::config::{Config, DEFAULT_ADDRESS};
use self::document::Document;
use self::events::Events;
use self::page::Pages;
use self::problem::{ErrorCode, Hint, Problem};
use self::route::{OF_A_STREAM, Route, redelivered};
use self::waiter_limit::{Kind, WaiterLimit};
use self::waiting::Interruption;
use self::watch::Question;
use crate::file::ReloadableFile;
use crate::server::{Body, BoxError, ConnectionHandle, Rejection};
use crate::start::Starter;
use crate::store::{Payments, Store, WriteFailed};
use crate::telemetry::{RequestId, Tally};
use crate::watch::StatusPoller;
use crate::webhook::Deliveries;

/// The API and what is behind it. Clones share everything.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

struct Inner {
    starter: Starter,
    poller: StatusPoller,
    payments: Payments,
    deliveries: Deliveries,
    tokens: Option<Arc<ReloadableFile<Tokens>>>,
    /// In `tillgate dev`, where all callers may see every code.
    dev: Option<Hint>,
    waiters: WaiterLimit,
    body_limits: BodyLimits,
    max_wait: Duration,
    draining: CancellationToken,
    pages: Pages,
    document: Document,
    /// Requests answered with an error.
    refusals: Tally,
}

impl Api {
    /// The API over these stories. With `tokens` every caller must show one; without, codes are listed only over a Unix
    /// socket, or in `dev`.
    pub(crate) fn new(
        config: &Config,
        max_wait: Duration,
        starter: Starter,
        poller: StatusPoller,
        store: &Store,
        tokens: Option<Arc<ReloadableFile<Tokens>>>,
        dev: Option<Hint>,
    ) -> Self {
        Self(Arc::new(Inner {
            starter,
            poller,
            payments: store.payments(),
            deliveries: Deliveries::new(store.outbox()),
            dev,
            tokens,
            waiters: WaiterLimit::new(config.limits().max_connections),
            body_limits: BodyLimits::new(config),
            max_wait,
            draining: CancellationToken::new(),
            pages: Pages::new(),
            document: Document::default(),
            refusals: Tally::new("error", &[]),
        }))
    }

    /// From here on every accepted request is answered with `draining`; who waits is answered now, and
    /// streams end.
    pub(crate) fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Requests answered with an error, by its code.
    pub(crate) fn refusals(&self) -> Tally {
        self.0.refusals.clone()
    }

    /// Callers who wait for a change, by the way they wait.
    pub(crate) fn waiters(&self) -> Tally<Gauge> {
        self.0.waiters.taken()
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "refused",
            "Requests answered with an error, by its word",
            self.0.refusals.metrics(),
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

    /// Answers a request that is refused by its form.
    pub(crate) fn reject(&self, rejection: Rejection, head: &Parts) -> Response<Body> {
        let access = Access::begin(&head.method, &head.uri, &head.headers);
        self.0.end(access, Err(rejection.into()))
    }
}

impl Inner {
    async fn answer<B>(&self, request: Box<Request<B>>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin,
    {
        let access = Access::begin(request.method(), request.uri(), request.headers());
        // A bug in one request must not end the connection without an answer.
        let id = &access.id;
        let result = AssertUnwindSafe(id.scope(self.route(access.route, request, id)))
            .catch_unwind()
            .await;
        let result = result.unwrap_or_else(|_| {
            Err(Problem::new(
                ErrorCode::Internal,
                "This is a bug in tillgate.",
            ))
        });
        self.end(access, result)
    }

    fn end(&self, access: Access, result: Result<Response<Body>, Problem>) -> Response<Body> {
        let result = result.map_err(|problem| {
            let problem = match self.dev {
                Some(hint) => problem.hinting(hint),
                None => problem,
            };
            problem.quoting(|text| self.starter.scrub(text))
        });
        access.end(result, self.draining.is_cancelled(), &self.refusals)
    }

    /// Who may not ask this, or not now, gets no further.
    fn admit<B>(&self, route: Route, request: &Request<B>) -> Result<(), Problem> {
        let tokens = self.tokens.as_ref().map(|tokens| tokens.get());
        let handle = request.extensions().get::<ConnectionHandle>();
        let is_unix = handle.is_some_and(ConnectionHandle::is_unix);
        let tokens = tokens.as_ref().map(Option::as_deref);
        auth::check(request.headers(), tokens, is_unix)?;
        if self.draining.is_cancelled() {
            return Err(Problem::draining());
        }
        let may_see_codes = is_unix || self.tokens.is_some() || self.dev.is_some();
        if route.names_codes() && route.takes(request.method()) && !may_see_codes {
            return Err(Problem::token_required());
        }
        Ok(())
    }

    /// Where replicas share a store, another one may know more: who asks for all of it waits until that is known here.
    async fn know_all(&self) -> Result<(), Problem> {
        let known = self.payments.up_to_date().await;
        known.map_err(|WriteFailed| Problem::store_away())
    }

    async fn route<B>(
        &self,
        route: Route,
        request: Box<Request<B>>,
        id: &RequestId,
    ) -> Result<Response<Body>, Problem>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin,
    {
        let unread = !request.body().is_end_stream();
        let refuse = |problem: Problem| if unread { problem.closing() } else { problem };
        self.admit(route, &request).map_err(refuse)?;
        if !route.takes(request.method()) {
            return Err(refuse(Problem::not_here(route)));
        }
        let resumes = watch::last_event(request.headers()).is_some();
        if route.is_about_all(resumes) {
            self.know_all().await.map_err(refuse)?;
        }
        let query = request.uri().query().unwrap_or_default();
        match route {
            Route::Start => {
                let key = start::check(request.headers()).map_err(refuse)?;
                let body = self.body_limits.read(request.into_body()).await;
                let body = body.map_err(Problem::closing)?;
                start::start(&self.starter, &self.poller, body, key).await
            }
            Route::Watch => {
                let code = watch::code(request.uri().path()).map_err(refuse)?;
                let is_head = request.method() == Method::HEAD;
                let wait = Question::wait(query, self.max_wait).map_err(refuse)?;
                let interruption = self.interruption(&request);
                let question = Question {
                    code: &code,
                    headers: request.headers(),
                    wait: wait.filter(|_| !is_head),
                };
                if !question.wants_stream() {
                    return watch::watch(&self.poller, &question, &self.waiters, &interruption)
                        .await;
                }
                if is_head {
                    return Err(refuse(Problem::method_not_allowed(OF_A_STREAM)));
                }
                let slot = self.waiters.take(Kind::STREAM).map_err(refuse)?;
                Ok(watch::stream(&self.poller, &question, id, interruption, slot).await)
            }
            Route::Events => {
                let slot = self.waiters.take(Kind::EVENTS).map_err(refuse)?;
                let feed = self.poller.feed(watch::last_event(request.headers()));
                let interruption = self.interruption(&request);
                Ok(stream::response(Events(feed), id, interruption, slot))
            }
            Route::Payments => {
                let headers = request.headers();
                let page = payments::payments(&self.payments, &self.pages, query, headers);
                page.await.map_err(refuse)
            }
            Route::Deliveries => {
                deliveries::deliveries(&self.deliveries, &self.pages, query).map_err(refuse)
            }
            Route::Redeliver => {
                let id = redelivered(request.uri().path()).unwrap_or_default();
                let done = deliveries::redeliver(&self.deliveries, id);
                done.await.map_err(refuse)
            }
            Route::Document => self.document.answer(&self.starter),
            Route::Pay | Route::Nowhere => Err(refuse(Problem::not_here(route))),
        }
    }

    /// What may end the wait of this request.
    fn interruption<B>(&self, request: &Request<B>) -> Interruption {
        Interruption::new(
            self.draining.clone(),
            request.extensions().get::<ConnectionHandle>().cloned(),
        )
    }
}

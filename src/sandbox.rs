//! The sandbox gateway: the API and the pages of the payment guide, with state in memory, no money, and faults on demand.
//!
//! Its secret is public: it is fixed, documented and shown on `/dev/api`.

mod calls;
mod control;
mod door;
mod fault;
mod grammar;
mod ledger;
mod pages;
mod reply;
mod request;
mod route;
mod shared;
mod spoil;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};

pub use self::fault::{Fault, Operation};
pub use self::grammar::FaultError;
use self::reply::{Reply, with};
use self::request::WayBack;
use self::route::Route;
use self::shared::Shared;
pub use self::spoil::Reset;
use crate::clock;
use crate::server::{Body, BoxError};

/// The default secret, a constant so that the tests of merchants can name it.
pub const DEFAULT_SECRET: &str = "sandbox_secret_not_worth_stealing";

/// How a sandbox is set up.
pub struct Options {
    /// The secret that a start must have.
    pub secret: String,
    /// The name of the merchant, which pages and statuses show.
    pub merchant: String,
    /// The time after its start at which a payment becomes paid; `None` leaves it to the payer.
    pub auto_complete: Option<Duration>,
    /// The faults. The first that fires on a call decides.
    pub faults: Vec<Fault>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            secret: DEFAULT_SECRET.to_owned(),
            merchant: "Sandbox Shop".to_owned(),
            auto_complete: None,
            faults: Vec::new(),
        }
    }
}

/// A handle on one sandbox; clones share its state.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

impl Sandbox {
    /// A sandbox without payments. It runs nothing in the background.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let Options {
            secret,
            merchant,
            auto_complete,
            faults,
        } = options;
        Sandbox(Arc::new(Shared::new(
            secret,
            merchant,
            auto_complete,
            faults,
        )))
    }

    /// Answers one request that came over a socket, on which a page in a browser may have sent it.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub(crate) async fn serve<B>(
        &self,
        request: Request<B>,
        is_loopback: bool,
    ) -> Result<Response<Body>, Reset>
    where
        B: hyper::body::Body + Send,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let is_guarded = Route::find(request.uri().path())
            .is_some_and(|route| door::is_guarded(&route, request.method()));
        if is_guarded && !door::is_from_here(request.headers(), is_loopback) {
            return Ok(not_from_here(request.headers()));
        }
        self.answer(request).await
    }

    /// Answers one request. With a `hang` fault this takes ten minutes.
    ///
    /// # Errors
    /// The connection is to be cut without an answer.
    pub async fn answer<B>(&self, request: Request<B>) -> Result<Response<Body>, Reset>
    where
        B: hyper::body::Body + Send,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let Some(route) = Route::find(head.uri.path()) else {
            return Ok(nothing_here(&head));
        };
        if !route
            .allowed()
            .split(", ")
            .any(|method| method == head.method.as_str())
        {
            return Ok(method_not_allowed(route.allowed()));
        }
        match route {
            Route::Start => self.0.count(Operation::Start).add(),
            Route::Watch(_) => self.0.count(Operation::Watch).add(),
            _ => {}
        }
        match request::read(body).await {
            Ok(body) => self.dispatch(route, &head, &body).await,
            Err(refusal) => Ok(refusal.into_response()),
        }
    }

    /// Answers a request that is refused by its form.
    pub(crate) fn reject() -> Response<Body> {
        Reply::message(StatusCode::BAD_REQUEST, "Not a well-formed request").into_response()
    }

    /// Returns how many calls of this kind have come, including those that a fault or a refusal ended.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.0.count(operation).count
    }

    /// Returns the most calls of this kind that came within any one second, wherever it begins.
    #[must_use]
    pub fn busiest_second(&self, operation: Operation) -> u64 {
        self.0.count(operation).busiest_second
    }

    /// Pays a payment. Returns false if the code is unknown.
    pub fn complete(&self, code: &str) -> bool {
        self.0.ledger().complete(code).is_some()
    }

    /// Replaces all faults.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        *self.0.faults() = faults;
    }
}

impl Sandbox {
    async fn dispatch(
        &self,
        route: Route<'_>,
        head: &Parts,
        body: &Bytes,
    ) -> Result<Response<Body>, Reset> {
        let posted = head.method == Method::POST;
        Ok(match route {
            Route::Start => {
                let echo = || ("received", String::from_utf8_lossy(body).into_owned());
                return self
                    .faulty(Operation::Start, || self.start(body), echo)
                    .await;
            }
            Route::Watch(watch_code) => {
                let echo = || ("note", format!("Asked on behalf of {}", self.0.secret));
                return self
                    .faulty(Operation::Watch, || self.watch(watch_code), echo)
                    .await;
            }
            Route::Pay(code) if posted => self.pay(code, &WayBack::find(body)),
            Route::Pay(code) => self.pay_page(code, &WayBack::find(query(head))),
            Route::Portal => {
                let faults = self.0.faults().len();
                let refreshes = head.uri.query() != Some(pages::STILL);
                pages::portal(
                    refreshes,
                    &self.0.merchant,
                    self.0.ledger().newest_first(),
                    faults,
                )
            }
            Route::DevApi => pages::dev_api(&self.0.secret, host(head)),
            Route::Faults if posted => match request::change(body) {
                Some(change) => control::change_faults(&self.0, &change, host(head)),
                None => control::replace_faults(&self.0, body).into_response(),
            },
            Route::Faults if wants_page(&head.headers) => {
                pages::faults(&self.0.faults(), host(head))
            }
            Route::Faults => control::list_faults(&self.0).into_response(),
            Route::Complete(code) => control::complete_now(&self.0, code).into_response(),
            Route::Calls => control::list_calls(&self.0).into_response(),
        })
    }

    /// Makes one call of the gateway's API, with the fault that hits it. The call takes effect first and is answered late or
    /// never, in the order in which a real gateway fails and which is hard to deal with.
    async fn faulty(
        &self,
        operation: Operation,
        call: impl FnOnce() -> Reply,
        echo: impl FnOnce() -> (&'static str, String),
    ) -> Result<Response<Body>, Reset> {
        let fault = Fault::fire(&mut self.0.faults(), operation);
        let Some(fault) = fault else {
            return Ok(call().into_response());
        };
        let reply = if fault.takes_effect() {
            call()
        } else {
            Reply::ok()
        };
        let echo = echo();
        if let Some(delay) = fault.delay {
            clock::sleep(delay).await;
        }
        match fault.kind {
            Some(kind) => reply.spoilt(kind, echo).await,
            None => Ok(reply.into_response()),
        }
    }

    fn start(&self, body: &[u8]) -> Reply {
        match request::start(body, &self.0.secret) {
            Ok(amount) => Reply::started(&self.0.ledger().start(amount)),
            Err(refusal) => refusal,
        }
    }

    fn watch(&self, watch_code: &str) -> Reply {
        match self.0.ledger().by_watch_code(watch_code) {
            Some(payment) => Reply::watched(payment, &self.0.merchant),
            None => Reply::message(StatusCode::NOT_FOUND, "Unknown watch code"),
        }
    }

    fn pay_page(&self, code: &str, back: &WayBack) -> Response<Body> {
        match self.0.ledger().by_code(code) {
            Some(payment) => pages::pay(payment, &self.0.merchant, back),
            None => pages::unknown_payment(),
        }
    }

    fn pay(&self, code: &str, back: &WayBack) -> Response<Body> {
        let mut ledger = self.0.ledger();
        let Some(payment) = ledger.complete(code) else {
            return pages::unknown_payment();
        };
        let page = pages::pay(payment, &self.0.merchant, back);
        match back {
            WayBack::To(redirect) => {
                let mut page = with(page, header::LOCATION, redirect.location.clone());
                *page.status_mut() = StatusCode::SEE_OTHER;
                page
            }
            WayBack::None | WayBack::Refused => page,
        }
    }
}

/// Returns a page for a browser, and a message for a program.
fn nothing_here(head: &Parts) -> Response<Body> {
    if wants_page(&head.headers) {
        pages::nothing_here()
    } else {
        Reply::message(
            StatusCode::NOT_FOUND,
            "Nothing here: GET /dev/api lists what there is",
        )
        .into_response()
    }
}

/// Returns the refusal of a page elsewhere.
fn not_from_here(headers: &HeaderMap) -> Response<Body> {
    if wants_page(headers) {
        pages::not_from_here()
    } else {
        Reply::message(
            StatusCode::FORBIDDEN,
            "Not for pages of another site (Origin or Sec-Fetch-Site was sent), and on loopback only under the name localhost, 127.0.0.1 or [::1] (Host)",
        )
        .into_response()
    }
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let refusal = Reply::message(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("This path takes {allowed}"),
    );
    with(
        refusal.into_response(),
        header::ALLOW,
        HeaderValue::from_static(allowed),
    )
}

fn query(head: &Parts) -> &[u8] {
    head.uri.query().unwrap_or_default().as_bytes()
}

/// Returns the host and port by which the caller reached the sandbox, for lines to paste into a shell. A Host field that a
/// shell could act on is not used.
fn host(head: &Parts) -> &str {
    let host = head
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let plain = |host: &&str| {
        host.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte))
    };
    host.filter(|host| !host.is_empty())
        .filter(plain)
        .unwrap_or("127.0.0.1:8081")
}

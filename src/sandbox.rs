//! A gateway to practise on: the payment guide's API and pages for real, with state in memory, no money behind it, and
//! faults on demand.
//!
//! It keeps no secret: its own is fixed, documented and shown on `/dev/api`.

mod calls;
mod fault;
mod ledger;
mod pages;
mod reply;
mod request;
mod route;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};

use crate::clock;
use crate::server::{Body, BoxError};
use calls::Calls;
pub use fault::{Fault, FaultError, Operation};
use ledger::Ledger;
use reply::{Reply, quoted, with};
use request::{Change, WayBack};
use route::Route;

/// Fixed, so that a merchant's tests can name it.
pub const DEFAULT_SECRET: &str = "sandbox_secret_not_worth_stealing";

/// How a sandbox is set up.
pub struct Options {
    /// What a start has to bring along.
    pub secret: String,
    /// The merchant's name, as payers and watchers see it.
    pub merchant: String,
    /// How long after its start a payment is paid by itself; None leaves it to the payer.
    pub auto_complete: Option<Duration>,
    /// The first that fires on a call decides.
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

struct Shared {
    secret: String,
    merchant: String,
    ledger: Mutex<Ledger>,
    faults: Mutex<Vec<Fault>>,
    starts: Mutex<Calls>,
    watches: Mutex<Calls>,
}

/// Instead of an answer: cut the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sandbox was told to cut this connection")]
pub struct Reset;

impl Sandbox {
    /// Empty, with nothing running in the background.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Sandbox(Arc::new(Shared {
            secret: options.secret,
            merchant: options.merchant,
            ledger: Mutex::new(Ledger::new(options.auto_complete)),
            faults: Mutex::new(options.faults),
            starts: Mutex::default(),
            watches: Mutex::default(),
        }))
    }

    /// Answers one request. With a `hang` fault it never returns.
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
            Route::Start => self.count(Operation::Start).add(),
            Route::Watch(_) => self.count(Operation::Watch).add(),
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

    /// How many calls of this kind reached the sandbox, also those that a fault or a refusal ended.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.count(operation).count
    }

    /// The most of them that came in any one second, not only in those of the clock.
    #[must_use]
    pub fn busiest_second(&self, operation: Operation) -> u64 {
        self.count(operation).busiest_second
    }

    /// Pays; false for a code that it does not know.
    pub fn complete(&self, code: &str) -> bool {
        self.ledger().complete(code).is_some()
    }

    /// Replaces all faults.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        *self.faults() = faults;
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
                let faults = self.faults().len();
                pages::portal(&self.0.merchant, self.ledger().newest_first(), faults)
            }
            Route::DevApi => pages::dev_api(&self.0.secret, host(head)),
            Route::Faults if posted => match request::change(body) {
                Some(change) => self.change_faults(&change, host(head)),
                None => self.replace_faults(body).into_response(),
            },
            Route::Faults if wants_page(head) => pages::faults(&self.faults(), host(head)),
            Route::Faults => self.list_faults().into_response(),
            Route::Complete(code) => self.complete_now(code).into_response(),
            Route::Calls => self.list_calls().into_response(),
        })
    }

    /// One call of the gateway's API, with the fault that hits it. It takes effect first and is answered late or
    /// never: that is the order in which a real gateway goes wrong, and the one that is hard to deal with.
    async fn faulty(
        &self,
        operation: Operation,
        call: impl FnOnce() -> Reply,
        echo: impl FnOnce() -> (&'static str, String),
    ) -> Result<Response<Body>, Reset> {
        let fault = Fault::fire(&mut self.faults(), operation);
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
            Ok(amount) => Reply::started(&self.ledger().start(amount)),
            Err(refusal) => refusal,
        }
    }

    fn watch(&self, watch_code: &str) -> Reply {
        match self.ledger().by_watch_code(watch_code) {
            Some(payment) => Reply::watched(payment, &self.0.merchant),
            None => Reply::message(StatusCode::NOT_FOUND, "Unknown watch code"),
        }
    }

    fn pay_page(&self, code: &str, back: &WayBack) -> Response<Body> {
        match self.ledger().by_code(code) {
            Some(payment) => pages::pay(payment, &self.0.merchant, back),
            None => pages::unknown_payment(),
        }
    }

    fn pay(&self, code: &str, back: &WayBack) -> Response<Body> {
        let mut ledger = self.ledger();
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

    fn complete_now(&self, code: &str) -> Reply {
        match self.ledger().complete(code) {
            Some(payment) => Reply::watched(payment, &self.0.merchant),
            None => Reply::message(StatusCode::NOT_FOUND, "Unknown payment code"),
        }
    }

    fn replace_faults(&self, body: &[u8]) -> Reply {
        match request::faults(body) {
            Ok(faults) => {
                self.set_faults(faults);
                self.list_faults()
            }
            Err(refusal) => refusal,
        }
    }

    /// For a person, who then sees what is set. One that has left the list meanwhile needs no removal.
    fn change_faults(&self, change: &Change, host: &str) -> Response<Body> {
        let mut faults = self.faults();
        match change {
            Change::Add(text) => match text.parse::<Fault>() {
                Ok(fault) => faults.push(fault),
                Err(error) => return pages::bad_fault(&faults, host, text, &error.to_string()),
            },
            Change::Remove(text) => {
                if let Some(found) = faults.iter().position(|fault| fault.to_string() == *text) {
                    faults.remove(found);
                }
            }
            Change::Clear => faults.clear(),
        }
        let mut seen = with(
            pages::faults(&faults, host),
            header::LOCATION,
            HeaderValue::from_static("/_sandbox/faults"),
        );
        *seen.status_mut() = StatusCode::SEE_OTHER;
        seen
    }

    fn list_faults(&self) -> Reply {
        let faults: Vec<_> = self
            .faults()
            .iter()
            .map(|fault| quoted(&fault.to_string()))
            .collect();
        Reply::ok().json("faults", format!("[{}]", faults.join(",")))
    }

    fn list_calls(&self) -> Reply {
        let [start, watch] = [Operation::Start, Operation::Watch].map(|operation| {
            let calls = self.count(operation);
            (calls.count, calls.busiest_second)
        });
        Reply::ok()
            .json("start", start.0.to_string())
            .json("watch", watch.0.to_string())
            .json(
                "busiest_second",
                format!(r#"{{"start":{},"watch":{}}}"#, start.1, watch.1),
            )
    }

    fn count(&self, operation: Operation) -> MutexGuard<'_, Calls> {
        let calls = match operation {
            Operation::Start => &self.0.starts,
            Operation::Watch => &self.0.watches,
        };
        calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.0.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page for a person, a message for a program.
fn nothing_here(head: &Parts) -> Response<Body> {
    if wants_page(head) {
        pages::nothing_here()
    } else {
        Reply::message(
            StatusCode::NOT_FOUND,
            "Nothing here: GET /dev/api tells what there is",
        )
        .into_response()
    }
}

fn wants_page(head: &Parts) -> bool {
    let accept = head
        .headers
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

/// The host and port by which the caller reached the sandbox, for lines to paste into a shell: nothing that a shell
/// would act on.
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

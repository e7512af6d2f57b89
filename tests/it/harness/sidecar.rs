//! The whole program in this process.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use tillgate::sandbox::{Fault, Operation, Options};

use super::answer::is_described;
use super::{Answer, ORDER, Stream, get, get_stream, post};
use crate::described::DOCUMENT;

/// The whole program without a socket. Dropping it checks that nothing is left behind.
pub struct Sidecar {
    inner: tillgate::app::Sidecar,
    /// It polls every open payment and posts to the app of its own accord: that is nothing which a test leaves behind.
    has_webhooks: bool,
}

impl Sidecar {
    /// With the defaults.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// With these settings.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::before(Options::default(), settings)
    }

    /// The same before a gateway of another kind.
    pub fn before(gateway: Options, settings: &[(&str, &str)]) -> Self {
        Self::build(settings, gateway, false)
    }

    /// As `tillgate dev` is: it lists codes.
    pub fn dev(settings: &[(&str, &str)]) -> Self {
        Self::build(settings, Options::default(), true)
    }

    fn build(settings: &[(&str, &str)], gateway: Options, dev: bool) -> Self {
        Self {
            inner: tillgate::app::Sidecar::new(settings, gateway, dev).expect("good settings"),
            has_webhooks: settings.iter().any(|(name, _)| *name == "webhook.url"),
        }
    }

    /// Sets what goes wrong at the gateway from here on, in the sandbox's words.
    pub fn faults(&self, faults: &[&str]) {
        self.inner.sandbox().set_faults(
            faults
                .iter()
                .map(|fault| fault.parse::<Fault>().expect("a fault"))
                .collect(),
        );
    }

    /// How many starts have reached the gateway.
    pub fn gateway_starts(&self) -> u64 {
        self.inner.sandbox().calls(Operation::Start)
    }

    /// How many watches have reached it.
    pub fn gateway_watches(&self) -> u64 {
        self.inner.sandbox().calls(Operation::Watch)
    }

    /// The most of them in any one second.
    pub fn gateway_busiest_second(&self) -> u64 {
        self.inner.sandbox().busiest_second(Operation::Watch)
    }

    /// The payer pays.
    pub fn pay(&self, code: &str) {
        assert!(self.inner.sandbox().complete(code), "no such payment");
    }

    /// `POST /api/start_payment` as a well-behaved caller sends it.
    pub async fn start(&self, body: impl Into<Bytes>) -> Answer {
        self.api(post("/api/start_payment", body)).await
    }

    /// A payment of 1000: its code and watch code.
    pub async fn started(&self) -> (String, String) {
        let answer = self.start(r#"{"amount": 1000}"#).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (
            answer.text("code").to_owned(),
            answer.text("watch_code").to_owned(),
        )
    }

    /// `GET /watch/{code}`
    pub async fn watch(&self, code: &str) -> Answer {
        self.api(get(&format!("/watch/{code}"))).await
    }

    /// The same with one more header.
    pub async fn watch_with(&self, code: &str, header: &str, value: &str) -> Answer {
        let mut request = get(&format!("/watch/{code}"));
        request.headers_mut().insert(
            header.parse::<hyper::header::HeaderName>().unwrap(),
            value.parse().unwrap(),
        );
        self.api(request).await
    }

    /// A stream of this path, from after the event of that id if there is one.
    pub async fn stream(&self, path: &str, last_event_id: Option<&str>) -> Stream {
        self.stream_of(get_stream(path, last_event_id)).await
    }

    /// The stream that answers any request.
    pub async fn stream_of(&self, request: Request<Full<Bytes>>) -> Stream {
        let target = request.uri().to_string();
        let (head, body) = self.inner.stream(request).await.into_parts();
        if let Err(fault) = DOCUMENT.head(&target, head.status.as_u16(), &head.headers) {
            panic!("openapi.json does not describe this answer to {target}: {fault}");
        }
        Stream {
            target,
            status: head.status.as_u16(),
            headers: head.headers,
            retry: String::new(),
            body: body.into_data_stream(),
            read: String::new(),
        }
    }

    /// From here on as after a SIGTERM.
    pub fn drain(&self) {
        self.inner.drain();
    }

    /// How many payments are polled in the background.
    pub fn followed(&self) -> usize {
        self.inner.followed()
    }

    /// Any request to the API; it and its answer must be as `/openapi.json` has them.
    pub async fn api(&self, request: Request<Full<Bytes>>) -> Answer {
        let (method, target, headers) = (
            request.method().clone(),
            request.uri().to_string(),
            request.headers().clone(),
        );
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer::of(
            self.inner
                .api(Request::from_parts(head, Full::new(body.clone())))
                .await,
        );
        let body = String::from_utf8_lossy(&body);
        let own = async || {
            let mut request = get("/openapi.json");
            *request.headers_mut() = headers.clone();
            Answer::of(self.inner.api(request).await)
        };
        is_described(&method, &target, &headers, &body, &answer, own).await;
        answer
    }

    /// `GET` on the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        Answer::of(self.inner.admin(get(path)).await)
    }

    /// The same with one more header.
    pub async fn admin_with(&self, path: &str, header: &str, value: &str) -> Answer {
        let mut request = get(path);
        request.headers_mut().insert(
            header.parse::<hyper::header::HeaderName>().unwrap(),
            value.parse().unwrap(),
        );
        Answer::of(self.inner.admin(request).await)
    }

    /// Lets this time pass, as in a running program, which remembers its last hour.
    pub async fn runs_for(&self, time: Duration) {
        let end = tokio::time::sleep(time);
        tokio::select! {
            () = self.inner.keep_history() => {}
            () = end => {}
        }
    }

    /// The value of a metric, as [`Answer::metric`] reads it.
    pub async fn metric(&self, name: &str) -> u64 {
        self.admin("/metrics").await.metric(name)
    }

    /// Waits until nothing is under way.
    pub async fn idle(&self) {
        self.inner.idle().await;
    }

    /// What a test must not leave: a start that costs money, and somebody who waits.
    fn left_behind(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.inner.is_starting() && !self.has_webhooks {
            left.push("a start under way".to_owned());
        }
        match self.inner.followed() {
            0 => {}
            _ if self.has_webhooks => {}
            followed => left.push(format!("{followed} payments that are polled")),
        }
        // Without the budget of the task, which may be spent by now.
        let metrics = tokio::task::unconstrained(self.inner.admin(get("/metrics")));
        let metrics = Answer::of(metrics.now_or_never().expect("nothing to wait for"));
        for kind in ["long_poll", "stream", "events"] {
            match metrics.metric(&format!("tillgate_waiters{{kind=\"{kind}\"}}")) {
                0 => {}
                waiters => left.push(format!("{waiters} waiters of the kind {kind}")),
            }
        }
        left
    }
}

impl Drop for Sidecar {
    /// Fails the test that leaves something behind. Nothing can be waited for here: a start whose caller has hung up is
    /// waited for with [`Sidecar::idle`] before. A poll that is under way when the last who waited leaves is nothing
    /// that is left: it ends by itself, and when polls begin is random.
    fn drop(&mut self) {
        // A test that fails already may leave everything as it is, and a second panic would abort the tests beside it.
        if std::thread::panicking() {
            return;
        }
        let left = self.left_behind();
        if left.is_empty() {
            return;
        }
        let message = format!("the test leaves something behind: {}", left.join(", "));
        if tokio::task::try_id().is_some() {
            // The runtime catches the panics of a task, and nobody may ask for its result.
            let _ = writeln!(std::io::stderr(), "{message}");
            std::process::abort();
        }
        panic!("{message}");
    }
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "leaves something behind: 1 payments that are polled, 1 waiters")]
async fn a_test_that_leaves_a_caller_waiting_fails() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    let _stream = sidecar.stream(&format!("/watch/{code}"), None).await;
    drop(sidecar);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "leaves something behind: a start under way")]
async fn a_test_that_leaves_a_start_under_way_fails() {
    let sidecar = Sidecar::new();
    sidecar.faults(&["start:delay=3s"]);
    assert!(sidecar.start(ORDER).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the reason of the test")]
async fn a_test_that_fails_and_leaves_something_behind_fails_for_its_own_reason() {
    let sidecar = Sidecar::new();
    sidecar.faults(&["start:delay=3s"]);
    assert!(sidecar.start(ORDER).now_or_never().is_none());
    panic!("the reason of the test");
}

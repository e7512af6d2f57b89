//! The whole program in one process and without a socket, over a sandbox gateway, or one that a test wrote.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use secrecy::SecretString;
use tower::ServiceExt;

use super::behind::{Behind, World};
use super::build::App;
use super::sweep::keep_sweeping;
use crate::config::{self, Environment, Source};
use crate::sandbox::{DEFAULT_SECRET, Options, Sandbox};
use crate::server::{Body, BoxError};

/// A sidecar and a gateway: everything is real but the sockets. For tests, also with paused time.
pub struct Sidecar {
    app: App,
    /// Asked by nobody where something else is in its place.
    sandbox: Sandbox,
}

impl Sidecar {
    /// Builds one with these settings, each a key and its value as a variable would have it; `dev` as the command is.
    ///
    /// # Errors
    /// What is wrong with the settings, all at once.
    pub fn new(
        settings: &[(&str, &str)],
        sandbox: Options,
        dev: bool,
    ) -> Result<Self, Vec<String>> {
        let sandbox = Sandbox::new(sandbox);
        let app = build(settings, Behind::Sandbox(sandbox.clone()), dev)?;
        Ok(Self { app, sandbox })
    }

    /// The same before a gateway and an app that a test wrote.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn within(
        settings: &[(&str, &str)],
        world: Arc<dyn World>,
        dev: bool,
    ) -> Result<Self, Vec<String>> {
        Ok(Self {
            app: build(settings, Behind::World(world), dev)?,
            sandbox: Sandbox::new(Options::default()),
        })
    }

    /// The gateway behind it.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Asks the API; gives the whole answer, which for a stream is there when the stream has ended.
    pub async fn api(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        whole(self.stream(request).await).await
    }

    /// Asks the API; gives the answer with a body that is still to come.
    pub async fn stream(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Response<UnsyncBoxBody<Bytes, BoxError>> {
        let Ok(answer) = self.app.api.clone().service().oneshot(request).await;
        answer
    }

    /// From here on as after a SIGTERM.
    pub fn drain(&self) {
        self.app.api.drain();
    }

    /// How many payments are polled in the background because somebody waits for them.
    #[must_use]
    pub fn followed(&self) -> usize {
        self.app.poller.followed()
    }

    /// Asks the admin listener; gives the whole answer.
    pub async fn admin(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let Ok(answer) = self.app.admin.clone().service().oneshot(request).await;
        whole(answer).await
    }

    /// Remembers what the status page shows of the last hour, as a running program does. Never returns.
    pub async fn keep_history(&self) {
        self.app.admin.keep_history().await;
    }

    /// Forgets now and then what has had its time, as a running program does. Never returns.
    pub async fn keep_sweeping(&self) {
        keep_sweeping(&self.app.store, self.app.config.start.idempotency_ttl).await;
    }

    /// Waits until everything is durable that has been handed to the store by now.
    pub async fn written(&self) {
        // An event without content, after all others.
        let _ = self.app.store.payments().answered(None).await;
    }

    /// Ends it as a SIGTERM does, once its callers are gone: waits for what is under way, and closes the store.
    pub async fn end(self) {
        self.app.api.drain();
        drop(self.app.dispatcher);
        self.app.tasks.idle().await;
        self.app.store.close().await;
    }

    /// Returns whether a start or a message to the app is under way.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        !self.app.tasks.is_idle()
    }

    /// Waits until nothing is under way any more.
    pub async fn idle(&self) {
        self.app.tasks.idle().await;
        self.app.poller.idle().await;
    }
}

fn build(settings: &[(&str, &str)], behind: Behind, dev: bool) -> Result<App, Vec<String>> {
    let mut given = vec![("gateway.url", "http://localhost:8081")];
    given.extend(settings);
    let source = Source::Given(&given, SecretString::from(DEFAULT_SECRET));
    let loaded = config::load(source, &Environment::empty()).map_err(|diagnostics| {
        diagnostics
            .into_iter()
            .map(|diagnostic| format!("{}: {}", diagnostic.key, diagnostic.what))
            .collect::<Vec<_>>()
    })?;
    App::build(loaded, behind, dev).map_err(|error| vec![error.to_string()])
}

async fn whole(answer: Response<Body>) -> Response<Bytes> {
    let (head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    Response::from_parts(head, body)
}

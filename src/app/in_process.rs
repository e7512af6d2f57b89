//! The whole program in one process and without a socket, over a sandbox gateway.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use secrecy::SecretString;
use tower::ServiceExt;

use super::behind::Behind;
use super::build::App;
use crate::config::{self, Environment, Source};
use crate::sandbox::{DEFAULT_SECRET, Options, Sandbox};
use crate::server::{Body, BoxError};

/// A sidecar and a sandbox gateway: everything is real but the sockets. For tests, also with paused time.
pub struct Sidecar {
    app: App,
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
        let mut given = vec![("gateway.url", "http://localhost:8081")];
        given.extend(settings);
        let source = Source::Given(&given, SecretString::from(DEFAULT_SECRET));
        let loaded = config::load(source, &Environment::empty()).map_err(|diagnostics| {
            diagnostics
                .into_iter()
                .map(|diagnostic| format!("{}: {}", diagnostic.key, diagnostic.what))
                .collect::<Vec<_>>()
        })?;
        let sandbox = Sandbox::new(sandbox);
        let app = App::build(loaded, Behind::Sandbox(sandbox.clone()), dev)
            .map_err(|error| vec![error.to_string()])?;
        Ok(Self { app, sandbox })
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

async fn whole(answer: Response<Body>) -> Response<Bytes> {
    let (head, body) = answer.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    Response::from_parts(head, body)
}

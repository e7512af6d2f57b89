//! The whole program in one process and without a socket, over a sandbox gateway.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use secrecy::SecretString;
use tower::ServiceExt;

use super::{App, Behind};
use crate::clock;
use crate::config::{self, Environment, Source};
use crate::gateway::{Sending, Transport, TransportError};
use crate::sandbox::{DEFAULT_SECRET, Options, Sandbox};
use crate::serve::Body;

/// A sidecar and a sandbox gateway: everything is real but the sockets. For tests, also with paused time.
pub struct Sidecar {
    app: App,
    sandbox: Sandbox,
}

impl Sidecar {
    /// Builds one with these settings, each a key and its value as a variable would have it.
    ///
    /// # Errors
    /// What is wrong with the settings, all at once.
    pub fn new(settings: &[(&str, &str)], sandbox: Options) -> Result<Self, Vec<String>> {
        let mut given = vec![("gateway.url", "http://localhost:8081")];
        given.extend(settings);
        let source = Source::Given(&given, SecretString::from(DEFAULT_SECRET));
        let loaded = config::load(source, &Environment::empty()).map_err(|faults| {
            faults.into_iter().map(|fault| format!("{}: {}", fault.key, fault.what)).collect::<Vec<_>>()
        })?;
        let sandbox = Sandbox::new(sandbox);
        Ok(Self { app: App::build(loaded, Behind::Sandbox(sandbox.clone()), false), sandbox })
    }

    /// The gateway behind it.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Asks the API; gives the whole answer.
    pub async fn api(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let Ok(answer) = self.app.api.clone().service().oneshot(request).await;
        whole(answer).await
    }

    /// Asks the admin listener; gives the whole answer.
    pub async fn admin(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let Ok(answer) = self.app.admin.clone().service().oneshot(request).await;
        whole(answer).await
    }

    /// Returns when nothing is under way any more, whoever asked for it.
    pub async fn idle(&self) {
        self.app.airport.idle().await;
    }
}

async fn whole(answer: Response<Body>) -> Response<Bytes> {
    let (head, body) = answer.into_parts();
    // Bodies of ours are there already.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Response::from_parts(head, body)
}

/// The sandbox in the place of the network.
pub(super) struct Gateway(pub(super) Sandbox);

impl Transport for Gateway {
    fn send(&self, request: Request<Full<Bytes>>, deadline: clock::Instant) -> Sending<'_> {
        Box::pin(async move {
            match clock::timeout_at(deadline, self.0.answer(request)).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(reset)) => Err(TransportError::Broken(reset.to_string())),
                Err(_) => Err(TransportError::TimedOut),
            }
        })
    }
}

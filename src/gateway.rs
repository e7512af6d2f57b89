//! The client of the gateway: two calls, in the terms of payments. Nothing above this room sees a status code of the
//! gateway, and nothing below it knows of payments.

mod config;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod inject;
mod metrics;
mod order;
mod read;
mod scrub;
mod tries;
mod url;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use ::url::Url;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use prometheus_client::registry::Registry;
use secrecy::SecretString;

pub(crate) use self::config::Config;
pub(crate) use self::error::{Error, GatewayMessage, Outcome};
use self::metrics::Metrics;
pub(crate) use self::metrics::{Calls, Snapshot};
pub(crate) use self::order::{Order, Started};
pub(crate) use self::scrub::scrub_keys;
use self::scrub::{Finders, Scrubber};
pub(crate) use self::tries::Tries;
pub(crate) use self::url::BaseUrl;
pub(crate) use crate::client::Sharing;
use crate::client::{Terms, Transport};
use crate::clock::{self, Instant};
use crate::payment::{Code, Report, WatchCode};
use crate::secret::Secret;
use crate::telemetry::RequestId;

/// Checks that a made-up secret is found in an answer, in each coding that is looked for.
///
/// # Errors
/// Says what is not found. The secret would reach callers then.
pub(crate) fn prove_scrubbing() -> Result<(), String> {
    scrub::prove().map_err(|coding| {
        format!("a bug in tillgate: it would not find the merchant secret in an answer as {coding}")
    })
}

/// A client of the gateway.
pub(crate) struct Gateway {
    url: BaseUrl,
    public_url: BaseUrl,
    timeout: Duration,
    retries: u32,
    max_response_bytes: usize,
    secret: Secret,
    finders: Finders,
    transport: Arc<dyn Transport>,
    metrics: Metrics,
}

impl Gateway {
    /// A client for the gateway at `url`.
    pub(crate) fn new(
        config: &Config,
        url: BaseUrl,
        secret: Secret,
        transport: Arc<dyn Transport>,
    ) -> Self {
        Self {
            public_url: config.public_url.clone().unwrap_or_else(|| url.clone()),
            url,
            timeout: config.timeout,
            retries: config.retries,
            max_response_bytes: config.max_response_bytes.get(),
            secret,
            finders: Finders::default(),
            transport,
            metrics: Metrics::default(),
        }
    }

    /// Starts a payment. Repeats the request only if no byte of it left, and once if the gateway refused a secret that has
    /// been replaced since.
    ///
    /// # Errors
    /// [`Error::outcome`] says whether the gateway may have started a payment whose code is lost.
    pub(crate) async fn start(&self, order: &Order) -> Result<Started, Error> {
        let mut tries = self.tries()?;
        let mut looked_again = false;
        loop {
            // Read as late as possible, and for this try alone.
            let secret = self.secret.now().ok_or(Error::SecretUnavailable)?;
            match self.start_once(order, &secret, tries.deadline).await {
                Err(error @ Error::Unreachable(_)) => tries.again_after(error).await?,
                Err(error @ Error::RefusedSecret(_)) => {
                    let look = self.secret.is_replaced(&secret);
                    // A read on a mount that hangs must not outlast the deadline of the call.
                    if looked_again
                        || !clock::timeout_at(tries.deadline, look)
                            .await
                            .unwrap_or(false)
                    {
                        return Err(error);
                    }
                    looked_again = true;
                }
                settled => return settled,
            }
        }
    }

    async fn start_once(
        &self,
        order: &Order,
        secret: &Arc<SecretString>,
        deadline: Instant,
    ) -> Result<Started, Error> {
        let request = wire::post(&self.url, "/api/start_payment", inject::body(secret, order));
        let terms = self.terms(deadline, Sharing::Own);
        self.exchange("start", request, terms, Some(secret), |answer, _| {
            wire::started(answer)
        })
        .await
    }

    /// Returns whether there is a secret. Without one the gateway is not even asked for a status: the secret could not be
    /// removed from the answer, which is stored and may be final.
    pub(crate) fn has_secret(&self) -> bool {
        self.secret.now().is_some()
    }

    /// Asks for the status of a payment once. The caller repeats it, with [`Tries`] and a permit for each try. Returns the
    /// kind of connection that the answer came on too.
    ///
    /// # Errors
    /// [`Error::UnknownCode`] if the gateway does not know the payment. After any other error its status is unknown.
    pub(crate) async fn status(
        &self,
        code: &WatchCode,
        deadline: Instant,
        connection: Sharing,
    ) -> Result<(Report, Sharing), Error> {
        let request = wire::get(&self.url, &format!("/watch/{code}"));
        let terms = self.terms(deadline, connection);
        let meaning = |answer, came_on| Ok((wire::report(code, answer)?, came_on));
        self.exchange("watch", request, terms, None, meaning).await
    }

    fn terms(&self, deadline: Instant, connection: Sharing) -> Terms {
        Terms {
            deadline,
            max_bytes: self.max_response_bytes,
            connection,
        }
    }

    /// Returns the tries of a call that begins now.
    ///
    /// # Errors
    /// [`Error::SecretUnavailable`] while there is no secret.
    pub(crate) fn tries(&self) -> Result<Tries, Error> {
        if self.has_secret() {
            Ok(Tries::new(self.retries, self.timeout))
        } else {
            Err(Error::SecretUnavailable)
        }
    }

    /// Returns the time limit of a call, with all its repeats.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the URL of the page on which this payment is paid.
    pub(crate) fn pay_url(&self, code: &Code, redirect: Option<&Url>) -> String {
        // Everything but RFC 3986's unreserved characters.
        const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
            .remove(b'-')
            .remove(b'.')
            .remove(b'_')
            .remove(b'~');
        match redirect {
            None => format!("{}/pay/{code}", self.public_url),
            Some(url) => {
                format!(
                    "{}/pay/{code}?redirect={}",
                    self.public_url,
                    utf8_percent_encode(url.as_str(), COMPONENT)
                )
            }
        }
    }

    /// Removes the secret from a text that did not come in an answer of the gateway.
    pub(crate) fn scrub(&self, text: String) -> String {
        self.scrubber(None).text(text)
    }

    /// Returns what removes the secret from an answer.
    fn scrubber(&self, sent: Option<&Arc<SecretString>>) -> Scrubber {
        let mut secrets = self.secret.ever_held();
        // The secret that was sent may have been replaced since, and more often than old ones are kept.
        if let Some(sent) = sent
            && !secrets.iter().any(|held| Arc::ptr_eq(held, sent))
        {
            secrets.push(sent.clone());
        }
        self.finders.scrubber(&secrets)
    }

    /// What has come of its calls up to now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.metrics.snapshot(&self.secret)
    }

    /// Registers the metrics of this room.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        self.secret.register(registry);
    }

    /// Makes one try: sends the request, removes the secret from the answer, and interprets the rest by `meaning`.
    async fn exchange<T>(
        &self,
        operation: &'static str,
        request: Request<Full<Bytes>>,
        terms: Terms,
        sent: Option<&Arc<SecretString>>,
        meaning: impl FnOnce(wire::Scrubbed, Sharing) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let began = clock::now();
        let answer = wire::exchange(&*self.transport, request, terms).await;
        let scrubber = self.scrubber(sent);
        let result = match answer {
            Ok(answer) => {
                let came_on = answer.connection;
                meaning(answer.scrubbed(&scrubber), came_on)
            }
            Err(error) => Err(error.map_words(|words| scrubber.text(words))),
        };
        if scrubber.has_found() {
            self.metrics.echoes.inc();
            tracing::error!(
                operation,
                request_id = RequestId::current().as_deref(),
                "the gateway echoed the merchant secret; it was taken out of the answer"
            );
        }
        self.metrics
            .observe(operation, began, result.as_ref().err());
        result
    }
}

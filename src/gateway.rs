//! The way to the gateway: two calls, in the words of payments. Nothing above this room knows a status code of the
//! gateway's, and nothing below it knows a payment.

mod config;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod inject;
mod metrics;
mod read;
mod scrub;
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
use self::error::BadAnswer;
pub(crate) use self::error::{Error, GatewayMessage, Outcome};
use self::metrics::Metrics;
pub(crate) use self::metrics::{Calls, Snapshot};
use self::scrub::Scrubber;
pub(crate) use self::url::BaseUrl;
pub(crate) use crate::client::Sharing;
use crate::client::{Terms, Transport};
use crate::clock::{self, Instant};
use crate::json::Object;
use crate::payment::{Amount, Code, Report, WatchCode};
use crate::random;
use crate::secret::Secret;
use crate::telemetry::RequestId;

/// What a payment is started with.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Within the bounds of the configuration.
    pub(crate) amount: Amount,
    /// Further fields that the operator lets through; never one of those that this program sets.
    pub(crate) extra: Object,
}

/// A start that the gateway took.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    /// For the pay page.
    pub(crate) code: Code,
    /// For its status.
    pub(crate) watch_code: WatchCode,
    /// The gateway's object as it came, scrubbed.
    pub(crate) answer: Object,
}

/// The gateway.
pub(crate) struct Gateway {
    url: BaseUrl,
    public_url: BaseUrl,
    timeout: Duration,
    retries: u32,
    max_response_bytes: usize,
    secret: Secret,
    transport: Arc<dyn Transport>,
    metrics: Metrics,
}

/// The tries of one call: how many are left, and until when.
pub(crate) struct Tries {
    left: u32,
    backoff: Duration,
    /// When the call is over, whatever is left.
    pub(crate) deadline: Instant,
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
            transport,
            metrics: Metrics::default(),
        }
    }

    /// Starts a payment. Sent again only when the gateway surely did not get it, and once more with the new secret
    /// when the gateway refused one that has changed since.
    ///
    /// # Errors
    /// Each says whether the gateway may have started a payment that nobody has the code of.
    pub(crate) async fn start(&self, order: &Order) -> Result<Started, Error> {
        let mut tries = self.tries()?;
        let mut looked_again = false;
        loop {
            // Read as late as possible, for this try alone.
            let secret = self.secret.now().ok_or(Error::SecretUnavailable)?;
            match self.start_once(order, &secret, tries.deadline).await {
                Err(error @ Error::Unreachable(_)) => tries.again_after(error).await?,
                Err(error @ Error::RefusedSecret(_)) => {
                    let look = self.secret.is_replaced(&secret);
                    // A file on a mount that hangs is not waited for longer than the gateway itself would be.
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

    /// Whether there is a secret. Without one nothing is asked for, not even what it is not sent with: it could not be
    /// taken out of the answer, which is kept, and may be final.
    pub(crate) fn has_secret(&self) -> bool {
        self.secret.now().is_some()
    }

    /// Asks for the status of a payment, once: [`Tries`] and the turn for each of them are the caller's.
    ///
    /// # Errors
    /// `UnknownCode` when the gateway does not know it; otherwise it is not known what the gateway would say.
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

    /// A new call's tries.
    ///
    /// # Errors
    /// `SecretUnavailable` while there is no secret.
    pub(crate) fn tries(&self) -> Result<Tries, Error> {
        let deadline = clock::now() + self.timeout;
        let tries = Tries {
            left: self.retries,
            backoff: Duration::from_millis(100),
            deadline,
        };
        if self.has_secret() {
            Ok(tries)
        } else {
            Err(Error::SecretUnavailable)
        }
    }

    /// Where the payer of this payment goes.
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

    /// The same text without the secret: for what others than the gateway say.
    pub(crate) fn scrub(&self, text: String) -> String {
        Scrubber::new(self.secret.ever_held()).text(text)
    }

    /// What has come of its calls up to now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.metrics.snapshot(&self.secret)
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        self.secret.register(registry);
    }

    /// One try: sends, reads, takes the secret out, and reads what is left.
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
        // What was sent is looked for in any case, whatever has taken its place meanwhile.
        let secrets = self
            .secret
            .ever_held()
            .into_iter()
            .chain(sent.cloned())
            .collect();
        let scrubber = Scrubber::new(secrets);
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

impl Tries {
    /// Waits before the next try.
    ///
    /// # Errors
    /// The error itself, when no try is left.
    pub(crate) async fn again_after(&mut self, error: Error) -> Result<(), Error> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(error);
        };
        self.left = left;
        let pause = random::jitter(self.backoff);
        self.backoff *= 2;
        if clock::now() + pause >= self.deadline {
            return Err(error);
        }
        clock::sleep(pause).await;
        Ok(())
    }
}

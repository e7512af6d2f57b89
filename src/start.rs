//! Starting a payment: parse, admit, send, remember, reply.

mod config;
#[cfg(fuzzing)]
pub mod fuzz;
mod quoted;
mod redirect;
mod request;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub(crate) use self::config::Config;
pub(crate) use self::redirect::{Allowed, Config as RedirectConfig};
pub(crate) use self::request::{BadRequest, Bounds, Request};
use crate::gateway::{self, Gateway, Order, Outcome};
use crate::json::{Json, Object};
use crate::limit::{Limiter, Refused};
use crate::payment::{Amount, IdempotencyKey, Payment};
use crate::store::{Claim, Claimed, Keys, Payments, Store, WriteFailed};
use crate::tasks::SharedTasks;
use crate::telemetry::{Counts, RequestId, Tally};
use crate::{clock, telemetry};

/// Why there is no payment to show.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Too many; nothing was sent.
    #[error("too many starts")]
    RateLimited {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The gateway, or the way to it.
    #[error(transparent)]
    Gateway(#[from] gateway::Error),
    /// The key was used for another start.
    #[error("this key was used for another start")]
    Mismatch,
    /// As many keys are alive as there may be.
    #[error("too many live keys")]
    NoRoomForKey,
    /// The payment cannot be kept, or could not be.
    #[error("the store has no room, or could not be written")]
    WriteFailed {
        /// The gateway may have started one.
        sent: bool,
    },
    /// A bug of ours: what the gateway did is not known.
    #[error("the start crashed")]
    Crashed,
}

/// The body of an answer.
type Started = Result<Arc<str>, Error>;

/// What a caller gets of a payment that was started.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The gateway's object, and where the payer goes, as JSON.
    pub(crate) body: Arc<str>,
    /// Another request with the same key started it.
    pub(crate) is_replayed: bool,
}

/// Starts payments. Clones share everything.
#[derive(Clone)]
pub(crate) struct Starter(Arc<Inner>);

struct Inner {
    bounds: Bounds,
    limiter: Limiter,
    gateway: Arc<Gateway>,
    keys: Keys<Started>,
    payments: Payments,
    tasks: SharedTasks,
    metrics: Metrics,
}

impl Starter {
    /// Starts payments at this gateway; each goes into the store before anybody hears of it.
    pub(crate) fn new(
        config: &Config,
        allowed: Allowed,
        gateway: Arc<Gateway>,
        store: &Store,
        tasks: SharedTasks,
    ) -> Self {
        Self(Arc::new(Inner {
            bounds: Bounds::new(config, allowed),
            limiter: Limiter::new(config.rate, config.burst, config.queue_for),
            gateway,
            keys: store.keys(),
            payments: store.payments(),
            tasks,
            metrics: Metrics::default(),
        }))
    }

    /// Reads what a caller sent.
    ///
    /// # Errors
    /// The first thing that is wrong with it; nothing was sent, and no turn was used.
    pub(crate) fn parse(&self, body: &[u8]) -> Result<Request, BadRequest> {
        // What is wrong may be the secret, in the wrong field.
        Request::parse(body, &self.0.bounds)
            .map_err(|bad| bad.scrubbed(|text| self.0.gateway.scrub(text)))
    }

    /// What a start may be.
    pub(crate) fn bounds(&self) -> &Bounds {
        &self.0.bounds
    }

    /// Starts the payment; with a key, once: who asks for the same again gets the same answer, and whoever asks while
    /// it is under way waits for it too. It goes on when the caller stops waiting.
    ///
    /// # Errors
    /// Each knows its [`Outcome`]. After an error the key is free again: nobody has heard of a payment.
    pub(crate) async fn start(
        &self,
        request: Request,
        key: Option<IdempotencyKey>,
    ) -> Result<Reply, Error> {
        let key = key.map(|key| (key, request.fingerprint()));
        let (task, is_replayed) = match self.0.keys.claim(key) {
            Claim::Fresh(claimed, task) => {
                self.launch(request, claimed);
                (task, false)
            }
            Claim::InFlight(task) => (task, true),
            Claim::Answered(body) => {
                return Ok(Reply {
                    body,
                    is_replayed: true,
                });
            }
            Claim::Mismatch => return Err(Error::Mismatch),
            Claim::Full => return Err(Error::NoRoomForKey),
        };
        let body = task.result().await.unwrap_or(Err(Error::Crashed))?;
        Ok(Reply { body, is_replayed })
    }

    fn launch(&self, request: Request, claimed: Claimed<Started>) {
        let inner = self.0.clone();
        self.0.tasks.detach(RequestId::keep(async move {
            let began = clock::now();
            // A crash is an end too: it is counted, and frees the key.
            let result = AssertUnwindSafe(inner.start(request, &claimed))
                .catch_unwind()
                .await
                .unwrap_or(Err(Error::Crashed));
            inner.metrics.observe(clock::now() - began, &result);
            claimed.finish(result);
        }));
    }

    /// What has become of the starts up to now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            by_outcome: self.0.metrics.outcomes.counts(),
            rate_limited: self.0.metrics.rate_limited.get(),
        }
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let metrics = &self.0.metrics;
        registry.register(
            "starts",
            "Starts that were well-formed, by how they ended",
            metrics.outcomes.metrics(),
        );
        registry.register_with_unit(
            "start_duration",
            "How long they took, waiting included",
            telemetry::SECONDS,
            metrics.duration.clone(),
        );
        registry.register(
            "rate_limited",
            "Starts refused by start.rate",
            metrics.rate_limited.clone(),
        );
    }
}

impl Inner {
    async fn start(&self, request: Request, claimed: &Claimed<Started>) -> Started {
        let Request {
            amount,
            redirect,
            extra,
        } = request;
        self.limiter
            .admit()
            .await
            .map_err(|Refused { retry_after }| Error::RateLimited { retry_after })?;
        self.payments
            .has_room()
            .map_err(|WriteFailed| Error::WriteFailed { sent: false })?;
        let _starting = self.payments.starting();
        let gateway::Started {
            code,
            watch_code,
            answer,
        } = self.gateway.start(&Order { amount, extra }).await?;
        let redirect = redirect.as_ref().or(self.bounds.allowed.default_url());
        let pay_url = self.gateway.pay_url(&code, redirect);
        let body: Arc<str> = Json::Object(with_pay_url(answer, pay_url))
            .to_string()
            .into();
        let payment = Payment {
            code: code.clone(),
            watch_code,
            amount,
        };
        self.payments
            .started(payment, claimed.answer(&body))
            .await
            .map_err(|WriteFailed| Error::WriteFailed { sent: true })?;
        tracing::info!(%code, %amount, request_id = RequestId::current().as_deref(), "payment started");
        Ok(body)
    }
}

/// The gateway's object as it came, and where the payer goes.
fn with_pay_url(mut answer: Object, pay_url: String) -> Object {
    answer.retain(|(name, _)| name != "pay_url");
    answer.push(("pay_url".to_owned(), Json::Text(pay_url)));
    answer
}

impl Error {
    /// Whether the gateway may have started a payment.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::RateLimited { .. }
            | Self::Mismatch
            | Self::NoRoomForKey
            | Self::WriteFailed { sent: false } => Outcome::NotSent,
            Self::Gateway(error) => error.outcome(),
            Self::Crashed | Self::WriteFailed { sent: true } => Outcome::Unknown,
        }
    }
}

/// The smallest that is allowed: `check --start` proves the secret with it.
pub(crate) fn smallest_order(config: &Config) -> Order {
    Order {
        amount: Amount::new(config.min_amount),
        extra: Object::new(),
    }
}

/// The outcome of a start that has a payment.
const ACCEPTED: &str = "accepted";

/// What has become of the starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) by_outcome: Counts,
    /// Refused by `start.rate`.
    pub(crate) rate_limited: u64,
}

struct Metrics {
    outcomes: Tally,
    duration: Histogram,
    rate_limited: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let [rejected, not_sent, unknown] =
            [Outcome::Rejected, Outcome::NotSent, Outcome::Unknown].map(Outcome::label);
        Self {
            outcomes: Tally::new("outcome", &[ACCEPTED, rejected, not_sent, unknown]),
            duration: Histogram::new(telemetry::LATENCY_BUCKETS),
            rate_limited: Counter::default(),
        }
    }
}

impl Metrics {
    fn observe(&self, took: Duration, result: &Started) {
        let outcome = match result {
            Ok(_) => ACCEPTED,
            Err(error) => error.outcome().label(),
        };
        if let Err(Error::RateLimited { .. }) = result {
            self.rate_limited.inc();
        }
        self.outcomes.of(outcome).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

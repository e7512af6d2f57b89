//! Starting a payment: parse, admit, send, remember, reply.

#[cfg(fuzzing)]
pub mod fuzz;
mod redirect;
mod request;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

pub(crate) use self::redirect::{Allowed, Config as RedirectConfig};
pub(crate) use self::request::{BadRequest, Bounds, Request};
use crate::gateway::{self, Gateway, Order, Outcome, Started};
use crate::json::{Json, Object};
use crate::limit::{Limiter, Rate, Refused};
use crate::payment::{Amount, Fingerprint, IdempotencyKey, Payment};
use crate::store::{Store, WriteFailed};
use crate::tasks::{SharedTask, SharedTasks};
use crate::{clock, telemetry};

/// `[start]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Starts per second.
    pub(crate) rate: Rate,
    /// Starts at once.
    pub(crate) burst: NonZeroU32,
    /// The longest that a start waits for its turn.
    #[serde(with = "clock::text")]
    pub(crate) queue_for: Duration,
    /// Smallest amount.
    pub(crate) min_amount: u64,
    /// Largest amount.
    pub(crate) max_amount: u64,
    /// Names of further request fields that are passed on to the gateway.
    pub(crate) forward_fields: Vec<request::FieldName>,
    /// How long an answer is kept under its key, and a finished payment in the list.
    #[serde(with = "clock::text")]
    pub(crate) idempotency_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rate: Rate(10.0),
            #[expect(clippy::unwrap_used, reason = "20 is not zero")]
            burst: NonZeroU32::new(20).unwrap(),
            queue_for: Duration::from_secs(2),
            min_amount: 1,
            // The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
            max_amount: (1 << 53) - 1,
            forward_fields: Vec::new(),
            idempotency_ttl: Duration::from_secs(24 * 3600),
        }
    }
}

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

type Running = HashMap<IdempotencyKey, (Fingerprint, SharedTask<Result<Arc<str>, Error>>)>;

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
    store: Arc<Store>,
    tasks: SharedTasks,
    /// By key: what is asked for, and the start that is under way.
    running: Mutex<Running>,
    metrics: Metrics,
}

impl Starter {
    /// Starts payments at this gateway; each goes into the store before anybody hears of it.
    pub(crate) fn new(
        config: &Config,
        allowed: Allowed,
        gateway: Arc<Gateway>,
        store: Arc<Store>,
        tasks: SharedTasks,
    ) -> Self {
        Self(Arc::new(Inner {
            bounds: Bounds::new(config, allowed),
            limiter: Limiter::new(config.rate, config.burst, config.queue_for),
            gateway,
            store,
            tasks,
            running: Mutex::default(),
            metrics: Metrics::default(),
        }))
    }

    /// Reads what a caller sent.
    ///
    /// # Errors
    /// The first thing that is wrong with it; nothing was sent, and no turn was used.
    pub(crate) fn parse(&self, body: &[u8]) -> Result<Request, BadRequest> {
        Request::parse(body, &self.0.bounds)
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
        let (task, is_replayed) = match key {
            None => (self.launch(request, None), false),
            Some(key) => {
                let meaning = request.fingerprint();
                let same = |other: Fingerprint| {
                    if other == meaning {
                        Ok(())
                    } else {
                        Err(Error::Mismatch)
                    }
                };
                let mut running = self.0.running();
                // In this order: a start that ends in this moment is answered first, and then no longer running.
                if let Some((other, task)) = running.get(&key) {
                    same(*other)?;
                    (task.clone(), true)
                } else if let Some(answer) = self.0.store.answer(&key) {
                    same(answer.request)?;
                    return Ok(Reply {
                        body: answer.body.clone(),
                        is_replayed: true,
                    });
                } else if !self.0.store.has_keys(running.len() + 1) {
                    return Err(Error::NoRoomForKey);
                } else {
                    let task = self.launch(request, Some((key.clone(), meaning)));
                    running.insert(key, (meaning, task.clone()));
                    (task, false)
                }
            }
        };
        let body = task.result().await.unwrap_or(Err(Error::Crashed))?;
        Ok(Reply { body, is_replayed })
    }

    fn launch(
        &self,
        request: Request,
        key: Option<(IdempotencyKey, Fingerprint)>,
    ) -> SharedTask<Result<Arc<str>, Error>> {
        let this = self.clone();
        self.0.tasks.launch(async move {
            let began = clock::now();
            // A task of its own, so that a crash is counted too, and frees the key.
            let (inner, named) = (this.0.clone(), key.clone());
            let start = this
                .0
                .tasks
                .launch(async move { inner.start(request, named).await });
            let result = start.result().await.unwrap_or(Err(Error::Crashed));
            this.0.metrics.observe(clock::now() - began, &result);
            if let Some((key, _)) = key {
                this.0.running().remove(&key);
            }
            result
        })
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let metrics = &self.0.metrics;
        registry.register(
            "starts",
            "Starts that were well-formed, by how they ended",
            metrics.starts.clone(),
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
    async fn start(
        &self,
        request: Request,
        key: Option<(IdempotencyKey, Fingerprint)>,
    ) -> Result<Arc<str>, Error> {
        let Request {
            amount,
            redirect,
            extra,
        } = request;
        self.limiter
            .admit()
            .await
            .map_err(|Refused { retry_after }| Error::RateLimited { retry_after })?;
        self.store
            .has_room()
            .map_err(|WriteFailed| Error::WriteFailed { sent: false })?;
        let _starting = self.store.starting();
        let Started {
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
        let answer = key.map(|(key, request)| (key, request, body.clone()));
        self.store
            .started(payment, answer)
            .await
            .map_err(|WriteFailed| Error::WriteFailed { sent: true })?;
        tracing::info!(%code, %amount, "payment started");
        Ok(body)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// The outcome of a start that has a payment.
const ACCEPTED: &str = "accepted";

struct Metrics {
    starts: Family<Ended, Counter>,
    duration: Histogram,
    rate_limited: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let starts = Family::default();
        let failed = [Outcome::Rejected, Outcome::NotSent, Outcome::Unknown].map(Outcome::label);
        for outcome in [ACCEPTED].into_iter().chain(failed) {
            // There from the beginning: of a series that appears with its first event, that event is no increase.
            drop(starts.get_or_create(&Ended { outcome }));
        }
        Self {
            starts,
            duration: Histogram::new(telemetry::LATENCY_BUCKETS),
            rate_limited: Counter::default(),
        }
    }
}

impl Metrics {
    fn observe(&self, took: Duration, result: &Result<Arc<str>, Error>) {
        let outcome = match result {
            Ok(_) => ACCEPTED,
            Err(error) => error.outcome().label(),
        };
        if let Err(Error::RateLimited { .. }) = result {
            self.rate_limited.inc();
        }
        self.starts.get_or_create(&Ended { outcome }).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

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
pub(crate) use self::quoted::Quoted;
pub(crate) use self::redirect::{Allowed, Config as RedirectConfig};
pub(crate) use self::request::{BadRequest, Bounds, Request};
use crate::gateway::{self, Gateway, Order, Outcome};
use crate::json::{self, Json, Object};
use crate::limit::{Limiter, Refused};
use crate::payment::{Amount, Fields, IdempotencyKey, Payment, WatchCode};
use crate::store::{
    Claim, Claimed, CodeReused, Fate, Keys, Payments, RecordError, StartBody, Store, WriteFailed,
};
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
    Mismatch(Option<Fate>),
    /// The payment of the reference is open, and is for another amount or other fields.
    #[error("the payment of this reference is another one")]
    ReferenceMismatch(Fate),
    /// The payment of the reference is completed.
    #[error("the payment of this reference is completed")]
    ReferencePaid(Fate),
    /// The gateway is to be asked for the payment of this watch code before this start may be repeated: it holds the
    /// reference, and is so old that it is not polled any more.
    #[error("an older payment of this reference is to be asked for first")]
    AskFirst(WatchCode),
    /// The gateway answered with the codes of another payment.
    #[error(transparent)]
    CodeReused(CodeReused),
    /// There is no room for a further payment or key.
    #[error("the store is full")]
    StoreFull,
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

/// What a start ends with.
type Started = Result<StartBody, Error>;

/// What a caller gets of a payment that was started.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The gateway's object, and where the payer goes, as JSON.
    pub(crate) body: String,
    /// Another request with the same key or reference started it.
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
    pub(crate) fn parse(&self, body: &[u8], has_key: bool) -> Result<Request, BadRequest> {
        // What is wrong may be the secret, in the wrong field.
        let request = Request::parse(body, &self.0.bounds)
            .map_err(|bad| bad.scrubbed(|text| self.0.gateway.scrub(text)))?;
        if self.0.bounds.require_idempotency && !has_key && request.reference.is_none() {
            return Err(BadRequest::IdempotencyRequired);
        }
        Ok(request)
    }

    /// Removes the secret from a text of a caller's.
    pub(crate) fn scrub(&self, text: String) -> String {
        self.0.gateway.scrub(text)
    }

    /// What a start may be.
    pub(crate) fn bounds(&self) -> &Bounds {
        &self.0.bounds
    }

    /// Starts the payment; with a key or a reference, once: the same start gets the same answer again, or waits for it
    /// while it is under way. It goes on when the caller stops waiting. With `asked` the gateway has been asked for the
    /// payment that [`Error::AskFirst`] named.
    ///
    /// # Errors
    /// Each knows its [`Outcome`]. After an error the key is free again: nobody has heard of a payment.
    pub(crate) async fn start(
        &self,
        request: &Request,
        key: Option<&IdempotencyKey>,
        asked: Option<&WatchCode>,
    ) -> Result<Reply, Error> {
        let inner = &self.0;
        let meaning = request.meaning();
        let (task, is_replayed) = loop {
            match inner.keys.claim(key, &meaning, asked) {
                Claim::Fresh(claimed, task) => {
                    self.launch(request.clone(), meaning.fields, claimed);
                    break (task, false);
                }
                Claim::InFlight(task) => break (task, true),
                Claim::Joined { task, is_the_same } => {
                    let result = task.result().await.unwrap_or(Err(Error::Crashed));
                    if let Err(error) = result
                        && is_the_same
                    {
                        return Err(error);
                    }
                }
                Claim::Answered(body) => return Ok(inner.reply(&body, request, true)),
                Claim::Given(claimed, task, body) => {
                    self.keep(claimed, body);
                    break (task, true);
                }
                Claim::Mismatch(fate) => return Err(Error::Mismatch(fate)),
                Claim::ReferenceMismatch(fate) => return Err(Error::ReferenceMismatch(fate)),
                Claim::ReferencePaid(fate) => return Err(Error::ReferencePaid(fate)),
                Claim::AskFirst(code) => return Err(Error::AskFirst(code)),
                Claim::Full => return Err(Error::StoreFull),
            }
        };
        let body = task.result().await.unwrap_or(Err(Error::Crashed))?;
        Ok(inner.reply(&body, request, is_replayed))
    }

    fn launch(&self, request: Request, fields: Fields, claimed: Claimed<Started>) {
        let inner = self.0.clone();
        self.0.tasks.detach(RequestId::keep(async move {
            let began = clock::now();
            // A crash is an end too: it is counted, and frees the key.
            let result = AssertUnwindSafe(inner.start(request, fields, &claimed))
                .catch_unwind()
                .await
                .unwrap_or(Err(Error::Crashed));
            inner.metrics.observe(clock::now() - began, &result);
            claimed.finish(result);
        }));
    }

    /// Keeps the answer that the payment of a reference has under a further key.
    fn keep(&self, claimed: Claimed<Started>, body: StartBody) {
        let payments = self.0.payments.clone();
        self.0.tasks.detach(async move {
            let kept = payments.answered(claimed.answer(&body)).await;
            claimed.finish(match kept {
                Ok(()) => Ok(body),
                Err(_) => Err(Error::WriteFailed { sent: false }),
            });
        });
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
        registry.register(
            "code_reuse",
            "Starts that the gateway answered with the codes of another payment",
            metrics.code_reuse.clone(),
        );
    }
}

impl Inner {
    async fn start(&self, request: Request, fields: Fields, claimed: &Claimed<Started>) -> Started {
        let Request {
            amount,
            extra,
            reference,
            ..
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
            mut answer,
        } = self.gateway.start(&Order { amount, extra }).await?;
        answer.retain(|(name, _)| name != "pay_url");
        let body = StartBody {
            code: code.clone(),
            watch_code: watch_code.clone(),
            object: Json::Object(answer).to_string().into(),
        };
        let named = reference.as_ref().map(ToString::to_string);
        let payment = Payment {
            code,
            watch_code,
            amount,
            fields,
            referenced: reference.map(|reference| (reference, body.object.clone())),
        };
        let kept = self.payments.started(payment, claimed.answer(&body)).await;
        kept.map_err(|why| self.not_kept(why))?;
        let (code, request_id) = (&body.code, RequestId::current());
        tracing::info!(%code, %amount, reference = named, request_id = request_id.as_deref(), "payment started");
        Ok(body)
    }

    fn not_kept(&self, why: RecordError) -> Error {
        match why {
            RecordError::WriteFailed(WriteFailed) => Error::WriteFailed { sent: true },
            RecordError::CodeReused(reused) => {
                let ((given, watch_code), (known, known_watch_code)) =
                    (&reused.given, &reused.known);
                tracing::error!(
                    code = %given,
                    %watch_code,
                    known_code = %known,
                    %known_watch_code,
                    request_id = RequestId::current().as_deref(),
                    "the gateway answered a start with the codes of another payment: nobody gets them"
                );
                self.metrics.code_reuse.inc();
                Error::CodeReused(reused)
            }
        }
    }

    /// Returns what this caller gets of a payment: the pay page leads back to its own redirect.
    fn reply(&self, body: &StartBody, request: &Request, is_replayed: bool) -> Reply {
        let redirect = request
            .redirect
            .as_ref()
            .or(self.bounds.allowed.default_url());
        let pay_url = self.gateway.pay_url(&body.code, redirect);
        // An object with two codes at least.
        let object = body.object.strip_suffix('}').unwrap_or_default();
        Reply {
            body: format!("{object},\"pay_url\":{}}}", json::quoted(&pay_url)),
            is_replayed,
        }
    }
}

impl Error {
    /// Whether the gateway may have started a payment.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::RateLimited { .. }
            | Self::Mismatch(_)
            | Self::ReferenceMismatch(_)
            | Self::ReferencePaid(_)
            | Self::AskFirst(_)
            | Self::StoreFull
            | Self::WriteFailed { sent: false } => Outcome::NotSent,
            Self::Gateway(error) => error.outcome(),
            Self::Crashed | Self::CodeReused(_) | Self::WriteFailed { sent: true } => {
                Outcome::Unknown
            }
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
    code_reuse: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let [rejected, not_sent, unknown] =
            [Outcome::Rejected, Outcome::NotSent, Outcome::Unknown].map(Outcome::label);
        Self {
            outcomes: Tally::new("outcome", &[ACCEPTED, rejected, not_sent, unknown]),
            duration: Histogram::new(telemetry::LATENCY_BUCKETS),
            rate_limited: Counter::default(),
            code_reuse: Counter::default(),
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

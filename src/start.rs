//! Starting a payment: parse, admit, send, remember, reply.

mod config;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod metrics;
mod quoted;
mod redirect;
mod request;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use prometheus_client::registry::Registry;

pub(crate) use self::config::Config;
pub(crate) use self::error::Error;
use self::error::Started;
use self::metrics::Metrics;
pub(crate) use self::metrics::Snapshot;
pub(crate) use self::quoted::Quoted;
pub(crate) use self::redirect::{Allowed, Config as RedirectConfig};
pub(crate) use self::request::{BadRequest, Bounds, Request};
use crate::clock;
use crate::gateway::{self, Gateway, Order};
use crate::json::{self, Json, Object};
use crate::limit::{Limiter, Refused};
use crate::payment::{Amount, IdempotencyKey, Meaning, Payment, WatchCode};
use crate::store::{
    Claim, Claimed, Elsewhere, Keys, NoTurn, Payments, RecordError, StartBody, Store, Turns,
    WriteFailed,
};
use crate::tasks::SharedTasks;
use crate::telemetry::RequestId;

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

/// More than a write of the store takes.
const A_WRITE: Duration = Duration::from_secs(10);

struct Inner {
    bounds: Bounds,
    limiter: Limiter,
    /// Where other replicas share the store: takes the place of the limiter.
    turns: Option<Turns>,
    /// A start takes this long at most, waiting for its turn included.
    at_most: Duration,
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
            turns: store.turns(config.rate.0, config.burst, config.queue_for),
            at_most: config.queue_for + gateway.timeout() + A_WRITE,
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
    /// Each knows its [`gateway::Outcome`]. After an error the key is free again: nobody has heard of a payment.
    pub(crate) async fn start(
        &self,
        request: &Request,
        key: Option<&IdempotencyKey>,
        asked: Option<&WatchCode>,
    ) -> Result<Reply, Error> {
        let inner = &self.0;
        let meaning = request.meaning();
        let (body, is_replayed) = loop {
            let (task, is_replayed) = match inner.keys.claim(key, &meaning, asked) {
                Claim::Fresh(claimed, task) => {
                    self.launch(request.clone(), meaning.clone(), asked.cloned(), claimed);
                    (task, false)
                }
                Claim::InFlight(task) => (task, true),
                Claim::Joined { task, is_the_same } => {
                    match task.result().await.unwrap_or(Err(Error::Crashed)) {
                        Ok(_) | Err(Error::Again) => {}
                        Err(error) if is_the_same => return Err(error),
                        Err(_) => {}
                    }
                    continue;
                }
                Claim::Answered(body) => {
                    let confirmed = inner.keys.confirm(&body.watch_code).await;
                    confirmed.map_err(|WriteFailed| Error::WriteFailed { sent: false })?;
                    break (body, true);
                }
                Claim::Given(claimed, task, body) => {
                    self.keep(claimed, body);
                    (task, true)
                }
                Claim::Mismatch(fate) => return Err(Error::Mismatch(fate)),
                Claim::ReferenceMismatch(fate) => return Err(Error::ReferenceMismatch(fate)),
                Claim::ReferencePaid(fate) => return Err(Error::ReferencePaid(fate)),
                Claim::AskFirst(code) => return Err(Error::AskFirst(code)),
                Claim::Full => return Err(Error::StoreFull),
            };
            match task.result().await.unwrap_or(Err(Error::Crashed)) {
                Ok(body) => break (body, is_replayed),
                Err(Error::Again) => {}
                Err(error) => return Err(error),
            }
        };
        Ok(inner.reply(&body, request, is_replayed))
    }

    fn launch(
        &self,
        request: Request,
        meaning: Meaning,
        asked: Option<WatchCode>,
        mut claimed: Claimed<Started>,
    ) {
        let inner = self.0.clone();
        self.0.tasks.detach(RequestId::keep(async move {
            let began = clock::now();
            // A crash is an end too: it is counted, and frees the key.
            let start = inner.start(request, meaning, asked.as_ref(), &mut claimed);
            let result = AssertUnwindSafe(start)
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
                Err(RecordError::Overtaken) => Err(Error::Again),
                Err(_) => Err(Error::WriteFailed { sent: false }),
            });
        });
    }

    /// What has become of the starts up to now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.0.metrics.snapshot()
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }
}

impl Inner {
    async fn start(
        &self,
        request: Request,
        meaning: Meaning,
        asked: Option<&WatchCode>,
        claimed: &mut Claimed<Started>,
    ) -> Started {
        let Request {
            amount,
            extra,
            reference,
            ..
        } = request;
        self.has_room()?;
        let lease = self
            .keys
            .lease(claimed, &meaning, asked, self.at_most)
            .await;
        let _lease = lease.map_err(|why| match why {
            Elsewhere::Settled => Error::Again,
            Elsewhere::Mismatch => Error::Mismatch(None),
            Elsewhere::Away => Error::WriteFailed { sent: false },
        })?;
        self.admit().await?;
        self.has_room()?;
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
            fields: meaning.fields,
            referenced: reference.map(|reference| (reference, body.object.clone())),
        };
        let (answer, last) = (claimed.answer(&body), claimed.last_of_reference());
        let kept = self.payments.started(payment, answer, last).await;
        kept.map_err(|why| self.not_kept(why))?;
        let (code, request_id) = (body.code.shortened(), RequestId::current());
        tracing::info!(code, %amount, reference = named, request_id = request_id.as_deref(), "payment started");
        Ok(body)
    }

    /// Waits for the turn of a start.
    async fn admit(&self) -> Result<(), Error> {
        let Some(turns) = &self.turns else {
            let admitted = self.limiter.admit().await;
            return admitted.map_err(|Refused { retry_after }| Error::RateLimited { retry_after });
        };
        turns.take().await.map_err(|why| match why {
            NoTurn::TooMany { retry_after } => Error::RateLimited { retry_after },
            NoTurn::Away => Error::WriteFailed { sent: false },
        })
    }

    fn has_room(&self) -> Result<(), Error> {
        let room = self.payments.has_room();
        room.map_err(|WriteFailed| Error::WriteFailed { sent: false })
    }

    fn not_kept(&self, why: RecordError) -> Error {
        match why {
            RecordError::WriteFailed(WriteFailed) => Error::WriteFailed { sent: true },
            RecordError::Overtaken => Error::Again,
            RecordError::CodeReused(reused) => {
                let ((given, watch_code), (known, known_watch_code)) =
                    (&reused.given, &reused.known);
                tracing::error!(
                    code = given.shortened(),
                    watch_code = watch_code.shortened(),
                    known_code = known.shortened(),
                    known_watch_code = known_watch_code.shortened(),
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

/// The smallest that is allowed: `check --start` proves the secret with it.
pub(crate) fn smallest_order(config: &Config) -> Order {
    Order {
        amount: Amount::new(config.min_amount),
        extra: Object::new(),
    }
}

//! Idempotency keys and references: who may start a payment, and what was answered before.

mod running;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::running::{Claimed, KeyedAnswer};
use self::running::{Names, Running};
use super::fleet::{Lease, Leased};
use super::intent::Intent;
use super::log::Log;
use super::model::{Fate, Limits, StartBody, StoredPayment, WriteFailed};
use super::state::State;
use crate::payment::{IdempotencyKey, Meaning, Reference, Status, WatchCode};
use crate::tasks::SharedTask;
use crate::{clock, json};

/// The names under which payments are started, where a start results in a `T`.
pub(crate) struct Keys<T> {
    log: Arc<Log>,
    limits: Limits,
    running: Running<T>,
}

/// What a start may do that comes with a key, with a reference, with both or with neither.
pub(crate) enum Claim<T> {
    /// It starts the payment. The task is for those who wait for its result.
    Fresh(Claimed<T>, SharedTask<T>),
    /// The same start is under way: its result is the one of both.
    InFlight(SharedTask<T>),
    /// A start of this reference is under way. When it has a payment the claim is to be made again. If it fails, its error
    /// is that of both, if both ask for the same.
    Joined {
        task: SharedTask<T>,
        is_the_same: bool,
    },
    /// The same start was answered with this.
    Answered(StartBody),
    /// The payment of this reference is open. Its answer is to be kept under the key before it is given.
    Given(Claimed<T>, SharedTask<T>, StartBody),
    /// The key was used for another start; what is known of that one's payment.
    Mismatch(Option<Fate>),
    /// The payment of this reference is open, and is for another amount or other fields.
    ReferenceMismatch(Fate),
    /// The payment of this reference is completed.
    ReferencePaid(Fate),
    /// The payment of this reference is so old that the gateway is to be asked for it before another one is started.
    AskFirst(WatchCode),
    /// There is no room for a further payment or key.
    Full,
}

/// What holds a reference.
enum Held {
    Nothing,
    Open(StartBody),
    Other(Fate),
    Completed(Fate),
    TooOld(WatchCode),
}

/// Why a start does not go on here.
pub(crate) enum Elsewhere {
    /// Another replica has an answer by now: the claim is to be made again.
    Settled,
    /// Another replica has the key under way for another start.
    Mismatch,
    /// The store is away.
    Away,
}

impl<T: Clone> Keys<T> {
    pub(super) fn new(log: Arc<Log>, limits: Limits) -> Self {
        Self {
            log,
            limits,
            running: Running::default(),
        }
    }

    /// Claims the key and the reference of a start. With `asked` the gateway has just been asked for the payment of that
    /// watch code.
    pub(crate) fn claim(
        &self,
        key: Option<&IdempotencyKey>,
        meaning: &Meaning,
        asked: Option<&WatchCode>,
    ) -> Claim<T> {
        let names = &mut *self.running.lock();
        // A key under way before a key answered: a start that ends in this moment is answered first, and then no longer
        // under way.
        if let Some((other, task)) = key.and_then(|key| names.by_key.get(key)) {
            return if *other == meaning.fingerprint {
                Claim::InFlight(task.clone())
            } else {
                Claim::Mismatch(None)
            };
        }
        let guarded = &mut *self.log.lock();
        let (state, now) = (&mut guarded.state, clock::now());
        let ttl = self.limits.answers;
        if let Some(answer) = key.and_then(|key| state.answers.get(key, ttl, now)) {
            return if meaning.is(answer.request) {
                Claim::Answered(answer.body.clone())
            } else {
                Claim::Mismatch(fate(state, &answer.body.watch_code))
            };
        }
        let mut removals = Vec::new();
        let has_room = state.make_room(now, &mut removals);
        let claim = self.claim_reference(names, state, has_room, key, meaning, asked);
        self.log.remove(guarded, removals);
        claim
    }

    /// Claims the names of a fresh start from the other replicas too, for at most this time; without others nothing is to be
    /// done. The start holds what is returned until it is finished.
    ///
    /// # Errors
    /// If it is not for this start to go on.
    pub(crate) async fn lease(
        &self,
        claimed: &mut Claimed<T>,
        meaning: &Meaning,
        asked: Option<&WatchCode>,
        at_most: Duration,
    ) -> Result<Option<Lease>, Elsewhere> {
        let Some(fleet) = self.log.fleet() else {
            return Ok(None);
        };
        let (key, reference) = claimed.names();
        // They may be longer than an index takes.
        let name = |kind, text: &str| format!("{kind} {}", json::fingerprint(text));
        let names = [
            key.map(|key| name("key", key.as_str())),
            reference.map(|reference| name("reference", reference.as_str())),
        ];
        let names: Vec<_> = names.into_iter().flatten().collect();
        if names.is_empty() {
            return Ok(None);
        }
        let (key, reference) = (key.cloned(), reference.cloned());
        let is_settled = || {
            let state = &self.log.lock().state;
            let answer = key.as_ref();
            let answer =
                answer.and_then(|key| state.answers.get(key, self.limits.answers, clock::now()));
            answer.is_some() || !matches!(self.held(state, meaning, asked), Held::Nothing)
        };
        let note = meaning.fingerprint.0;
        let leased = fleet
            .lease(&names, key.is_some(), &note, at_most, is_settled)
            .await;
        let lease = match leased {
            Ok(Leased::Ours(lease)) => lease,
            Ok(Leased::Other) => return Err(Elsewhere::Mismatch),
            Ok(Leased::Settled) => return Err(Elsewhere::Settled),
            Err(WriteFailed) => return Err(Elsewhere::Away),
        };
        if is_settled() {
            return Err(Elsewhere::Settled);
        }
        let last = last_of_reference(&self.log.lock().state, reference.as_ref());
        claimed.set_last_of_reference(last);
        Ok(Some(lease))
    }

    /// Waits until what is known of this payment is sure to survive, also where another replica has written it.
    ///
    /// # Errors
    /// If the store is away.
    pub(crate) async fn confirm(&self, code: &WatchCode) -> Result<(), WriteFailed> {
        let written = {
            let mut guarded = self.log.lock();
            if !guarded.followed.unconfirmed.has(code) {
                return Ok(());
            }
            self.log.append(&mut guarded, Intent::Nothing)
        };
        written.done().await.map(drop).map_err(|_| WriteFailed)
    }

    fn claim_reference(
        &self,
        names: &mut Names<T>,
        state: &State,
        has_room: bool,
        key: Option<&IdempotencyKey>,
        meaning: &Meaning,
        asked: Option<&WatchCode>,
    ) -> Claim<T> {
        let reference = meaning.reference.as_ref();
        if let Some((other, task)) = reference.and_then(|name| names.by_reference.get(name)) {
            return Claim::Joined {
                task: task.clone(),
                is_the_same: *other == meaning.fingerprint,
            };
        }
        match self.held(state, meaning, asked) {
            Held::Completed(fate) => Claim::ReferencePaid(fate),
            Held::Other(fate) => Claim::ReferenceMismatch(fate),
            Held::TooOld(code) => Claim::AskFirst(code),
            Held::Open(body) if key.is_none() => Claim::Answered(body),
            _ if !has_room => Claim::Full,
            Held::Open(body) => {
                let (claimed, task) = self.running.hold(names, key, None, meaning.fingerprint);
                Claim::Given(claimed, task, body)
            }
            Held::Nothing => {
                let (mut claimed, task) =
                    self.running
                        .hold(names, key, reference, meaning.fingerprint);
                claimed.set_last_of_reference(last_of_reference(state, reference));
                Claim::Fresh(claimed, task)
            }
        }
    }

    /// Returns what holds the reference of this start.
    fn held(&self, state: &State, meaning: &Meaning, asked: Option<&WatchCode>) -> Held {
        let Some(reference) = &meaning.reference else {
            return Held::Nothing;
        };
        if let Some(fate) = state.payments.paid(reference) {
            return Held::Completed(fate.clone());
        }
        let all = state.payments.of_reference(reference);
        let status = |stored: &StoredPayment| {
            let record = state.payments.get(&stored.payment.watch_code)?;
            let observation = record.observation.as_ref()?;
            Some(observation.report.status.clone())
        };
        let is_completed = |stored: &&Arc<StoredPayment>| status(stored) == Some(Status::Completed);
        if let Some(completed) = all.iter().find(is_completed) {
            return Held::Completed(fate_of(state, completed));
        }
        let Some(last) = all.last() else {
            return Held::Nothing;
        };
        let payment = &last.payment;
        if matches!(status(last), Some(Status::Other(_))) {
            return Held::Nothing;
        }
        let is_too_old = clock::now() - last.since >= self.limits.polled;
        if is_too_old && asked != Some(&payment.watch_code) {
            return Held::TooOld(payment.watch_code.clone());
        }
        if payment.amount != meaning.amount || payment.fields != meaning.fields {
            return Held::Other(fate_of(state, last));
        }
        if is_too_old {
            return Held::Nothing;
        }
        match &payment.referenced {
            Some((_, object)) => Held::Open(StartBody {
                code: payment.code.clone(),
                watch_code: payment.watch_code.clone(),
                object: object.clone(),
            }),
            None => Held::Nothing,
        }
    }
}

/// Returns the number of the last payment of this reference, 0 if there is none.
fn last_of_reference(state: &State, reference: Option<&Reference>) -> u64 {
    let all = reference.map(|reference| state.payments.of_reference(reference));
    all.and_then(|all| all.last()).map_or(0, |last| last.number)
}

/// Returns what became of the payment of this watch code, where it is still known.
fn fate(state: &State, code: &WatchCode) -> Option<Fate> {
    let stored = state.payments.get(code)?.stored.as_ref()?;
    Some(fate_of(state, stored))
}

fn fate_of(state: &State, stored: &StoredPayment) -> Fate {
    let record = state.payments.get(&stored.payment.watch_code);
    let observation = record.and_then(|record| record.observation.as_ref());
    Fate {
        watch_code: stored.payment.watch_code.clone(),
        amount: stored.payment.amount,
        report: observation.map(|observation| observation.report.clone()),
    }
}

//! Idempotency keys: who may start the payment of a key, and what was answered under it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::log::Log;
use crate::clock;
use crate::payment::{Fingerprint, IdempotencyKey};
use crate::tasks::{self, Promise, SharedTask};

/// Live keys at most: each costs a few hundred bytes.
const MAX_KEYS: usize = 250_000;

/// The keys, where a start results in a `T`. Clones share everything.
pub(crate) struct Keys<T> {
    log: Arc<Log>,
    ttl: Duration,
    running: Arc<Running<T>>,
}

/// By key: what is asked for, and the start that is under way.
type Running<T> = Mutex<HashMap<IdempotencyKey, (Fingerprint, SharedTask<T>)>>;

/// What a start may do that comes with a key.
pub(crate) enum Claim<T> {
    /// It starts the payment. The task is for those who wait for its result.
    Fresh(Claimed<T>, SharedTask<T>),
    /// The same start is under way: its result is the one of both.
    InFlight(SharedTask<T>),
    /// The same start was answered with this.
    Answered(Arc<str>),
    /// The key was used for another start.
    Mismatch,
    /// There are as many live keys as there may be.
    Full,
}

/// A start that holds its key until it is finished, or dropped. Then the key is free again, unless an answer was kept
/// under it.
pub(crate) struct Claimed<T> {
    // Dropped in this order: who learns the result finds the key free.
    held: Held<T>,
    promise: Promise<T>,
}

struct Held<T> {
    key: Option<(IdempotencyKey, Fingerprint)>,
    running: Arc<Running<T>>,
}

impl<T: Clone> Keys<T> {
    pub(super) fn new(log: Arc<Log>, ttl: Duration) -> Self {
        Self {
            log,
            ttl,
            running: Arc::default(),
        }
    }

    /// Claims a key for a start of this meaning; a start without a key is always fresh.
    pub(crate) fn claim(&self, key: Option<(IdempotencyKey, Fingerprint)>) -> Claim<T> {
        let Some((key, meaning)) = key else {
            let (promise, task) = tasks::promise();
            return Claim::Fresh(self.claimed(None, promise), task);
        };
        let mut running = lock(&self.running);
        // In this order: a start that ends in this moment is answered first, and then no longer running.
        if let Some((other, task)) = running.get(&key) {
            return if *other == meaning {
                Claim::InFlight(task.clone())
            } else {
                Claim::Mismatch
            };
        }
        let guarded = self.log.lock();
        let answers = &guarded.state.answers;
        if let Some(answer) = answers.get(&key, self.ttl, clock::now()) {
            return if answer.request == meaning {
                Claim::Answered(answer.body.clone())
            } else {
                Claim::Mismatch
            };
        }
        if answers.len() + running.len() >= MAX_KEYS {
            return Claim::Full;
        }
        drop(guarded);
        let (promise, task) = tasks::promise();
        running.insert(key.clone(), (meaning, task.clone()));
        Claim::Fresh(self.claimed(Some((key, meaning)), promise), task)
    }

    fn claimed(
        &self,
        key: Option<(IdempotencyKey, Fingerprint)>,
        promise: Promise<T>,
    ) -> Claimed<T> {
        let running = self.running.clone();
        Claimed {
            held: Held { key, running },
            promise,
        }
    }
}

impl<T> Claimed<T> {
    /// Returns what is to be kept under the key, if there is one, when the start is answered with this.
    pub(crate) fn answer(
        &self,
        body: &Arc<str>,
    ) -> Option<(IdempotencyKey, Fingerprint, Arc<str>)> {
        let (key, request) = self.held.key.clone()?;
        Some((key, request, body.clone()))
    }

    /// Frees the key, then gives the result to all who wait for it.
    pub(crate) fn finish(self, result: T) {
        let Self { held, promise } = self;
        drop(held);
        promise.keep(result);
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        if let Some((key, _)) = &self.key {
            lock(&self.running).remove(key);
        }
    }
}

fn lock<T>(
    running: &Running<T>,
) -> MutexGuard<'_, HashMap<IdempotencyKey, (Fingerprint, SharedTask<T>)>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Starts that are under way, by their key and their reference.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::payment::{Fingerprint, IdempotencyKey, Reference};
use crate::store::model::StartBody;
use crate::tasks::{self, Promise, SharedTask};

/// What is under way. Clones share it.
pub(super) struct Running<T>(Arc<Mutex<Names<T>>>);

/// By name: what is asked for, and the start.
pub(super) struct Names<T> {
    pub(super) by_key: HashMap<IdempotencyKey, (Fingerprint, SharedTask<T>)>,
    pub(super) by_reference: HashMap<Reference, (Fingerprint, SharedTask<T>)>,
}

/// A start that holds its key and its reference until it is finished, or dropped. Then they are free again, unless an
/// answer was kept under them.
pub(crate) struct Claimed<T> {
    // Dropped in this order: a caller that learns the result finds the names free.
    held: Held<T>,
    promise: Promise<T>,
}

struct Held<T> {
    key: Option<IdempotencyKey>,
    reference: Option<Reference>,
    /// The last payment of the reference when it was claimed, 0 for none.
    last_of_reference: u64,
    meaning: Fingerprint,
    running: Running<T>,
}

impl<T> Clone for Running<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Running<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Names {
            by_key: HashMap::new(),
            by_reference: HashMap::new(),
        })))
    }
}

impl<T> Running<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Names<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds these names, which are free, for a start of this meaning.
    pub(super) fn hold(
        &self,
        names: &mut Names<T>,
        key: Option<&IdempotencyKey>,
        reference: Option<&Reference>,
        meaning: Fingerprint,
    ) -> (Claimed<T>, SharedTask<T>) {
        let (promise, task) = tasks::promise();
        if let Some(key) = key {
            names.by_key.insert(key.clone(), (meaning, task.clone()));
        }
        if let Some(reference) = reference {
            let entry = (meaning, task.clone());
            names.by_reference.insert(reference.clone(), entry);
        }
        let held = Held {
            key: key.cloned(),
            reference: reference.cloned(),
            last_of_reference: 0,
            meaning,
            running: self.clone(),
        };
        (Claimed { held, promise }, task)
    }
}

impl<T> Claimed<T> {
    /// Returns what is to be kept under the key, if there is one, when the start is answered with this.
    pub(crate) fn answer(&self, body: &StartBody) -> Option<KeyedAnswer> {
        let key = self.held.key.clone()?;
        Some((key, self.held.meaning, body.clone()))
    }

    /// The last payment of the reference when it was claimed, if there is a reference.
    pub(crate) fn last_of_reference(&self) -> Option<u64> {
        self.held
            .reference
            .as_ref()
            .map(|_| self.held.last_of_reference)
    }

    /// Notes that payment.
    pub(super) fn set_last_of_reference(&mut self, number: u64) {
        self.held.last_of_reference = number;
    }

    /// The names that it holds.
    pub(super) fn names(&self) -> (Option<&IdempotencyKey>, Option<&Reference>) {
        (self.held.key.as_ref(), self.held.reference.as_ref())
    }

    /// Frees the names, then gives the result to all who wait for it.
    pub(crate) fn finish(self, result: T) {
        let Self { held, promise } = self;
        drop(held);
        promise.keep(result);
    }
}

/// A key, what was asked for under it, and what was answered.
pub(crate) type KeyedAnswer = (IdempotencyKey, Fingerprint, StartBody);

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let mut names = self.running.lock();
        if let Some(key) = &self.key {
            names.by_key.remove(key);
        }
        if let Some(reference) = &self.reference {
            names.by_reference.remove(reference);
        }
    }
}

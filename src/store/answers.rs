//! What callers were answered under their keys.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::payment::{Fingerprint, IdempotencyKey};

/// A start that was answered under a key.
pub(crate) struct Answer {
    pub(crate) key: IdempotencyKey,
    /// What was asked for.
    pub(crate) request: Fingerprint,
    /// The whole answer, as it was given.
    pub(crate) body: Arc<str>,
    pub(crate) since: Instant,
}

/// By key; none is let go before its time.
#[derive(Default)]
pub(super) struct Answers {
    by_key: HashMap<IdempotencyKey, Arc<Answer>>,
    /// The oldest in front.
    in_order: VecDeque<Arc<Answer>>,
}

impl Answers {
    pub(super) fn add(&mut self, answer: Arc<Answer>) {
        self.by_key.insert(answer.key.clone(), answer.clone());
        self.in_order.push_back(answer);
    }

    pub(super) fn get(&self, key: &IdempotencyKey, ttl: Duration) -> Option<Arc<Answer>> {
        self.by_key
            .get(key)
            .filter(|answer| clock::now() - answer.since < ttl)
            .cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Forgets those whose time is over; gives their keys.
    pub(super) fn expire(&mut self, ttl: Duration) -> Vec<IdempotencyKey> {
        let mut keys = Vec::new();
        while self
            .in_order
            .front()
            .is_some_and(|answer| clock::now() - answer.since >= ttl)
        {
            let Some(answer) = self.in_order.pop_front() else {
                break;
            };
            // The key may have been used anew.
            if self
                .by_key
                .get(&answer.key)
                .is_some_and(|current| Arc::ptr_eq(current, &answer))
            {
                self.by_key.remove(&answer.key);
                keys.push(answer.key.clone());
            }
        }
        keys
    }
}

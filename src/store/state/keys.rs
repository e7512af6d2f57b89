//! What callers were answered under their keys.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::payment::IdempotencyKey;
use crate::store::model::Answer;

/// The answers by key. None is let go before its time.
#[derive(Default)]
pub(in crate::store) struct Answers {
    by_key: HashMap<IdempotencyKey, Arc<Answer>>,
    /// The oldest in front.
    in_order: VecDeque<Arc<Answer>>,
}

impl Answers {
    pub(in crate::store) fn add(&mut self, answer: Arc<Answer>) {
        let before = self.by_key.insert(answer.key.clone(), answer.clone());
        if before.is_none_or(|before| !Arc::ptr_eq(&before, &answer)) {
            self.in_order.push_back(answer);
        }
    }

    /// Returns what was answered under this key, if that was less than `ttl` ago.
    pub(in crate::store) fn get(
        &self,
        key: &IdempotencyKey,
        ttl: Duration,
        now: Instant,
    ) -> Option<&Arc<Answer>> {
        self.by_key
            .get(key)
            .filter(|answer| now - answer.since < ttl)
    }

    pub(in crate::store) fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Forgets those whose time is over; returns their keys.
    pub(in crate::store) fn expire(&mut self, ttl: Duration, now: Instant) -> Vec<IdempotencyKey> {
        let mut keys = Vec::new();
        while let Some(answer) = self.in_order.front()
            && now - answer.since >= ttl
        {
            let answer = answer.clone();
            self.in_order.pop_front();
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

//! What callers were answered under their keys.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::weight;
use crate::clock::Instant;
use crate::payment::{IdempotencyKey, WatchCode};
use crate::store::model::Answer;

/// The answers by key. None is let go before its time.
#[derive(Default)]
pub(in crate::store) struct Answers {
    by_key: HashMap<IdempotencyKey, Arc<Answer>>,
    /// The oldest in front.
    in_order: VecDeque<Arc<Answer>>,
    /// How many live keys have been answered with the payment of a watch code.
    by_payment: HashMap<WatchCode, usize>,
    bytes: u64,
}

impl Answers {
    pub(in crate::store) fn add(&mut self, answer: Arc<Answer>) {
        let before = self.by_key.insert(answer.key.clone(), answer.clone());
        if before
            .as_ref()
            .is_some_and(|before| Arc::ptr_eq(before, &answer))
        {
            return;
        }
        if let Some(before) = before {
            self.forget(&before);
        }
        self.bytes += weight::answer(&answer);
        let watch_code = answer.body.watch_code.clone();
        *self.by_payment.entry(watch_code).or_default() += 1;
        self.in_order.push_back(answer);
    }

    /// Returns whether a live key was answered with the payment of this watch code.
    pub(in crate::store) fn has_payment(&self, code: &WatchCode) -> bool {
        self.by_payment.contains_key(code)
    }

    fn forget(&mut self, answer: &Answer) {
        self.bytes -= weight::answer(answer);
        let code = &answer.body.watch_code;
        if let Some(count) = self.by_payment.get_mut(code) {
            *count -= 1;
            if *count == 0 {
                self.by_payment.remove(code);
            }
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

    /// Returns the weight of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
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
                self.forget(&answer);
                keys.push(answer.key.clone());
            }
        }
        keys
    }
}

//! What a replica has written lately, to be written again where a database went back to before that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::waiting::Waiting;
use crate::clock::{self, Instant};
use crate::payment::Payment;
use crate::store::intent::Intent;
use crate::store::model::Answer;
use crate::store::shared::Guarded;

/// A standby that takes over is behind by less.
const KEPT_FOR: Duration = Duration::from_secs(600);
const KEPT_AT_MOST: usize = 20_000;

/// Whether this payment was not lost, nor what was answered with it.
fn is_there(guarded: &Guarded, payment: &Payment, answer: Option<&Answer>) -> bool {
    let record = guarded.state.payments.get(&payment.watch_code);
    let stored = record.and_then(|record| record.stored.as_ref());
    let has_answer = |answer: &Answer| {
        let ttl = guarded.state.limits().answers;
        let known = guarded.state.answers.get(&answer.key, ttl, answer.since);
        known.is_some_and(|known| known.body == answer.body)
    };
    stored.is_some_and(|stored| stored.payment.code == payment.code)
        && answer.is_none_or(has_answer)
}

/// The intents that were acknowledged lately, the oldest in front.
#[derive(Default)]
pub(super) struct Lately {
    intents: VecDeque<(Instant, Arc<Intent>)>,
    /// The database went back: some of it may be lost.
    pub(super) is_lost: bool,
}

impl Lately {
    pub(super) fn add(&mut self, intent: &Arc<Intent>) {
        if matches!(**intent, Intent::Nothing) {
            return;
        }
        let now = clock::now();
        let is_old = |(at, _): &(Instant, Arc<Intent>)| now - *at >= KEPT_FOR;
        while self.intents.len() >= KEPT_AT_MOST || self.intents.front().is_some_and(is_old) {
            self.intents.pop_front();
        }
        self.intents.push_back((now, intent.clone()));
    }

    /// Returns all of it, to be decided and written again. It was acknowledged: what was decided by others since then cannot
    /// undo it. What is still there is not written a second time.
    pub(super) fn again(&mut self, guarded: &Guarded) -> Vec<Waiting> {
        let again = self.intents.drain(..).filter_map(|(_, intent)| {
            let intent = match &*intent {
                Intent::Start {
                    payment,
                    answer,
                    at,
                    ..
                } => {
                    if is_there(guarded, payment, answer.as_deref()) {
                        return None;
                    }
                    let is_taken = |answer: &_| guarded.state.is_taken(answer);
                    let doubled = answer.as_deref().filter(|answer| is_taken(answer));
                    if let Some(answer) = doubled {
                        tracing::error!(
                            code = payment.code.shortened(),
                            key = %answer.key,
                            "a key has two payments: the database lost the first one before another replica had the key"
                        );
                    }
                    let is_doubled = doubled.is_some();
                    Arc::new(Intent::Start {
                        payment: payment.clone(),
                        answer: answer.clone().filter(|_| !is_doubled),
                        last_of_reference: None,
                        at: *at,
                    })
                }
                Intent::Answer(answer) if guarded.state.is_taken(answer) => return None,
                _ => intent,
            };
            let reply = None;
            Some(Waiting { intent, reply })
        });
        again.collect()
    }
}

//! Everything that the store knows, as a plain value. What must survive enters it only when it has been written.

pub(super) mod changes;
mod counts;
mod judge;
pub(super) mod keys;
mod names;
pub(super) mod outbox;
pub(super) mod payments;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use self::changes::Journal;
use self::judge::Judge;
use self::keys::Answers;
use self::outbox::Deliveries;
use self::payments::Records;
use crate::clock::Instant;
use crate::payment::{Report, WatchCode};
use crate::store::event::{Event, Removal};
use crate::store::model::{Answer, Change, Delivery, Observation, Record, Settled, StoredPayment};

/// The state. Time comes in as an argument; rows that have to go come out as [`Removal`]s.
pub(super) struct State {
    ttl: Duration,
    pub(super) payments: Records,
    pub(super) changes: Journal,
    pub(super) answers: Answers,
    pub(super) outbox: Deliveries,
    /// The last number given to a payment, to a change, to a delivery.
    numbers: Numbers,
}

/// The last ones given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Numbers {
    payment: u64,
    position: u64,
    delivery: u64,
}

impl State {
    /// An empty one, with room for `room` watch codes. Answers and finished payments are kept for `ttl`, open payments for
    /// `open_for`.
    pub(super) fn new(room: usize, ttl: Duration, open_for: Duration, has_webhook: bool) -> Self {
        Self {
            ttl,
            payments: Records::new(room, open_for, has_webhook),
            changes: Journal::default(),
            answers: Answers::default(),
            outbox: Deliveries::default(),
            numbers: Numbers::default(),
        }
    }

    /// Returns a number that no payment had.
    pub(super) fn next_payment(&mut self) -> u64 {
        self.numbers.payment += 1;
        self.numbers.payment
    }

    /// Returns a position after all others.
    pub(super) fn next_position(&mut self) -> u64 {
        self.numbers.position += 1;
        self.numbers.position
    }

    /// Returns a number that no delivery had.
    pub(super) fn next_delivery(&mut self) -> u64 {
        self.numbers.delivery += 1;
        self.numbers.delivery
    }

    /// Returns a judge of starts that are about to be written.
    pub(super) fn judge(&self) -> Judge<'_> {
        Judge {
            payments: &self.payments,
            answers: &self.answers,
            begun: Vec::new(),
        }
    }

    /// Makes an event true that has been written. Applied a second time it changes nothing.
    pub(super) fn apply(&mut self, event: &Event) -> Vec<Removal> {
        let mut removals = Vec::new();
        match event {
            Event::Started { stored, .. } => {
                self.payments.start(stored, &self.outbox, &mut removals);
            }
            Event::Observed {
                stored,
                observation,
                paid_twice_with,
                ..
            } => self.observe(stored, observation, paid_twice_with.as_ref(), &mut removals),
            Event::PollingEnded { stored, .. } => self.payments.end_polling(stored),
            Event::Again { .. } | Event::Delivery(_) => {}
        }
        if let Some(answer) = event.answer() {
            self.answers.add(answer.clone());
        }
        if let Some(change) = event.change() {
            self.changes.add(change);
        }
        if let Some(delivery) = event.delivery() {
            self.outbox.put(delivery.clone());
        }
        removals
    }

    /// Makes an event true that could not be written yet: what callers ask for knows it, and nobody is sent a message
    /// about it before it is written.
    pub(super) fn apply_unwritten(&mut self, event: &Event) -> Vec<Removal> {
        let mut removals = Vec::new();
        match event {
            Event::Observed {
                stored,
                observation,
                paid_twice_with,
                ..
            } => self.observe(stored, observation, paid_twice_with.as_ref(), &mut removals),
            Event::Delivery(delivery) => self.outbox.put(delivery.clone()),
            Event::Started { .. } | Event::Again { .. } | Event::PollingEnded { .. } => {}
        }
        removals
    }

    fn observe(
        &mut self,
        stored: &Arc<StoredPayment>,
        observation: &Observation,
        paid_twice_with: Option<&WatchCode>,
        removals: &mut Vec<Removal>,
    ) {
        self.payments
            .observe(stored, observation, &self.outbox, removals);
        if let Some(other) = paid_twice_with {
            self.payments.note_paid_twice(stored, other);
        }
    }

    /// Completes an event of [`Self::apply_unwritten`] that has been written by now. A message is where it belongs since
    /// then: it may even be on its way again.
    pub(super) fn apply_deferred(&mut self, event: &Event) -> Vec<Removal> {
        if matches!(event, Event::Delivery(_)) {
            return Vec::new();
        }
        self.apply(event)
    }

    /// Takes in an answer that is nothing new, or about a code that was not started here: nothing of it has to survive.
    pub(super) fn settle(
        &mut self,
        code: &WatchCode,
        report: Arc<Report>,
        asked: Instant,
    ) -> (Settled, Vec<Removal>) {
        let mut removals = Vec::new();
        let before = self.payments.get(code).cloned().unwrap_or_default();
        let observation = Observation {
            report: before.newer(report),
            asked,
        };
        self.payments
            .hear(code, observation.clone(), &self.outbox, &mut removals);
        let settled = Settled {
            observation,
            before,
            paid_twice_with: None,
        };
        (settled, removals)
    }

    /// Forgets what has had its time.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Removal> {
        let mut removals = Vec::new();
        let keys = self.answers.expire(self.ttl, now);
        removals.extend(keys.into_iter().map(Removal::Answer));
        self.payments
            .expire(self.ttl, now, &self.outbox, &mut removals);
        let deliveries = self.outbox.sweep(self.ttl, now);
        removals.extend(deliveries.into_iter().map(Removal::Delivery));
        removals
    }

    /// Puts back a payment that was written before this process began; it is kept for its time from `finished` on, if it
    /// is final.
    pub(super) fn restore_payment(&mut self, record: Record, finished: Instant) -> Vec<Removal> {
        let mut removals = Vec::new();
        let number = record.stored.as_ref().map_or(0, |stored| stored.number);
        self.numbers.payment = self.numbers.payment.max(number);
        self.payments.restore(record, finished, &mut removals);
        removals
    }

    /// Puts back a change, given the number of its payment. What is kept of the changes begins after one whose payment
    /// is not kept any more, so that it has no gap.
    pub(super) fn restore_change(
        &mut self,
        position: u64,
        payment: u64,
        report: Option<Arc<Report>>,
        paid_twice_with: Option<WatchCode>,
    ) {
        // Its number is not given to another payment while something names it.
        self.numbers.payment = self.numbers.payment.max(payment);
        self.numbers.position = self.numbers.position.max(position);
        match self.payments.by_number(payment) {
            Some(stored) => self.changes.add(Change {
                position,
                stored,
                report,
                paid_twice_with,
            }),
            None => self.changes.begin_after(position),
        }
    }

    /// Puts back an answer; the oldest comes first.
    pub(super) fn restore_answer(&mut self, answer: Answer) {
        self.answers.add(Arc::new(answer));
    }

    /// Puts back a message to the app.
    pub(super) fn restore_delivery(&mut self, delivery: Delivery) {
        self.numbers.delivery = self.numbers.delivery.max(delivery.number);
        self.numbers.payment = self.numbers.payment.max(delivery.payment);
        self.outbox.put(Arc::new(delivery));
    }
}

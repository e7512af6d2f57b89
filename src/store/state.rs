//! Everything that the store knows, as a plain value. What must survive enters it only when it has been written.

pub(super) mod changes;
mod counts;
mod eviction;
pub(super) mod keys;
mod names;
pub(super) mod outbox;
pub(super) mod paid;
pub(super) mod payments;
#[cfg(test)]
mod tests;
mod weight;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use self::changes::Journal;
use self::keys::Answers;
use self::outbox::Deliveries;
use self::paid::PaidReference;
use self::payments::Records;
pub(crate) use self::weight::KEY_BYTES;
use crate::clock::Instant;
use crate::payment::{Reference, Report, WatchCode};
use crate::store::event::{Event, Removal};
use crate::store::model::{
    Answer, Change, Completion, Compose, Delivery, Limits, Observation, Record, Settled,
};

/// The journal may take this part of the bytes that everything may take.
const JOURNAL_SHARE: u64 = 16;

/// When nothing may go, it is tried again after this time: looking for it takes time.
const FULL_FOR: Duration = Duration::from_secs(1);

/// The state. Time comes in as an argument; rows that have to go come out as [`Removal`]s.
pub(super) struct State {
    limits: Limits,
    /// Makes the messages to the app, if it gets messages.
    pub(super) compose: Option<Compose>,
    /// Nothing may go until then: it was tried.
    full_until: Option<Instant>,
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

impl Numbers {
    /// An event has these numbers, whoever gave them.
    fn note(&mut self, event: &Event) {
        let payment = event.payment().map_or(0, |payment| payment.stored.number);
        self.payment = self.payment.max(payment);
        let position = event.change().map_or(0, |change| change.position);
        self.position = self.position.max(position);
        let delivery = event.delivery().map_or(0, |delivery| delivery.number);
        self.delivery = self.delivery.max(delivery);
    }
}

impl State {
    /// An empty one; nothing that was started or completed since then is missing.
    pub(super) fn new(limits: Limits, compose: Option<Compose>, complete_since: Timestamp) -> Self {
        Self {
            limits,
            compose,
            full_until: None,
            payments: Records::new(limits, compose.is_some(), complete_since),
            changes: Journal::new(limits.bytes / JOURNAL_SHARE),
            answers: Answers::default(),
            outbox: Deliveries::default(),
            numbers: Numbers::default(),
        }
    }

    /// Returns the limits of all of it.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns how many bytes all of it takes, by an upper estimate.
    pub(super) fn bytes(&self) -> u64 {
        self.payments.bytes() + self.changes.bytes() + self.answers.bytes() + self.outbox.bytes()
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

    /// Makes an event true that has been written. Applied a second time it changes nothing.
    pub(super) fn apply(&mut self, event: &Event) -> Vec<Removal> {
        let removals = self.apply_to_payments(event);
        self.numbers.note(event);
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

    /// Makes an event true that could not be written yet, and is not refusable: what callers ask for knows it, and nobody
    /// is sent a message about it before it is written.
    pub(super) fn apply_unwritten(&mut self, event: &Event) -> Vec<Removal> {
        if let Event::Delivery(delivery) = event {
            self.outbox.put(delivery.clone());
        }
        self.apply_to_payments(event)
    }

    fn apply_to_payments(&mut self, event: &Event) -> Vec<Removal> {
        let mut removals = Vec::new();
        match event {
            Event::Started { stored, .. } => {
                self.payments.start(stored, &self.outbox, &mut removals);
            }
            Event::Observed {
                stored,
                observation,
                completion,
                ..
            } => self.payments.observe(
                stored,
                observation,
                completion.as_ref(),
                &self.outbox,
                &mut removals,
            ),
            Event::PollingEnded { stored, .. } => self.payments.end_polling(stored),
            Event::Again { .. } | Event::Delivery(_) => {}
        }
        removals
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
        let stored = before.stored.as_ref();
        if stored.is_some_and(|stored| asked < stored.since) {
            // It is about what had this code until then.
            let observation = Observation { report, asked };
            let settled = Settled {
                observation,
                before,
                completion: None,
            };
            return (settled, removals);
        }
        let observation = Observation {
            report: before.newer(report),
            asked,
        };
        self.payments
            .hear(code, observation.clone(), &self.outbox, &mut removals);
        self.make_room(asked, &mut removals);
        let settled = Settled {
            observation,
            before,
            completion: None,
        };
        (settled, removals)
    }

    /// Forgets what has had its time, and what there is no room for.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Removal> {
        let mut removals = Vec::new();
        let keys = self.answers.expire(self.limits.answers, now);
        removals.extend(keys.into_iter().map(Removal::Answer));
        self.payments.expire(now, &self.outbox, &mut removals);
        let deliveries = self.outbox.sweep();
        removals.extend(deliveries.into_iter().map(Removal::Delivery));
        self.make_room(now, &mut removals);
        removals
    }

    /// Lets things go until there is room for one more payment; returns whether there is.
    pub(super) fn make_room(&mut self, now: Instant, removals: &mut Vec<Removal>) -> bool {
        if self.full_until.is_some_and(|until| now < until) {
            return false;
        }
        self.full_until = None;
        while self.bytes() > self.limits.bytes {
            if !self.let_one_go(now, removals) {
                self.full_until = Some(now + FULL_FOR);
                return false;
            }
        }
        true
    }

    /// First what was only asked for here, then what has finished, the oldest first, then open payments that are not
    /// polled in the background any more. Returns whether something went.
    fn let_one_go(&mut self, now: Instant, removals: &mut Vec<Removal>) -> bool {
        if self.payments.let_heard_go() {
            return true;
        }
        let payment = self.payments.oldest_finished(&self.outbox);
        let message = self.outbox.oldest_finished();
        if let Some((at, _)) = message
            && payment.as_ref().is_none_or(|(finished, _)| at < *finished)
        {
            let number = self.outbox.forget_oldest_finished();
            removals.extend(number.map(Removal::Delivery));
            return true;
        }
        let payment = payment.map(|(_, stored)| stored);
        let payment = payment.or_else(|| self.payments.oldest_ended(now, &self.outbox));
        let Some(stored) = payment else {
            return false;
        };
        self.payments.let_go(&stored, removals);
        true
    }

    /// Takes over from a state that this one takes the place of: who waits here, what was only asked for here, and what is
    /// being posted from here at this moment.
    pub(super) fn take_over(&mut self, before: Self) {
        // No number is given twice, also where some were given for nothing.
        let (numbers, last) = (&mut self.numbers, before.numbers);
        numbers.payment = numbers.payment.max(last.payment);
        numbers.delivery = numbers.delivery.max(last.delivery);
        self.outbox.take_over(before.outbox);
        for (code, observation) in self.payments.take_over(before.payments) {
            let mut removals = Vec::new();
            self.payments
                .hear(&code, observation, &self.outbox, &mut removals);
        }
    }

    /// Puts back a payment that was written before this process began; it is kept for its time from `finished` on, if it
    /// is completed.
    pub(super) fn restore_payment(
        &mut self,
        record: Record,
        completion: Option<Completion>,
        finished: Instant,
    ) -> Vec<Removal> {
        let mut removals = Vec::new();
        let number = record.stored.as_ref().map_or(0, |stored| stored.number);
        self.numbers.payment = self.numbers.payment.max(number);
        self.payments
            .restore(record, completion, finished, &mut removals);
        removals
    }

    /// Puts back what the reference of a payment needs that had left the lists.
    pub(super) fn restore_paid(&mut self, reference: &Reference, paid: PaidReference) {
        self.numbers.payment = self.numbers.payment.max(paid.number);
        self.payments.restore_paid(reference, paid);
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

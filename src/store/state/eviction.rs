//! What is let go: when its time is over, and when there is no more room.

use std::sync::Arc;

use super::outbox::Deliveries;
use super::paid::{self, PaidReference};
use super::payments::{Closed, Records};
use crate::clock::Instant;
use crate::payment::WatchCode;
use crate::store::event::Removal;
use crate::store::model::{Fate, Record, StoredPayment};

impl Records {
    /// Forgets completed payments that have been kept for their time, and open payments that are too old. One that somebody
    /// waits for, or about which the app is owed a message, stays.
    pub(super) fn expire(&mut self, now: Instant, owed: &Deliveries, removals: &mut Vec<Removal>) {
        let kept = self.limits.finished;
        let finished = self.finished.iter();
        let finished = finished.take_while(|(at, _)| now - *at >= kept);
        let finished = finished.filter_map(|(_, number)| self.closed.get(number));
        let open_for = self.limits.open();
        let open = self.open.values();
        let open = open.take_while(|stored| now - stored.since >= open_for);
        let over = finished.map(|closed| &closed.stored).chain(open);
        let over = over.filter(|stored| self.is_idle(stored, owed));
        for stored in over.cloned().collect::<Vec<_>>() {
            self.forget(&stored);
            removals.push(Removal::Payment(stored.number));
        }
        let paid = self.paid.expire(kept, now);
        removals.extend(paid.into_iter().map(Removal::Payment));
    }

    /// Lets a code go that was not started here; returns whether there was one.
    pub(super) fn let_heard_go(&mut self) -> bool {
        let Some(code) = self.oldest_heard() else {
            return false;
        };
        self.drop_record(&code);
        true
    }

    /// Returns the completed payment that may go first, and since when it is kept for its time.
    pub(super) fn oldest_finished(
        &self,
        owed: &Deliveries,
    ) -> Option<(Instant, Arc<StoredPayment>)> {
        let may_go = |closed: &&Closed| self.is_idle(&closed.stored, owed);
        let finished = self.finished.iter();
        let mut finished = finished.filter_map(|(_, number)| self.closed.get(number));
        let oldest = finished.find(may_go)?;
        Some((oldest.finished, oldest.stored.clone()))
    }

    /// Returns the oldest open payment that is not polled in the background any more, and may go.
    pub(super) fn oldest_ended(
        &self,
        now: Instant,
        owed: &Deliveries,
    ) -> Option<Arc<StoredPayment>> {
        let open = self.open.values();
        let mut ended = open.take_while(|stored| now - stored.since >= self.limits.polled);
        let may_go = |stored: &&Arc<StoredPayment>| {
            self.is_idle(stored, owed) && (!self.has_webhook || self.has_ended(stored))
        };
        ended.find(may_go).cloned()
    }

    /// Lets a payment go before its time. The reference of a completed one stays.
    pub(in crate::store) fn let_go(&mut self, stored: &StoredPayment, removals: &mut Vec<Removal>) {
        let (record, closed) = self.forget(stored);
        let report = record.and_then(|record| record.observation?.report.into());
        let stays = match (stored.payment.reference(), closed, report) {
            (Some(reference), Some(closed), Some(report)) => {
                let paid = PaidReference {
                    number: stored.number,
                    fate: Fate {
                        watch_code: stored.payment.watch_code.clone(),
                        amount: stored.payment.amount,
                        report: Some(paid::outline(&report)),
                    },
                    finished: closed.finished,
                };
                self.paid.add(reference, paid)
            }
            _ => false,
        };
        removals.push(if stays {
            Removal::AllButReference(stored.number)
        } else {
            Removal::Payment(stored.number)
        });
    }

    /// Forgets the payment whose watch code is about to be another's.
    pub(super) fn displace(&mut self, code: &WatchCode, removals: &mut Vec<Removal>) {
        let before = self.by_code.get(code);
        if let Some(stored) = before.and_then(|record| record.stored.clone()) {
            self.forget(&stored);
            removals.push(Removal::Payment(stored.number));
        }
    }

    /// Makes sure that this code has a place, for which others may have to go.
    pub(super) fn take_place(
        &mut self,
        code: &WatchCode,
        owed: &Deliveries,
        removals: &mut Vec<Removal>,
    ) {
        if self.by_code.contains_key(code) {
            return;
        }
        while self.by_code.len() >= self.limits.watch_codes {
            if self.let_heard_go() {
                self.counts.let_go += 1;
                continue;
            }
            let Some(oldest) = self.oldest(owed) else {
                break;
            };
            self.let_go(&oldest, removals);
            self.counts.let_go += 1;
        }
        self.counts.add(&Record::default(), 1);
        self.by_code.insert(code.clone(), Record::default());
    }

    /// Takes the oldest that was not started here, and that nobody waits for, out of its row.
    fn oldest_heard(&mut self) -> Option<WatchCode> {
        for _ in 0..self.heard.len() {
            let code = self.heard.pop_front()?;
            match self.by_code.get(&code) {
                Some(record) if record.stored.is_none() => {
                    if !self.pinned.contains(&code) {
                        return Some(code);
                    }
                    self.heard.push_back(code);
                }
                // It was started after it was asked for, and is in another row.
                _ => {}
            }
        }
        None
    }

    /// Returns the payment that was started first of those that may go before their time.
    fn oldest(&self, owed: &Deliveries) -> Option<Arc<StoredPayment>> {
        // One that holds a reference stays while it is open.
        let may_go = |stored: &&Arc<StoredPayment>| {
            self.is_idle(stored, owed)
                && stored.payment.reference().is_none()
                && (!self.has_webhook || self.has_ended(stored))
        };
        let open = self.open.values().find(may_go);
        let closed = self.closed.values().map(|closed| &closed.stored);
        let closed = closed.clone().find(|stored| self.is_idle(stored, owed));
        let oldest = open.into_iter().chain(closed);
        oldest.min_by_key(|stored| stored.number).cloned()
    }

    /// Returns whether nobody waits for this payment, and the app is owed no message about it.
    fn is_idle(&self, stored: &StoredPayment, owed: &Deliveries) -> bool {
        !self.pinned.contains(&stored.payment.watch_code) && !owed.owes(stored.number)
    }

    /// Returns whether the message was made that says that it is not polled any more.
    fn has_ended(&self, stored: &StoredPayment) -> bool {
        let record = self.by_code.get(&stored.payment.watch_code);
        record.is_none_or(|record| record.polling_ended)
    }
}

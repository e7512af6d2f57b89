//! What was written down before this process began, put back into the state.

use std::sync::Arc;

use super::super::outbox::Delivery;
use super::super::{Record, StoredPayment};
use super::State;
use crate::clock::Instant;

impl State {
    /// What was written down before this process began: a payment, and since when it is final, if it is.
    pub(in crate::store) fn restore(&mut self, record: Record, finished: Instant) {
        let Some(stored) = record.stored.clone() else {
            return;
        };
        self.numbers.payment = self.numbers.payment.max(stored.number);
        self.count(&record, 1);
        match &record.observation {
            Some(observation) if observation.report.status.is_final() => {
                self.closed.insert(stored.number, stored.clone());
                self.finished.push_back((finished, stored.number));
            }
            _ => {
                self.open.insert(stored.number, stored.clone());
            }
        }
        // The row of a payment the watch code of which is another's by now may still have been there.
        if let Some(older) = self
            .records
            .insert(stored.payment.watch_code.clone(), record)
        {
            self.displaced(&older);
        }
    }

    /// A message to the app.
    pub(in crate::store) fn restore_delivery(&mut self, delivery: Delivery) {
        self.numbers.delivery = self.numbers.delivery.max(delivery.number);
        self.numbers.payment = self.numbers.payment.max(delivery.payment);
        self.outbox.put(Arc::new(delivery));
    }

    /// That was all. What has had its time meanwhile is not shown to anybody.
    pub(in crate::store) fn restored(&mut self) {
        self.finished.make_contiguous().sort();
        self.numbers.position = self.journal.position();
        self.sweep();
    }

    /// The payment of that number.
    pub(in crate::store) fn by_number(&self, number: u64) -> Option<Arc<StoredPayment>> {
        self.open
            .get(&number)
            .or_else(|| self.closed.get(&number))
            .cloned()
    }
}

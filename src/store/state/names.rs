//! By which names a payment is found, beside its watch code.

use std::collections::HashMap;
use std::sync::Arc;

use crate::payment::{Code, Reference, WatchCode};
use crate::store::model::StoredPayment;

/// The codes of pay pages, and the app's own references.
#[derive(Default)]
pub(super) struct Names {
    by_pay_code: HashMap<Code, WatchCode>,
    /// The payments of each reference that are still kept, the latest last.
    by_reference: HashMap<Reference, Vec<Arc<StoredPayment>>>,
}

impl Names {
    /// Returns the watch code of the payment with this pay page.
    pub(super) fn watch_code(&self, code: &Code) -> Option<&WatchCode> {
        self.by_pay_code.get(code)
    }

    pub(super) fn of_reference(&self, reference: &Reference) -> &[Arc<StoredPayment>] {
        self.by_reference.get(reference).map_or(&[], Vec::as_slice)
    }

    /// Adds a payment. Returns the watch codes of the older ones of its reference.
    pub(super) fn add(&mut self, stored: &Arc<StoredPayment>) -> Vec<WatchCode> {
        let payment = &stored.payment;
        self.by_pay_code
            .insert(payment.code.clone(), payment.watch_code.clone());
        let Some(reference) = payment.reference() else {
            return Vec::new();
        };
        let all = self.by_reference.entry(reference.clone()).or_default();
        let older = all.iter().map(|older| older.payment.watch_code.clone());
        let older = older.collect();
        all.push(stored.clone());
        older
    }

    pub(super) fn remove(&mut self, stored: &StoredPayment) {
        let payment = &stored.payment;
        if self.by_pay_code.get(&payment.code) == Some(&payment.watch_code) {
            self.by_pay_code.remove(&payment.code);
        }
        let Some(reference) = payment.reference() else {
            return;
        };
        if let Some(all) = self.by_reference.get_mut(reference) {
            all.retain(|other| other.number != stored.number);
            if all.is_empty() {
                self.by_reference.remove(reference);
            }
        }
    }
}

//! References that were paid, and whose payments had to leave the lists before their time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::weight;
use crate::clock::Instant;
use crate::json::{self, Json};
use crate::payment::{Reference, Report};
use crate::store::model::Fate;

/// What a reference still needs of its payment, by reference.
#[derive(Default)]
pub(in crate::store) struct PaidReferences {
    by_reference: HashMap<Reference, PaidReference>,
    /// By the moment from which on each is kept for its time, and by the number of its payment.
    in_order: BTreeMap<(Instant, u64), Reference>,
    bytes: u64,
}

/// That the payment of a reference was completed.
#[derive(Clone)]
pub(in crate::store) struct PaidReference {
    /// The payment's number.
    pub(in crate::store) number: u64,
    pub(in crate::store) fate: Fate,
    /// Since when it is kept for its time.
    pub(in crate::store) finished: Instant,
}

impl PaidReferences {
    pub(super) fn get(&self, reference: &Reference) -> Option<&PaidReference> {
        self.by_reference.get(reference)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds one, unless the reference was paid by another payment before. Returns whether it did.
    pub(super) fn add(&mut self, reference: &Reference, paid: PaidReference) -> bool {
        let before = self.by_reference.get(reference).map(|paid| paid.number);
        if before.is_some_and(|before| before != paid.number) {
            return false;
        }
        self.remove(reference);
        self.bytes += weight::paid(reference, &paid.fate);
        self.in_order
            .insert((paid.finished, paid.number), reference.clone());
        self.by_reference.insert(reference.clone(), paid);
        true
    }

    /// Forgets those that were completed this long ago; returns their payments' numbers.
    pub(super) fn expire(&mut self, kept: Duration, now: Instant) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some((&(finished, number), reference)) = self.in_order.first_key_value()
            && now - finished >= kept
        {
            let reference = reference.clone();
            self.remove(&reference);
            numbers.push(number);
        }
        numbers
    }

    fn remove(&mut self, reference: &Reference) {
        if let Some(paid) = self.by_reference.remove(reference) {
            self.bytes -= weight::paid(reference, &paid.fate);
            self.in_order.remove(&(paid.finished, paid.number));
        }
    }
}

/// Returns what is left of a report that a reference needs: that it was paid, and when.
pub(in crate::store) fn outline(report: &Report) -> Arc<Report> {
    let object = json::parse_object(report.body.as_bytes()).unwrap_or_default();
    let at = json::get(&object, "completed_at").cloned();
    let outline = vec![
        ("completed_at".to_owned(), at.unwrap_or_else(Json::null)),
        ("status".to_owned(), Json::Text(report.status.to_string())),
    ];
    let body = Json::Object(outline).to_string();
    Arc::new(Report {
        status: report.status.clone(),
        fingerprint: json::fingerprint(&body),
        body: body.into(),
    })
}

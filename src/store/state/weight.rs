//! How much memory things take, by an upper estimate: what they say, and room for the structures that hold them.
//!
//! The constants are for hash maps that have just grown, and for what the poller keeps of a payment.

use crate::payment::Reference;
use crate::store::model::{Answer, Change, Delivery, Fate, Record, StartBody, StoredPayment};

const RECORD: usize = 256;
const PAYMENT: usize = 320;
const REPORT: usize = 128;
/// A payment that was not asked for yet has room for a report of this length: none makes the store overflow later.
const USUAL_REPORT: usize = 256;
const REFERENCE: usize = 192;
const ANSWER: usize = 320;
const PAID: usize = 320;
const CHANGE: usize = 96;
const DELIVERY: usize = 576;
/// An open payment has room for a message of this length, where the app gets messages: none makes the store overflow.
const USUAL_MESSAGE: usize = DELIVERY + 448;

/// Returns the weight of what is known of one watch code, where the app gets messages or does not.
pub(super) fn record(record: &Record, has_webhook: bool) -> u64 {
    let observation = record.observation.as_ref();
    let said = observation.map_or(0, |observation| observation.report.body.len());
    let (payment, at_least) = match &record.stored {
        Some(stored) => (payment(stored), USUAL_REPORT),
        None => (0, 0),
    };
    let is_open = record.stored.is_some() && !record.is_final();
    let message = if is_open && has_webhook {
        USUAL_MESSAGE
    } else {
        0
    };
    bytes(RECORD + payment + REPORT + said.max(at_least) + message)
}

fn payment(stored: &StoredPayment) -> usize {
    let payment = &stored.payment;
    let referenced = payment.referenced.as_ref();
    let referenced = referenced.map_or(0, |(reference, object)| {
        REFERENCE + reference.as_str().len() + object.len()
    });
    PAYMENT + payment.code.as_str().len() + payment.watch_code.as_str().len() + referenced
}

/// What is kept of a key for its time, with names of usual lengths.
pub(crate) const KEY_BYTES: u64 = ANSWER as u64 + 192;

/// Returns the weight of what was answered under a key.
pub(super) fn answer(answer: &Answer) -> u64 {
    let StartBody {
        code,
        watch_code,
        object,
    } = &answer.body;
    let texts = [
        answer.key.as_str(),
        code.as_str(),
        watch_code.as_str(),
        object,
    ];
    bytes(ANSWER + texts.iter().map(|text| text.len()).sum::<usize>())
}

/// Returns the weight of an entry of the journal.
pub(super) fn change(change: &Change) -> u64 {
    let report = change.report.as_ref();
    bytes(CHANGE + report.map_or(0, |report| REPORT + report.body.len()))
}

/// Returns the weight of a message to the app.
pub(super) fn delivery(delivery: &Delivery) -> u64 {
    let error = delivery.last_error.as_ref();
    let codes = delivery.code.as_str().len() + delivery.watch_code.as_str().len();
    bytes(DELIVERY + codes + delivery.body.len() + error.map_or(0, String::len))
}

/// Returns the weight of a reference whose payment has left the lists.
pub(super) fn paid(reference: &Reference, fate: &Fate) -> u64 {
    let report = fate.report.as_ref();
    let said = report.map_or(0, |report| REPORT + report.body.len());
    bytes(PAID + reference.as_str().len() + fate.watch_code.as_str().len() + said)
}

fn bytes(bytes: usize) -> u64 {
    bytes as u64
}

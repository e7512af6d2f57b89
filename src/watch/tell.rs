//! What the log says of an answer.

use std::sync::Arc;

use crate::json::{self, Json};
use crate::payment::{Decimal, Report, Status, WatchCode};
use crate::store::{Observation, Record};
use crate::telemetry::RequestId;
use crate::text;

/// What is odd about an answer, and was not about the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Odd {
    /// It names another amount than was started.
    pub(super) amount: bool,
    /// The guide does not know its status.
    pub(super) status: bool,
}

/// One line for a payment that was completed after another one of its reference.
pub(super) fn tell_paid_twice(before: &Record, other: &WatchCode) {
    let Some(stored) = &before.stored else { return };
    let payment = &stored.payment;
    tracing::error!(
        reference = payment.reference().map(ToString::to_string),
        watch_code = payment.watch_code.shortened(),
        paid_twice_with = other.shortened(),
        request_id = RequestId::current().as_deref(),
        "two payments of one reference are completed: the payer may have paid twice"
    );
}

/// One line for each change of a status, and for each answer that should not be.
pub(super) fn tell(before: &Record, observation: &Observation) -> Odd {
    if before
        .observation
        .as_ref()
        .is_some_and(|before| Arc::ptr_eq(&before.report, &observation.report))
    {
        return Odd::default();
    }
    let status = &observation.report.status;
    let last = before
        .observation
        .as_ref()
        .map(|observation| &observation.report.status);
    let code = before
        .stored
        .as_ref()
        .map(|stored| stored.payment.code.shortened());
    let mut odd = Odd {
        amount: tell_amount(before, observation, code.as_deref()),
        status: false,
    };
    if last == Some(status) {
        return odd;
    }
    tracing::info!(
        code,
        from = last.map(Status::label),
        to = status.label(),
        request_id = RequestId::current().as_deref(),
        "payment status"
    );
    if let Status::Other(word) = status {
        odd.status = true;
        let status = shortened(word);
        tracing::warn!(
            code,
            status,
            request_id = RequestId::current().as_deref(),
            "the gateway gave a status that its guide does not know; it is passed on as it is"
        );
    }
    odd
}

/// Whether it names another amount than was started, and the answer before it did not name the same. Amounts are
/// compared by value.
fn tell_amount(before: &Record, observation: &Observation, code: Option<&str>) -> bool {
    let last = before
        .observation
        .as_ref()
        .map(|observation| amount(&observation.report));
    let Some(told) = amount(&observation.report) else {
        if last != Some(None) {
            tracing::warn!(
                code,
                request_id = RequestId::current().as_deref(),
                "the gateway tells no amount; the answer is passed on as it is"
            );
        }
        return false;
    };
    let Some(stored) = &before.stored else {
        return false;
    };
    let asked = stored.payment.amount.to_string();
    let is_told = |other: &str| told == other || Decimal::parse(&told) == Decimal::parse(other);
    if is_told(&asked) || last.flatten().is_some_and(|last| is_told(&last)) {
        return false;
    }
    tracing::warn!(
        code,
        asked,
        told = shortened(&told),
        request_id = RequestId::current().as_deref(),
        "the gateway tells another amount than was started"
    );
    true
}

/// As much of it as a line of the log bears, without what a terminal takes for a command.
fn shortened(text: &str) -> String {
    text::printable(text).take(100).collect()
}

/// The amount that the gateway names, as the number that it wrote: read when it is wanted, not kept for each payment.
fn amount(report: &Report) -> Option<String> {
    let object = json::parse_object(report.body.as_bytes()).unwrap_or_default();
    match json::get(&object, "amount")? {
        value if value.is_null() => None,
        Json::Text(number) => Some(number.clone()),
        number => Some(number.to_string()),
    }
}

//! What the log says of an answer.

use std::sync::Arc;

use crate::json::{self, Json};
use crate::payment::{Report, Status};
use crate::store::{Record, Seen};

/// What is odd about an answer, and was not about the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Odd {
    /// It names another amount than was started.
    pub(super) amount: bool,
    /// The guide does not know its status.
    pub(super) status: bool,
}

/// One line for each change of a status, and for each answer that should not be.
pub(super) fn tell(before: &Record, seen: &Seen) -> Odd {
    let mut odd = Odd::default();
    if before.seen.as_ref().is_some_and(|before| Arc::ptr_eq(&before.report, &seen.report)) {
        return odd;
    }
    let status = &seen.report.status;
    let last = before.seen.as_ref().map(|seen| &seen.report.status);
    let payment = before.tracked.as_ref().map(|tracked| &tracked.payment);
    let code = payment.map(|payment| payment.code.to_string());
    if let Some(payment) = payment {
        let (asked, told) = (payment.amount.to_string(), amount(&seen.report));
        if told != asked && before.seen.as_ref().is_none_or(|before| amount(&before.report) != told) {
            tracing::warn!(code, asked, told = shortened(&told), "the gateway tells another amount than was started");
            odd.amount = true;
        }
    }
    if last == Some(status) {
        return odd;
    }
    tracing::info!(code, from = last.map(Status::label), to = status.label(), "payment status");
    if let Status::Other(word) = status {
        odd.status = true;
        let status = shortened(word);
        tracing::warn!(
            code,
            status,
            "the gateway gave a status that its guide does not know; it is passed on as it is"
        );
    }
    odd
}

/// As much of it as a line of the log bears.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(100).map_or(text, |(end, _)| &text[..end])
}

/// The amount that the gateway names, as the text it was: read when it is wanted, not kept for each payment.
fn amount(report: &Report) -> String {
    let object = json::parse_object(report.body.as_bytes()).unwrap_or_default();
    json::get(&object, "amount").map(Json::to_string).unwrap_or_default()
}

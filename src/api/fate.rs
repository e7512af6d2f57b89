//! What an error says of the payment that a key or a reference belongs to.

use crate::json;
use crate::store::Fate;

pub(super) fn is_completed(fate: &Fate) -> bool {
    fate.report
        .as_ref()
        .is_some_and(|report| report.status.is_final())
}

/// Returns what the gateway says of the time at which it was paid, as JSON.
pub(super) fn completed_at(fate: &Fate) -> String {
    let object = fate
        .report
        .as_ref()
        .and_then(|report| json::parse_object(report.body.as_bytes()).ok());
    let at = object
        .as_ref()
        .and_then(|object| json::get(object, "completed_at"));
    at.map_or_else(|| "null".to_owned(), ToString::to_string)
}

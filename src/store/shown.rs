//! A payment as lists, events and webhooks show it.

use super::model::Subject;
use crate::json::{self, Json, Object};
use crate::payment::Status;

/// The guide's fields, null where they are not known yet, what else the gateway reported, and both codes.
///
/// The app's own reference, the amount of the start, and the watch code of a payment of the same reference that was
/// completed before come last, under names that are ours.
pub(crate) fn shown(subject: Subject<'_>) -> Object {
    let Subject {
        stored,
        report,
        paid_twice_with,
    } = subject;
    // A report's body is an object: it was one when it came.
    let mut object = report
        .and_then(|report| json::parse_object(report.body.as_bytes()).ok())
        .unwrap_or_default();
    let mut default = |name: &str, value: Json| {
        if json::get(&object, name).is_none() {
            object.push((name.to_owned(), value));
        }
    };
    default("status", Json::Text(Status::Created.to_string()));
    // Once the gateway has answered its amount is its own: where it names none, none is made up.
    let amount = report.map_or_else(
        || Json::Literal(stored.payment.amount.to_string().into()),
        |_| Json::null(),
    );
    default("amount", amount);
    for name in ["merchant", "created_at", "completed_at"] {
        default(name, Json::null());
    }
    json::set(
        &mut object,
        "code",
        Json::Text(stored.payment.code.to_string()),
    );
    json::set(
        &mut object,
        "watch_code",
        Json::Text(stored.payment.watch_code.to_string()),
    );
    let text = |text: Option<String>| text.map_or(Json::null(), Json::Text);
    let reference = stored.payment.reference().map(ToString::to_string);
    json::set(&mut object, "reference", text(reference));
    let requested = Json::Literal(stored.payment.amount.to_string().into());
    json::set(&mut object, "requested_amount", requested);
    let other = paid_twice_with.map(ToString::to_string);
    json::set(&mut object, "paid_twice_with", text(other));
    object
}

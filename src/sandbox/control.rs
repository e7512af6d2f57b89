//! The requests below `/_sandbox`, by which tests and people control a sandbox.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::fault::{Fault, Operation};
use super::pages;
use super::reply::{Reply, quoted, with};
use super::request::{self, Change};
use super::shared::Shared;
use crate::server::Body;

pub(super) fn complete_now(shared: &Shared, code: &str) -> Reply {
    match shared.ledger().complete(code) {
        Some(payment) => Reply::watched(payment, &shared.merchant),
        None => Reply::message(StatusCode::NOT_FOUND, "Unknown payment code"),
    }
}

pub(super) fn replace_faults(shared: &Shared, body: &[u8]) -> Reply {
    match request::faults(body) {
        Ok(faults) => {
            *shared.faults() = faults;
            list_faults(shared)
        }
        Err(refusal) => refusal,
    }
}

/// Changes the faults by the form of the page, and sends the browser back to it. A fault to remove that is no longer set is
/// ignored.
pub(super) fn change_faults(shared: &Shared, change: &Change, host: &str) -> Response<Body> {
    let mut faults = shared.faults();
    match change {
        Change::Add(text) => match text.parse::<Fault>() {
            Ok(fault) => faults.push(fault),
            Err(error) => return pages::bad_fault(&faults, host, text, &error.to_string()),
        },
        Change::Remove(text) => {
            if let Some(found) = faults.iter().position(|fault| fault.to_string() == *text) {
                faults.remove(found);
            }
        }
        Change::Clear => faults.clear(),
    }
    let mut seen = with(
        pages::faults(&faults, host),
        header::LOCATION,
        HeaderValue::from_static("/_sandbox/faults"),
    );
    *seen.status_mut() = StatusCode::SEE_OTHER;
    seen
}

pub(super) fn list_faults(shared: &Shared) -> Reply {
    let faults: Vec<_> = shared
        .faults()
        .iter()
        .map(|fault| quoted(&fault.to_string()))
        .collect();
    Reply::ok().json("faults", format!("[{}]", faults.join(",")))
}

pub(super) fn list_calls(shared: &Shared) -> Reply {
    let [start, watch] = [Operation::Start, Operation::Watch].map(|operation| {
        let calls = shared.count(operation);
        (calls.count, calls.busiest_second)
    });
    Reply::ok()
        .json("start", start.0.to_string())
        .json("watch", watch.0.to_string())
        .json(
            "busiest_second",
            format!(r#"{{"start":{},"watch":{}}}"#, start.1, watch.1),
        )
}

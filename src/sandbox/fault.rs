//! Faults on demand: the ways in which a gateway goes wrong, and when one of them does.

use std::time::Duration;

use crate::random;

/// The two calls of the gateway's API that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `POST /api/start_payment`
    Start,
    /// `GET /watch/{watch_code}`
    Watch,
}

/// One way to go wrong, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub(super) operation: Operation,
    /// `None` only delays the answer.
    pub(super) kind: Option<Kind>,
    /// The delay between the effect of the call and its answer, as in a slow network.
    pub(super) delay: Option<Duration>,
    /// The share of calls that it hits, from 0 to 1.
    pub(super) rate: f64,
    /// How many calls it may still hit; `None` for any number.
    pub(super) count: Option<u64>,
}

/// What goes wrong. The faults of one word are described in [`WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Status { code: u16, retry_after: Option<u64> },
    Reset,
    Truncate,
    Hang,
    Redirect,
    EchoSecret,
    Huge,
    NotJson,
    Encoded,
    MissingField,
    BadCode,
    Reopen,
    UnknownStatus,
    WrongAmount,
}

use Operation::{Start, Watch};

/// The kinds of one word, the calls that can have them, and what a caller sees then.
pub(super) const WORDS: [(&str, Kind, &[Operation], &str); 13] = [
    (
        "reset",
        Kind::Reset,
        &[Start, Watch],
        "the connection is cut without an answer",
    ),
    (
        "truncate",
        Kind::Truncate,
        &[Start, Watch],
        "half of the answer, then the connection is cut",
    ),
    (
        "hang",
        Kind::Hang,
        &[Start, Watch],
        "no answer, for ten minutes",
    ),
    (
        "redirect",
        Kind::Redirect,
        &[Start, Watch],
        "a redirect to somewhere else",
    ),
    (
        "echo-secret",
        Kind::EchoSecret,
        &[Start, Watch],
        "the merchant secret stands in the answer",
    ),
    ("huge", Kind::Huge, &[Start, Watch], "an answer of 1 MiB"),
    (
        "not-json",
        Kind::NotJson,
        &[Start, Watch],
        "an HTML page, with status 200",
    ),
    (
        "encoded",
        Kind::Encoded,
        &[Start, Watch],
        "a compressed answer that nobody asked for",
    ),
    (
        "missing-field",
        Kind::MissingField,
        &[Start, Watch],
        "an answer without its watch_code or status",
    ),
    (
        "bad-code",
        Kind::BadCode,
        &[Start],
        "codes with a slash in them",
    ),
    (
        "reopen",
        Kind::Reopen,
        &[Watch],
        "a completed payment is reported as created again",
    ),
    (
        "unknown-status",
        Kind::UnknownStatus,
        &[Watch],
        "a status that the guide does not have",
    ),
    (
        "wrong-amount",
        Kind::WrongAmount,
        &[Watch],
        "another amount than that of the start",
    ),
];

impl Fault {
    /// Returns the first fault that hits this call. Removes it if its count is used up.
    pub(super) fn fire(faults: &mut Vec<Fault>, operation: Operation) -> Option<Fault> {
        let hit = faults
            .iter()
            .position(|fault| fault.operation == operation && random::fraction() < fault.rate)?;
        match &mut faults[hit].count {
            Some(1) => Some(faults.remove(hit)),
            Some(left) => {
                *left -= 1;
                Some(faults[hit].clone())
            }
            None => Some(faults[hit].clone()),
        }
    }

    /// Returns whether the call takes effect although its answer is wrong. The other faults stand for something in front of
    /// the gateway that answers in its place.
    pub(super) fn takes_effect(&self) -> bool {
        !matches!(
            self.kind,
            Some(Kind::Status { .. } | Kind::Redirect | Kind::NotJson)
        )
    }
}

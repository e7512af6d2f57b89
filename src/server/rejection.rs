//! What the form of a request is refused for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Why a request gets no further than its form. The connection ends after the answer, and no later byte of it is read as
/// a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// It is not a request as RFC 9112 has it, or two readers could read it in two ways; says where.
    Malformed(&'static str),
    /// The head is over 16 KiB, or has more than 100 fields.
    HeadersTooLarge,
    /// The target is over 8 KiB.
    TargetTooLong,
    /// It expects something else than `100-continue`.
    Expectation,
    /// The head did not come in time.
    TooSlow,
    /// There are as many connections as there may be.
    Overloaded,
}

/// What was decided about the requests of one connection, in their order; the gate writes it, and the connection reads it.
pub(super) type Verdicts = Arc<Mutex<VecDeque<Option<Rejection>>>>;

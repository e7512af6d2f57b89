//! What a start takes, and what it gives.

use crate::json::Object;
use crate::payment::{Amount, Code, WatchCode};

/// The payment to start.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Between `start.min_amount` and `start.max_amount`.
    pub(crate) amount: Amount,
    /// Further fields, which the operator allows. None has the name of a field that this program sets.
    pub(crate) extra: Object,
}

/// A payment that the gateway has started.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    /// The code of the pay page.
    pub(crate) code: Code,
    /// The code of the status.
    pub(crate) watch_code: WatchCode,
    /// The object that the gateway answered, without the secret.
    pub(crate) answer: Object,
}

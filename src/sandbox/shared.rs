//! The state of a sandbox, which its clones share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::calls::Calls;
use super::fault::{Fault, Operation};
use super::ledger::Ledger;

pub(super) struct Shared {
    pub(super) secret: String,
    pub(super) merchant: String,
    ledger: Mutex<Ledger>,
    faults: Mutex<Vec<Fault>>,
    starts: Mutex<Calls>,
    watches: Mutex<Calls>,
}

impl Shared {
    /// The state of a sandbox without payments.
    pub(super) fn new(
        secret: String,
        merchant: String,
        auto_complete: Option<Duration>,
        faults: Vec<Fault>,
    ) -> Self {
        Self {
            secret,
            merchant,
            ledger: Mutex::new(Ledger::new(auto_complete)),
            faults: Mutex::new(faults),
            starts: Mutex::default(),
            watches: Mutex::default(),
        }
    }

    /// Locks the counters of the calls of this kind.
    pub(super) fn count(&self, operation: Operation) -> MutexGuard<'_, Calls> {
        let calls = match operation {
            Operation::Start => &self.starts,
            Operation::Watch => &self.watches,
        };
        calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the payments.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the faults that are set.
    pub(super) fn faults(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

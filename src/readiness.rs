//! Readiness: the program is ready when all latches are dropped, so that no place has to set a flag.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The checks that readiness depends on, by name, each with the number of its latches. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<Mutex<BTreeMap<&'static str, usize>>>);

/// Makes its check fail until it is dropped.
#[derive(Debug)]
pub(crate) struct Latch {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Returns a latch for this check.
    pub(crate) fn latch(&self, name: &'static str) -> Latch {
        self.with(|latches| *latches.entry(name).or_default() += 1);
        Latch {
            name,
            readiness: self.clone(),
        }
    }

    /// Returns the name of each check, and whether it passes.
    pub(crate) fn checks(&self) -> Vec<(&'static str, bool)> {
        self.with(|latches| {
            latches
                .iter()
                .map(|(name, held)| (*name, *held == 0))
                .collect()
        })
    }

    /// Returns whether all checks pass.
    pub(crate) fn is_ready(&self) -> bool {
        self.with(|latches| latches.values().all(|held| *held == 0))
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<&'static str, usize>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness.with(|latches| {
            if let Some(held) = latches.get_mut(self.name) {
                *held -= 1;
            }
        });
    }
}

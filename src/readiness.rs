//! Readiness: ready is "every latch is dropped", not a flag that five places set.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Holds the names of everything that readiness depends on, and how many latches each still has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<Mutex<BTreeMap<&'static str, usize>>>);

/// While it lives, its check fails.
#[derive(Debug)]
pub(crate) struct Latch {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Takes a latch: not ready until it is dropped.
    pub(crate) fn latch(&self, name: &'static str) -> Latch {
        self.with(|latches| *latches.entry(name).or_default() += 1);
        Latch {
            name,
            readiness: self.clone(),
        }
    }

    /// Every check by name, and whether it passes.
    pub(crate) fn checks(&self) -> Vec<(&'static str, bool)> {
        self.with(|latches| {
            latches
                .iter()
                .map(|(name, held)| (*name, *held == 0))
                .collect()
        })
    }

    /// All checks pass.
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

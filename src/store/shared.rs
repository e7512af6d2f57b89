//! The state behind its lock, and what wakes those who wait for a change of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::event::{Event, Removal};
use super::state::State;

/// The state, shared by the faces of the store and the writer of its file.
pub(super) struct Shared {
    guarded: Mutex<Guarded>,
    /// The journal's last position.
    position: watch::Sender<u64>,
    /// Rings when a message has been put into the outbox.
    owed: Arc<Notify>,
}

/// What the lock guards.
pub(super) struct Guarded {
    pub(super) state: State,
    /// Rows that have to be deleted with the next write.
    removals: Vec<Removal>,
}

impl Shared {
    /// Shares this state; `removals` are rows that are still to be deleted.
    pub(super) fn new(state: State, removals: Vec<Removal>) -> Self {
        Self {
            position: watch::Sender::new(state.changes.position()),
            guarded: Mutex::new(Guarded { state, removals }),
            owed: Arc::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a receiver that changes when something is added to the journal.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.position.subscribe()
    }

    pub(super) fn owed(&self) -> Arc<Notify> {
        self.owed.clone()
    }

    /// Wakes those who wait for what this event has made true.
    pub(super) fn wake(&self, event: &Event) {
        if let Some(change) = event.change() {
            self.position.send_replace(change.position);
        }
        if event.delivery().is_some() {
            self.owed.notify_one();
        }
    }
}

impl Guarded {
    /// Returns the rows that are to be deleted now.
    pub(super) fn take_removals(&mut self) -> Vec<Removal> {
        std::mem::take(&mut self.removals)
    }

    /// Adds rows that are to be deleted with the next write.
    pub(super) fn remove(&mut self, rows: Vec<Removal>) {
        self.removals.extend(rows);
    }

    /// Notes that this event has just been written: a row that it wrote anew is not to be deleted any more.
    pub(super) fn wrote(&mut self, event: &Event) {
        self.removals.retain(|row| !event.writes(row));
    }
}

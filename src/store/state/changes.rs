//! What has happened to the payments started here, as far back as there is room for it.

use std::collections::VecDeque;

use crate::store::model::{Change, OutOfReach};

/// Changes that are kept.
pub(in crate::store) const ROOM: usize = 4096;

/// The last changes, in the order of their positions, which may have gaps.
#[derive(Default)]
pub(in crate::store) struct Journal {
    changes: VecDeque<Change>,
    /// Everything after this position is there.
    reach: u64,
    /// That of the last change.
    position: u64,
}

impl Journal {
    pub(in crate::store) fn position(&self) -> u64 {
        self.position
    }

    /// Adds a change. One that is not after the last is there already.
    pub(in crate::store) fn add(&mut self, change: Change) {
        if change.position <= self.position {
            return;
        }
        if self.changes.len() == ROOM
            && let Some(gone) = self.changes.pop_front()
        {
            self.reach = gone.position;
        }
        self.position = change.position;
        self.changes.push_back(change);
    }

    /// Forgets everything up to this position.
    pub(in crate::store) fn begin_after(&mut self, position: u64) {
        self.changes.clear();
        self.reach = position;
        self.position = position;
    }

    /// Returns what came after that position, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`OutOfReach`] if some of it is forgotten, or if the position was never reached.
    pub(in crate::store) fn after(
        &self,
        position: u64,
        limit: usize,
    ) -> Result<Vec<Change>, OutOfReach> {
        if !(self.reach..=self.position).contains(&position) {
            return Err(OutOfReach);
        }
        let first = self
            .changes
            .partition_point(|change| change.position <= position);
        Ok(self.changes.range(first..).take(limit).cloned().collect())
    }
}

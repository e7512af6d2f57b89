//! What has happened to the payments started here, as far back as there is room for it.

use std::collections::VecDeque;

use super::weight;
use crate::store::model::{Change, OutOfReach};

/// Changes that are kept.
pub(in crate::store) const ROOM: usize = 4096;

/// The last changes, in the order of their positions, which may have gaps.
pub(in crate::store) struct Journal {
    changes: VecDeque<Change>,
    /// Their weight, and the most that they may weigh. The last one stays all the same.
    bytes: u64,
    bytes_at_most: u64,
    /// Everything after this position is there.
    reach: u64,
    /// That of the last change.
    position: u64,
}

impl Journal {
    /// An empty one, which may weigh this much.
    pub(super) fn new(bytes_at_most: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            bytes_at_most,
            reach: 0,
            position: 0,
        }
    }

    /// Returns the weight of all of it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(in crate::store) fn position(&self) -> u64 {
        self.position
    }

    /// Adds a change. One that is not after the last is there already.
    pub(in crate::store) fn add(&mut self, change: Change) {
        if change.position <= self.position {
            return;
        }
        self.bytes += weight::change(&change);
        while (self.changes.len() == ROOM || self.bytes > self.bytes_at_most)
            && let Some(gone) = self.changes.pop_front()
        {
            self.bytes -= weight::change(&gone);
            self.reach = gone.position;
        }
        self.position = change.position;
        self.changes.push_back(change);
    }

    /// Forgets everything up to this position.
    pub(in crate::store) fn begin_after(&mut self, position: u64) {
        self.changes.clear();
        self.bytes = 0;
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

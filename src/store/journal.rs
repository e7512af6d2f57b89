//! What has happened to the payments started here, as far back as there is room for it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::StoredPayment;
use crate::payment::Report;

/// Changes that are kept.
pub(super) const ROOM: usize = 4096;

/// A payment was started, or the gateway reported something new about it.
#[derive(Clone)]
pub(crate) struct Change {
    /// Its place in the order of all changes, from 1.
    pub(crate) position: u64,
    pub(crate) stored: Arc<StoredPayment>,
    /// `None`: the gateway was not asked yet.
    pub(crate) report: Option<Arc<Report>>,
}

/// The changes after that position are not all there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfReach;

#[derive(Default)]
pub(super) struct Journal {
    /// In the order of their positions, which may have gaps.
    changes: VecDeque<Change>,
    /// Everything after this position is there.
    reach: u64,
    /// That of the last change.
    position: u64,
}

impl Journal {
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Writes a change down. Its position is higher than all before.
    pub(super) fn add(&mut self, change: Change) {
        if self.changes.len() == ROOM
            && let Some(gone) = self.changes.pop_front()
        {
            self.reach = gone.position;
        }
        self.position = change.position;
        self.changes.push_back(change);
    }

    /// Nothing up to this position can be read any more.
    pub(super) fn begin_after(&mut self, position: u64) {
        self.changes.clear();
        self.reach = position;
        self.position = position;
    }

    /// What came after that position, the oldest first, at most `limit`.
    pub(super) fn after(&self, position: u64, limit: usize) -> Result<Vec<Change>, OutOfReach> {
        if !(self.reach..=self.position).contains(&position) {
            return Err(OutOfReach);
        }
        let first = self
            .changes
            .partition_point(|change| change.position <= position);
        Ok(self.changes.range(first..).take(limit).cloned().collect())
    }
}

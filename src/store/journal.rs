//! What has happened to the payments started here, as far back as there is room for it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Tracked;
use crate::payment::Report;

/// Changes that are kept.
const ROOM: usize = 4096;

/// A payment was started, or the gateway told something new about it.
#[derive(Clone)]
pub(crate) struct Change {
    /// Its place in the order of all changes, from 1.
    pub(crate) position: u64,
    pub(crate) tracked: Arc<Tracked>,
    /// `None`: the gateway was not asked yet.
    pub(crate) report: Option<Arc<Report>>,
}

/// The changes after that position are not all there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfReach;

#[derive(Default)]
pub(super) struct Journal {
    changes: VecDeque<Change>,
    /// That of the last change.
    position: u64,
}

impl Journal {
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Writes a change down; gives its position.
    pub(super) fn add(&mut self, tracked: Arc<Tracked>, report: Option<Arc<Report>>) -> u64 {
        if self.changes.len() == ROOM {
            self.changes.pop_front();
        }
        self.position += 1;
        self.changes.push_back(Change { position: self.position, tracked, report });
        self.position
    }

    /// What came after that position, the oldest first, at most so many.
    pub(super) fn after(&self, position: u64, limit: usize) -> Result<Vec<Change>, OutOfReach> {
        let missed = self.position.checked_sub(position).and_then(|missed| usize::try_from(missed).ok());
        let skip = missed.and_then(|missed| self.changes.len().checked_sub(missed)).ok_or(OutOfReach)?;
        Ok(self.changes.iter().skip(skip).take(limit).cloned().collect())
    }
}

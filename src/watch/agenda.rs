//! Who gets the next turn: callers who wait for one, and payments that are due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;

use super::budget::Turn;
use crate::clock::Instant;
use crate::payment::WatchCode;

/// Everything that waits for a turn.
///
/// In this order: callers about whose payment nothing is known, callers who have an old answer to fall back on,
/// payments that are due. Whoever was passed over three times comes next, so that nobody starves.
#[derive(Default)]
pub(super) struct Agenda {
    /// First come, first served.
    callers: [VecDeque<oneshot::Sender<Turn>>; 2],
    /// Payments by how often they are asked for: the logarithm of the interval. A row is in the order of being due.
    rows: BTreeMap<u32, BTreeSet<(Instant, WatchCode)>>,
    passed_over: [u8; 3],
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    row: u32,
    due: Instant,
}

/// Whose turn it is.
pub(super) enum Next {
    /// A caller's, who may have gone meanwhile.
    Caller(oneshot::Sender<Turn>),
    /// This payment's, which is off the agenda now.
    Payment(WatchCode),
    /// Nobody's, until then at least.
    Nobody(Option<Instant>),
}

const PASSED_OVER_AT_MOST: u8 = 3;

impl Agenda {
    /// A caller waits for a turn. `has_answer`: an old one, to fall back on.
    pub(super) fn add_caller(&mut self, has_answer: bool) -> oneshot::Receiver<Turn> {
        let (caller, turn) = oneshot::channel();
        self.callers[usize::from(has_answer)].push_back(caller);
        turn
    }

    /// A payment is due then, and has been asked for at that interval.
    pub(super) fn add(&mut self, code: WatchCode, due: Instant, interval: Duration) -> Slot {
        let row = u64::BITS - interval.as_secs().max(1).leading_zeros();
        self.rows.entry(row).or_default().insert((due, code));
        Slot { row, due }
    }

    /// Takes it off again.
    pub(super) fn remove(&mut self, code: &WatchCode, slot: Slot) {
        if let Some(row) = self.rows.get_mut(&slot.row) {
            row.remove(&(slot.due, code.clone()));
            if row.is_empty() {
                self.rows.remove(&slot.row);
            }
        }
    }

    /// Takes the next one off. Payments have to wait until `payments_from`, if that is given.
    pub(super) fn next(&mut self, now: Instant, payments_from: Option<Instant>) -> Next {
        let wakes_up = self.rows.values().filter_map(|row| row.first()).map(|(due, _)| *due).min();
        let wakes_up = wakes_up.map(|due| payments_from.map_or(due, |from| due.max(from)));
        let wants = [
            !self.callers[0].is_empty(),
            !self.callers[1].is_empty(),
            wakes_up.is_some_and(|wakes_up| wakes_up <= now),
        ];
        let starving = (0..3).find(|i| wants[*i] && self.passed_over[*i] >= PASSED_OVER_AT_MOST);
        let Some(chosen) = starving.or_else(|| wants.iter().position(|wants| *wants)) else {
            return Next::Nobody(wakes_up);
        };
        for (i, passed_over) in self.passed_over.iter_mut().enumerate() {
            *passed_over = if i == chosen || !wants[i] { 0 } else { passed_over.saturating_add(1) };
        }
        let next = match self.callers.get_mut(chosen) {
            Some(row) => row.pop_front().map(Next::Caller),
            None => self.most_overdue(now).map(Next::Payment),
        };
        next.unwrap_or(Next::Nobody(wakes_up))
    }

    /// The payment that has been due for the longest time, measured by its own interval: so the young and those with
    /// somebody waiting go first, by as much as they are asked for more often, and each comes to its turn.
    fn most_overdue(&mut self, now: Instant) -> Option<WatchCode> {
        let overdue = |(row, payments): (&u32, &BTreeSet<(Instant, WatchCode)>)| {
            let (due, _) = payments.first()?;
            let late = now.checked_duration_since(*due)?;
            Some((late.as_secs_f64() / 2_f64.powi(i32::try_from(*row).unwrap_or(i32::MAX)), *row))
        };
        let (_, row) = self.rows.iter().filter_map(overdue).max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
        let payments = self.rows.get_mut(&row)?;
        let (_, code) = payments.pop_first()?;
        if payments.is_empty() {
            self.rows.remove(&row);
        }
        Some(code)
    }
}

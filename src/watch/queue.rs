//! Who gets the next permit: callers who wait for one, and payments that are due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Instant;
use crate::payment::WatchCode;

/// Everything that waits for a permit.
///
/// In this order: second questions about a payment that is said to be final, callers about whose payment nothing but its
/// start is known, callers about codes that were never heard of, callers who have an old answer to fall back on, payments
/// that are due and waited for, other payments that are due. A group that was passed over three times comes next, so
/// that nobody starves; a second question goes ahead even of these, which starves nobody, since each has had a permit of
/// another group before it.
pub(super) struct PollQueue {
    /// Callers in one row, at most.
    limit: usize,
    /// First come, first served: ids are given in the order of coming.
    confirming: BTreeSet<CallerId>,
    /// In the same order.
    callers: [BTreeSet<CallerId>; 3],
    /// Payments that somebody waits for, and the others.
    payments: [Payments; 2],
    passed_over: [u8; 5],
}

/// Payments by how often they are asked for: the logarithm of the interval. A row is in the order of being due.
#[derive(Default)]
struct Payments(BTreeMap<u32, BTreeSet<(Instant, WatchCode)>>);

/// Names a caller that waits for a permit. One that comes later has a greater one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CallerId(pub(super) u64);

/// Which row a caller stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// It asks for the second time about a payment that is said to be final.
    Confirms,
    /// Nothing is known of its payment but its start.
    HasNothing,
    /// Nobody here has ever heard of its payment.
    Unheard,
    /// It has an old answer to fall back on.
    HasAnswer,
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    group: usize,
    row: u32,
    due: Instant,
}

/// Who gets the next permit.
pub(super) enum Next {
    /// This caller, which is not in the queue any more.
    Caller(CallerId),
    /// This payment, which is not in the queue any more.
    Payment(WatchCode),
    /// Nobody, until then at least.
    Nobody(Option<Instant>),
}

const PASSED_OVER_AT_MOST: u8 = 3;

impl Rank {
    /// Returns the rank of a caller who asks for the first time.
    pub(super) fn of(has_answer: bool, is_started: bool) -> Self {
        match (has_answer, is_started) {
            (true, _) => Self::HasAnswer,
            (false, true) => Self::HasNothing,
            (false, false) => Self::Unheard,
        }
    }
}

impl PollQueue {
    /// An empty queue, with room for this many callers in each row.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            confirming: BTreeSet::new(),
            callers: Default::default(),
            payments: Default::default(),
            passed_over: Default::default(),
        }
    }

    /// A caller waits for a permit, if there is room in its row; returns whether there is.
    pub(super) fn add_caller(&mut self, caller: CallerId, rank: Rank) -> bool {
        let row = match rank {
            // Each of them has had a permit before.
            Rank::Confirms => return self.confirming.insert(caller),
            Rank::HasNothing => &mut self.callers[0],
            Rank::Unheard => &mut self.callers[1],
            Rank::HasAnswer => &mut self.callers[2],
        };
        row.len() < self.limit && row.insert(caller)
    }

    /// It does not wait any more: it takes no permit, and counts for nobody's patience.
    pub(super) fn remove_caller(&mut self, caller: CallerId) {
        for row in self.callers.iter_mut().chain([&mut self.confirming]) {
            row.remove(&caller);
        }
    }

    /// A payment is due then, and is asked for at that interval.
    pub(super) fn add(
        &mut self,
        code: WatchCode,
        waited_for: bool,
        due: Instant,
        interval: Duration,
    ) -> Slot {
        let group = usize::from(!waited_for);
        let row = u64::BITS - interval.as_secs().max(1).leading_zeros();
        self.payments[group]
            .0
            .entry(row)
            .or_default()
            .insert((due, code));
        Slot { group, row, due }
    }

    /// Takes it off again.
    pub(super) fn remove(&mut self, code: &WatchCode, slot: Slot) {
        let rows = &mut self.payments[slot.group].0;
        if let Some(row) = rows.get_mut(&slot.row) {
            row.remove(&(slot.due, code.clone()));
            if row.is_empty() {
                rows.remove(&slot.row);
            }
        }
    }

    /// Takes the next one off. Payments have to wait until `payments_from`, if that is given.
    pub(super) fn next(&mut self, now: Instant, payments_from: Option<Instant>) -> Next {
        let due = self.payments.each_ref().map(|payments| {
            let due = payments.first_due()?;
            Some(payments_from.map_or(due, |from| due.max(from)))
        });
        if let Some(caller) = self.confirming.pop_first() {
            return Next::Caller(caller);
        }
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        let wants = [
            !self.callers[0].is_empty(),
            !self.callers[1].is_empty(),
            !self.callers[2].is_empty(),
            is_due(due[0]),
            is_due(due[1]),
        ];
        for (passed_over, wants) in self.passed_over.iter_mut().zip(wants) {
            *passed_over = if wants { *passed_over } else { 0 };
        }
        // The one that was passed over most often: else four groups could take turns and leave the fifth out.
        let starving = (0..self.passed_over.len())
            .rev()
            .filter(|group| self.passed_over[*group] >= PASSED_OVER_AT_MOST)
            .max_by_key(|group| self.passed_over[*group]);
        let Some(chosen) = starving.or_else(|| wants.iter().position(|wants| *wants)) else {
            return Next::Nobody(due.into_iter().flatten().min());
        };
        for (i, passed_over) in self.passed_over.iter_mut().enumerate() {
            *passed_over = if i == chosen {
                0
            } else {
                *passed_over + u8::from(wants[i])
            };
        }
        let next = match self.callers.get_mut(chosen) {
            Some(row) => row.pop_first().map(Next::Caller),
            None => self.payments[chosen - self.callers.len()]
                .take_most_overdue(now)
                .map(Next::Payment),
        };
        next.unwrap_or(Next::Nobody(None))
    }
}

impl Payments {
    fn first_due(&self) -> Option<Instant> {
        self.0
            .values()
            .filter_map(|row| row.first())
            .map(|(due, _)| *due)
            .min()
    }

    /// The payment that has been due for the longest time, measured by its own interval: so the young go first, by as
    /// much as they are asked for more often, and each gets its permit.
    fn take_most_overdue(&mut self, now: Instant) -> Option<WatchCode> {
        let overdue = |(row, payments): (&u32, &BTreeSet<(Instant, WatchCode)>)| {
            let (due, _) = payments.first()?;
            let late = now.checked_duration_since(*due)?;
            Some((
                late.as_secs_f64() / 2_f64.powi(i32::try_from(*row).unwrap_or(i32::MAX)),
                *row,
            ))
        };
        let (_, row) = self
            .0
            .iter()
            .filter_map(overdue)
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
        let payments = self.0.get_mut(&row)?;
        let (_, code) = payments.pop_first()?;
        if payments.is_empty() {
            self.0.remove(&row);
        }
        Some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn callers_who_have_gone_hold_nobody_up() {
        let (mut queue, now) = (PollQueue::new(1), clock::now());
        for i in 0..1000 {
            assert!(queue.add_caller(CallerId(i), Rank::HasNothing));
            queue.remove_caller(CallerId(i));
        }
        let alive = CallerId(1000);
        assert!(queue.add_caller(alive, Rank::HasNothing));
        assert!(!queue.add_caller(CallerId(1001), Rank::HasNothing));
        for i in 0..10 {
            let code = format!("code-{i}").parse().unwrap();
            let _ = queue.add(code, true, now, Duration::from_secs(1));
        }
        assert!(matches!(queue.next(now, None), Next::Caller(caller) if caller == alive));
    }
}

//! What is listed: payments in the order of their start, messages, and how many there are of which age.

use std::sync::Arc;
use std::time::Duration;

use super::{Delivery, Known, Store};
use crate::clock;
use crate::payment::Status;

impl Store {
    /// Open payments that were started after that one, in the order of their start, at most `limit`.
    pub(crate) fn open_after(&self, number: u64, limit: usize) -> Vec<Known> {
        let state = self.state();
        state
            .open
            .range(number + 1..)
            .take(limit)
            .map(|(_, stored)| state.known(stored))
            .collect()
    }

    /// Payments that were started before that one, the newest first, at most `limit`; of that status, if one is given.
    pub(crate) fn before(&self, number: u64, status: Option<&Status>, limit: usize) -> Vec<Known> {
        let state = self.state();
        let mut open = state
            .open
            .range(..number)
            .rev()
            .map(|(_, stored)| stored)
            .peekable();
        let mut closed = state
            .closed
            .range(..number)
            .rev()
            .map(|(_, stored)| stored)
            .peekable();
        let all = std::iter::from_fn(|| match (open.peek(), closed.peek()) {
            (Some(a), Some(b)) if a.number < b.number => closed.next(),
            (None, _) => closed.next(),
            _ => open.next(),
        });
        let of_status = |known: &Known| {
            let (_, observation) = known;
            status.is_none_or(|status| {
                observation
                    .as_ref()
                    .map_or(&Status::Created, |observation| &observation.report.status)
                    == status
            })
        };
        all.map(|stored| state.known(stored))
            .filter(of_status)
            .take(limit)
            .collect()
    }

    /// How many payments are open in each of these groups: up to the first age, from there up to the second, and so
    /// on; the rest comes last.
    pub(crate) fn open_by_age<const N: usize>(&self, ages: [Duration; N]) -> ([usize; N], usize) {
        let now = clock::now();
        let (mut groups, mut rest) = ([0; N], 0);
        for stored in self.state().open.values() {
            let age = now - stored.since;
            match ages.iter().position(|limit| age < *limit) {
                Some(group) => groups[group] += 1,
                None => rest += 1,
            }
        }
        (groups, rest)
    }

    /// Messages before that one, the newest first, at most `limit`.
    pub(crate) fn deliveries_before(&self, number: u64, limit: usize) -> Vec<Arc<Delivery>> {
        self.state()
            .outbox
            .before(number)
            .take(limit)
            .cloned()
            .collect()
    }
}

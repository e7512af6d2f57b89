//! Payments as a list shows them: filtered, the newest first, in pages.

use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;

use super::model::{Known, StoredPayment};
use super::payments::{AT_ONCE, Payments};
use super::state::payments::Records;
use crate::payment::{Reference, Status};

/// Which payments a list has: those that all of these let through.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) status: Option<Status>,
    pub(crate) reference: Option<Reference>,
    /// When it was started.
    pub(crate) started: Range<Timestamp>,
    /// When it was seen to be completed; then it has to be completed.
    pub(crate) completed: Option<Range<Timestamp>>,
}

impl Filter {
    /// Lets all of them through.
    pub(crate) const ALL: Self = Self {
        status: None,
        reference: None,
        started: Timestamp::MIN..Timestamp::MAX,
        completed: None,
    };

    /// What takes the least time is looked at first, because most payments of a long walk are left out.
    fn lets_through(&self, payments: &Records, stored: &StoredPayment) -> bool {
        let is_completed_in_time = |completed: &Range<Timestamp>| {
            let completion = payments.completion(stored.number);
            completion.is_some_and(|completion| completed.contains(&completion.seen_at))
        };
        let has_status = |wanted: &Status| {
            let record = payments.get(&stored.payment.watch_code);
            let observation = record.and_then(|record| record.observation.as_ref());
            observation.map_or(&Status::Created, |observation| &observation.report.status) == wanted
        };
        self.started.contains(&stored.started_at)
            && self.completed.as_ref().is_none_or(is_completed_in_time)
            && self.status.as_ref().is_none_or(has_status)
    }

    /// Returns payments that were started before that one, the newest first, without those that this filter does not let
    /// through for a simple reason.
    fn candidates<'a>(
        &self,
        payments: &'a Records,
        before: u64,
    ) -> Box<dyn Iterator<Item = &'a Arc<StoredPayment>> + 'a> {
        if let Some(reference) = &self.reference {
            let all = payments.of_reference(reference).iter().rev();
            return Box::new(all.filter(move |stored| stored.number < before));
        }
        let open = payments.open(..before).rev();
        let closed = payments.closed(..before).rev();
        match self.status {
            Some(Status::Completed) => Box::new(closed),
            _ if self.completed.is_some() => Box::new(closed),
            Some(_) => Box::new(open),
            None => Box::new(newest_first(open, closed)),
        }
    }
}

/// Merges both, which are the newest first.
fn newest_first<'a>(
    one: impl Iterator<Item = &'a Arc<StoredPayment>>,
    other: impl Iterator<Item = &'a Arc<StoredPayment>>,
) -> impl Iterator<Item = &'a Arc<StoredPayment>> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(a), Some(b)) if a.number < b.number => other.next(),
        (None, _) => other.next(),
        _ => one.next(),
    })
}

impl Payments {
    /// Returns payments that were started before that one, the newest first, at most `limit`.
    pub(crate) async fn list(&self, filter: &Filter, before: u64, limit: usize) -> Vec<Known> {
        let (mut found, mut next) = (Vec::new(), Some(before));
        while let Some(before) = next {
            next = self.look(filter, before, limit, &mut found);
            // Other requests go on in between, however many payments are left out.
            tokio::task::yield_now().await;
        }
        found
    }

    /// Looks at a few payments that were started before that one, and adds those of the list. Returns the last that was
    /// looked at, if there may be more.
    fn look(
        &self,
        filter: &Filter,
        before: u64,
        limit: usize,
        found: &mut Vec<Known>,
    ) -> Option<u64> {
        let guarded = self.log.lock();
        let payments = &guarded.state.payments;
        let (mut looked_at, mut last) = (0, before);
        for stored in filter.candidates(payments, before).take(AT_ONCE) {
            (looked_at, last) = (looked_at + 1, stored.number);
            if filter.lets_through(payments, stored) {
                found.push(payments.known(stored));
            }
            if found.len() == limit {
                return None;
            }
        }
        (looked_at == AT_ONCE).then_some(last)
    }

    /// Returns the moment since which no payment is missing in a list, started or completed.
    pub(crate) fn complete_since(&self) -> Timestamp {
        self.log.lock().state.payments.complete_since()
    }
}

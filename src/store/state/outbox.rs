//! The messages to the app: which are due, which are being posted, which wait for another of the same payment.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::weight;
use crate::clock::Instant;
use crate::store::model::{Delivery, DeliveryState, LastTries};

/// Finished messages that can still be looked at, and posted again: the last ones.
const FINISHED_AT_MOST: usize = 10_000;

/// The messages, by number.
#[derive(Default)]
pub(in crate::store) struct Deliveries {
    all: BTreeMap<u64, Arc<Delivery>>,
    /// Those that may be posted, by the moment from which on.
    due: BTreeSet<(Instant, u64)>,
    /// Those that may not be posted yet, and the last one too: one after the other for each payment.
    in_line: HashMap<u64, BTreeSet<u64>>,
    /// Those that are not to be posted any more, by the moment of their last try.
    finished: BTreeSet<(Instant, u64)>,
    bytes: u64,
    /// Taken out, and not put back yet.
    out: HashSet<u64>,
    /// When the app was away last: what failed then is due again, also if it is put back only now.
    away: Option<RangeInclusive<Instant>>,
}

impl Deliveries {
    /// It is being posted.
    pub(in crate::store) fn is_out(&self, number: u64) -> bool {
        self.out.contains(&number)
    }

    /// It is being posted, and nothing was written about it since it was taken out.
    pub(in crate::store) fn is_still_out(&self, delivery: &Delivery) -> bool {
        let now = self.all.get(&delivery.number);
        self.is_out(delivery.number) && now.is_some_and(|now| now.tries == delivery.tries)
    }

    /// Returns the number of the message that has the id of this one.
    pub(in crate::store) fn number_of(&self, delivery: &Delivery) -> Option<u64> {
        let is_it = |other: &&Arc<Delivery>| other.id == delivery.id;
        let found = self.all.get(&delivery.number).filter(is_it);
        let found = found.or_else(|| self.by_id(&delivery.id));
        found.map(|found| found.number)
    }

    /// It is not to be posted any more.
    pub(in crate::store) fn is_finished(&self, number: u64) -> bool {
        let state = self.all.get(&number).map(|delivery| delivery.state);
        matches!(
            state,
            Some(DeliveryState::Delivered(_) | DeliveryState::Failed(_))
        )
    }

    /// Nobody takes it out before it is put back.
    pub(in crate::store) fn hold(&mut self, delivery: &Delivery) {
        if let DeliveryState::Due(at) = delivery.state {
            self.due.remove(&(at, delivery.number));
        }
        self.out.insert(delivery.number);
    }

    pub(in crate::store) fn by_id(&self, id: &str) -> Option<&Arc<Delivery>> {
        self.all.values().rev().find(|delivery| delivery.id == id)
    }

    /// Puts it where its state says, in the place of what it was before.
    pub(in crate::store) fn put(&mut self, delivery: Arc<Delivery>) {
        let hastened = self.away.as_ref().and_then(|away| delivery.hastened(away));
        let delivery = hastened.map_or(delivery, Arc::new);
        let (number, payment) = (delivery.number, delivery.payment);
        self.bytes += weight::delivery(&delivery);
        if let Some(before) = self.all.insert(number, delivery.clone()) {
            self.bytes -= weight::delivery(&before);
            match before.state {
                DeliveryState::Due(at) => self.due.remove(&(at, number)),
                DeliveryState::Delivered(at) | DeliveryState::Failed(at) => {
                    self.finished.remove(&(at, number))
                }
            };
        }
        self.out.remove(&number);
        let line = self.in_line.entry(payment).or_default();
        let first_before = line.first().copied();
        match delivery.state {
            DeliveryState::Due(_) => line.insert(number),
            DeliveryState::Delivered(at) | DeliveryState::Failed(at) => {
                self.finished.insert((at, number));
                line.remove(&number)
            }
        };
        let is_free = !line.iter().any(|number| self.out.contains(number));
        let first = line.first().copied().filter(|_| is_free);
        if line.is_empty() {
            self.in_line.remove(&payment);
        }
        // An older message that is due again goes first.
        if let Some(at) = first_before.and_then(|before| self.due_at(before)) {
            self.due.remove(&at);
        }
        self.due.extend(first.and_then(|first| self.due_at(first)));
    }

    /// Takes over from those that these take the place of: what is being posted, and when the app was away.
    pub(super) fn take_over(&mut self, before: Self) {
        self.away = before.away;
        for number in before.out {
            let open = self.all.get(&number).cloned();
            let is_open =
                |delivery: &Arc<Delivery>| matches!(delivery.state, DeliveryState::Due(_));
            if let Some(open) = open.filter(is_open) {
                self.hold(&open);
            }
        }
    }

    /// Returns where a message stands among those that are due.
    fn due_at(&self, number: u64) -> Option<(Instant, u64)> {
        match self.all.get(&number)?.state {
            DeliveryState::Due(at) => Some((at, number)),
            DeliveryState::Delivered(_) | DeliveryState::Failed(_) => None,
        }
    }

    /// Takes out what may be posted at this moment; it is put back when it was.
    pub(in crate::store) fn take_due(&mut self, now: Instant) -> Option<Arc<Delivery>> {
        let (at, number) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.remove(&(at, number));
        self.out.insert(number);
        self.all.get(&number).cloned()
    }

    /// When the next one may be posted.
    pub(in crate::store) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The app is back, and was away for this time.
    pub(in crate::store) fn came_back(&mut self, away: RangeInclusive<Instant>) {
        self.away = Some(away);
    }

    /// Of at most `limit` messages after that one, those which are due again sooner because the app is back, as they
    /// were and as they are to be; and the last that was looked at, if there may be more.
    pub(in crate::store) fn hastened(
        &self,
        after: u64,
        limit: usize,
    ) -> (Vec<(Arc<Delivery>, Delivery)>, Option<u64>) {
        let (mut found, mut last) = (Vec::new(), None);
        let Some(away) = &self.away else {
            return (found, last);
        };
        for (looked_at, (number, delivery)) in self.all.range(after.saturating_add(1)..).enumerate()
        {
            if looked_at == limit {
                return (found, last);
            }
            last = Some(*number);
            let hastened = (!self.out.contains(number))
                .then(|| delivery.hastened(away))
                .flatten();
            found.extend(hastened.map(|hastened| (delivery.clone(), hastened)));
        }
        (found, None)
    }

    pub(in crate::store) fn last_tries(&self) -> LastTries {
        let taken = self
            .all
            .values()
            .filter_map(|delivery| match delivery.state {
                DeliveryState::Delivered(at) => Some(at),
                DeliveryState::Due(_) | DeliveryState::Failed(_) => None,
            });
        let taken = taken.max();
        let failing = self.all.values().filter(|delivery| {
            matches!(delivery.state, DeliveryState::Due(_))
                && delivery.failed.is_some_and(|failed| Some(failed) > taken)
        });
        LastTries {
            taken,
            failing: failing.map(|delivery| delivery.since).min(),
        }
    }

    /// How many are still to be posted.
    pub(in crate::store) fn pending(&self) -> usize {
        self.in_line.values().map(BTreeSet::len).sum()
    }

    /// Returns since when the oldest of these waits.
    pub(in crate::store) fn oldest_pending(&self) -> Option<Instant> {
        let oldest = self.in_line.values().filter_map(BTreeSet::first).min()?;
        self.all.get(oldest).map(|delivery| delivery.since)
    }

    /// Whether something is still to be posted about this payment.
    pub(in crate::store) fn owes(&self, payment: u64) -> bool {
        self.in_line.contains_key(&payment)
    }

    /// Those before that one, the newest first.
    pub(in crate::store) fn before(&self, number: u64) -> impl Iterator<Item = &Arc<Delivery>> {
        self.all.range(..number).rev().map(|(_, delivery)| delivery)
    }

    /// Returns the weight of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the message that was finished first, and when.
    pub(super) fn oldest_finished(&self) -> Option<(Instant, u64)> {
        self.finished.first().copied()
    }

    /// Forgets the message that was finished first; returns its number.
    pub(super) fn forget_oldest_finished(&mut self) -> Option<u64> {
        let (_, number) = self.finished.pop_first()?;
        if let Some(gone) = self.all.remove(&number) {
            self.bytes -= weight::delivery(&gone);
        }
        Some(number)
    }

    /// Forgets finished messages that are too many; returns their numbers.
    pub(super) fn sweep(&mut self) -> Vec<u64> {
        let too_many = self.finished.len().saturating_sub(FINISHED_AT_MOST);
        (0..too_many)
            .filter_map(|_| self.forget_oldest_finished())
            .collect()
    }
}

#[cfg(test)]
mod tests;

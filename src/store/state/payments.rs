//! What is known of each watch code, and which of them go first when there is no more room.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::mem;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use super::counts::Counts;
use super::names::Names;
use super::outbox::Deliveries;
use crate::clock::Instant;
use crate::payment::{Code, Reference, WatchCode};
use crate::store::event::Removal;
use crate::store::model::{Known, Observation, Record, StoredPayment};

/// The records, by watch code.
pub(in crate::store) struct Records {
    room: usize,
    /// An open payment is let go when it is this old.
    open_for: Duration,
    /// The app gets messages about payments, so an open one stays until its message is made.
    has_webhook: bool,
    by_code: HashMap<WatchCode, Record>,
    names: Names,
    /// Started here and not final yet, by number: in the order of their start.
    open: BTreeMap<u64, Arc<StoredPayment>>,
    /// Started here and final, in the same order.
    closed: BTreeMap<u64, Arc<StoredPayment>>,
    /// Since when the closed ones are kept for their time.
    finished: BTreeSet<(Instant, u64)>,
    /// Asked for here and not started here, the oldest in front. They go first.
    heard: VecDeque<WatchCode>,
    /// Somebody waits for these: they stay whatever the room.
    pinned: HashSet<WatchCode>,
    counts: Counts,
}

impl Records {
    pub(super) fn new(room: usize, open_for: Duration, has_webhook: bool) -> Self {
        Self {
            room,
            open_for,
            has_webhook,
            by_code: HashMap::new(),
            names: Names::default(),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            finished: BTreeSet::new(),
            heard: VecDeque::new(),
            pinned: HashSet::new(),
            counts: Counts::default(),
        }
    }

    pub(in crate::store) fn get(&self, code: &WatchCode) -> Option<&Record> {
        self.by_code.get(code)
    }

    /// Returns the payments of one kind whose numbers are in this range, in the order of their start.
    pub(in crate::store) fn open(
        &self,
        numbers: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = &Arc<StoredPayment>> {
        self.open.range(numbers).map(|(_, stored)| stored)
    }

    /// The same for final ones.
    pub(in crate::store) fn closed(
        &self,
        numbers: impl RangeBounds<u64>,
    ) -> impl DoubleEndedIterator<Item = &Arc<StoredPayment>> {
        self.closed.range(numbers).map(|(_, stored)| stored)
    }

    pub(in crate::store) fn count_open(&self) -> usize {
        self.open.len()
    }

    /// How many records there are of each kind.
    pub(in crate::store) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(in crate::store) fn known(&self, stored: &Arc<StoredPayment>) -> Known {
        let record = self.by_code.get(&stored.payment.watch_code);
        Known {
            stored: stored.clone(),
            observation: record.and_then(|record| record.observation.clone()),
            paid_twice_with: record.and_then(|record| record.paid_twice_with.clone()),
        }
    }

    /// Returns a payment that was started here and has one of these codes.
    pub(super) fn with_codes(
        &self,
        code: &Code,
        watch_code: &WatchCode,
    ) -> Option<Arc<StoredPayment>> {
        let started = |code: &WatchCode| self.by_code.get(code)?.stored.clone();
        started(watch_code).or_else(|| started(self.names.watch_code(code)?))
    }

    /// Returns the payments of this reference that are still kept, the latest last.
    pub(in crate::store) fn of_reference(&self, reference: &Reference) -> &[Arc<StoredPayment>] {
        self.names.of_reference(reference)
    }

    /// How many references are in use.
    pub(in crate::store) fn count_references(&self) -> usize {
        self.names.count_references()
    }

    /// Returns the watch code of another payment of the same reference that is completed.
    pub(in crate::store) fn completed_before(&self, stored: &StoredPayment) -> Option<WatchCode> {
        let mut others = self.of_reference(stored.payment.reference()?).iter();
        others
            .find(|other| other.number != stored.number && self.closed.contains_key(&other.number))
            .map(|other| other.payment.watch_code.clone())
    }

    /// Notes that another payment of the same reference was completed before this one.
    pub(super) fn note_paid_twice(&mut self, stored: &StoredPayment, other: &WatchCode) {
        if let Some(record) = self.by_code.get_mut(&stored.payment.watch_code)
            && record.is_of(stored)
        {
            record.paid_twice_with = Some(other.clone());
        }
    }

    /// Returns the payment of that number.
    pub(super) fn by_number(&self, number: u64) -> Option<Arc<StoredPayment>> {
        self.open
            .get(&number)
            .or_else(|| self.closed.get(&number))
            .cloned()
    }

    /// Keeps what is known of this code, whatever the room.
    pub(in crate::store) fn pin(&mut self, code: &WatchCode) {
        self.pinned.insert(code.clone());
    }

    pub(in crate::store) fn unpin(&mut self, code: &WatchCode) {
        self.pinned.remove(code);
    }

    /// Adds a payment that was started. One that is there already stays as it is.
    pub(super) fn start(
        &mut self,
        stored: &Arc<StoredPayment>,
        owed: &Deliveries,
        removals: &mut Vec<Removal>,
    ) {
        let code = &stored.payment.watch_code;
        let is_there = |record: &Record| record.is_of(stored);
        if self.by_code.get(code).is_some_and(is_there) {
            return;
        }
        // What was heard of the code before is written nowhere, and may be another's: the gateway is asked anew.
        let record = Record {
            stored: Some(stored.clone()),
            ..Record::default()
        };
        self.counts.add(&record, 1);
        let before = mem::replace(self.record(code, owed, removals), record);
        self.displaced(&before, removals);
        self.open.insert(stored.number, stored.clone());
        self.index(stored);
    }

    /// Makes it found by its names. The older payments of its reference are followed along with it.
    fn index(&mut self, stored: &Arc<StoredPayment>) {
        for older in self.names.add(stored) {
            if let Some(record) = self.by_code.get_mut(&older) {
                record.followed_since = Some(stored.since);
            }
        }
    }

    /// Takes in an observation of a payment that was started here; ignores it if the code is another payment's by now.
    pub(super) fn observe(
        &mut self,
        stored: &Arc<StoredPayment>,
        observation: &Observation,
        owed: &Deliveries,
        removals: &mut Vec<Removal>,
    ) {
        let code = &stored.payment.watch_code;
        let record = self.record(code, owed, removals);
        if record.stored.is_none() {
            // It was let go while this was being written: its row is there again.
            record.stored = Some(stored.clone());
            self.index(stored);
        } else if !record.is_of(stored) {
            removals.push(Removal::Payment(stored.number));
            return;
        } else if record.is_final() {
            return;
        }
        self.set_observation(code, observation.clone());
        self.open.remove(&stored.number);
        if observation.report.status.is_final() {
            if self.closed.insert(stored.number, stored.clone()).is_none() {
                self.finished.insert((observation.asked, stored.number));
            }
        } else {
            self.open.insert(stored.number, stored.clone());
        }
    }

    /// Takes in an observation that is nothing new, or of a code that was not started here.
    pub(super) fn hear(
        &mut self,
        code: &WatchCode,
        observation: Observation,
        owed: &Deliveries,
        removals: &mut Vec<Removal>,
    ) {
        let is_new = !self.by_code.contains_key(code);
        self.record(code, owed, removals);
        self.set_observation(code, observation);
        if is_new {
            // After making room for it, which would find it there.
            self.heard.push_back(code.clone());
        }
    }

    /// Notes that this payment is not polled any more; ignores it if the code is another payment's by now.
    pub(in crate::store) fn end_polling(&mut self, stored: &StoredPayment) {
        if let Some(record) = self.by_code.get_mut(&stored.payment.watch_code)
            && record.is_of(stored)
        {
            record.polling_ended = true;
        }
    }

    /// Forgets those that have been final for `ttl`, and open ones that are too old, unless somebody waits for them or the
    /// app is owed a message.
    pub(super) fn expire(
        &mut self,
        ttl: Duration,
        now: Instant,
        owed: &Deliveries,
        removals: &mut Vec<Removal>,
    ) {
        while let Some((at, number)) = self.finished.first().copied()
            && now - at >= ttl
        {
            self.finished.pop_first();
            let Some(stored) = self.closed.get(&number).cloned() else {
                continue;
            };
            let code = &stored.payment.watch_code;
            if self.pinned.contains(code) || owed.owes(number) {
                self.finished.insert((now, number));
                continue;
            }
            if let Some(removed) = self.by_code.remove(code) {
                self.counts.add(&removed, -1);
            }
            self.closed.remove(&number);
            self.names.remove(&stored);
            removals.push(Removal::Payment(number));
        }
        let open_for = self.open_for;
        let old = self.open.values();
        let old = old.take_while(|stored| now - stored.since >= open_for);
        let old = old.filter(|stored| {
            !self.pinned.contains(&stored.payment.watch_code) && !owed.owes(stored.number)
        });
        for stored in old.cloned().collect::<Vec<_>>() {
            if let Some(removed) = self.by_code.remove(&stored.payment.watch_code) {
                self.counts.add(&removed, -1);
            }
            self.open.remove(&stored.number);
            self.names.remove(&stored);
            removals.push(Removal::Payment(stored.number));
        }
    }

    /// Puts back what was written before this process began; it is kept for its time from `finished` on, if it is final.
    pub(super) fn restore(
        &mut self,
        record: Record,
        finished: Instant,
        removals: &mut Vec<Removal>,
    ) {
        let Some(stored) = record.stored.clone() else {
            return;
        };
        self.counts.add(&record, 1);
        if record.is_final() {
            self.closed.insert(stored.number, stored.clone());
            self.finished.insert((finished, stored.number));
        } else {
            self.open.insert(stored.number, stored.clone());
        }
        // The row of a payment whose watch code is another's by now may still have been there.
        if let Some(older) = self
            .by_code
            .insert(stored.payment.watch_code.clone(), record)
        {
            self.displaced(&older, removals);
        }
        self.index(&stored);
    }

    /// Removes what was kept of a payment whose record has been replaced.
    fn displaced(&mut self, record: &Record, removals: &mut Vec<Removal>) {
        self.counts.add(record, -1);
        if let Some(stored) = &record.stored {
            self.open.remove(&stored.number);
            self.closed.remove(&stored.number);
            self.names.remove(stored);
            removals.push(Removal::Payment(stored.number));
        }
    }

    fn set_observation(&mut self, code: &WatchCode, observation: Observation) {
        let record = self.by_code.entry(code.clone()).or_default();
        let before = record.clone();
        record.observation = Some(observation);
        let after = record.clone();
        self.counts.add(&before, -1);
        self.counts.add(&after, 1);
    }

    /// Returns the record of that code, a new one if need be.
    fn record(
        &mut self,
        code: &WatchCode,
        owed: &Deliveries,
        removals: &mut Vec<Removal>,
    ) -> &mut Record {
        if !self.by_code.contains_key(code) {
            while self.by_code.len() >= self.room {
                let Some(oldest) = self.take_oldest(owed, removals) else {
                    break;
                };
                if let Some(removed) = self.by_code.remove(&oldest) {
                    self.counts.add(&removed, -1);
                    self.counts.let_go += 1;
                }
            }
            self.counts.add(&Record::default(), 1);
        }
        self.by_code.entry(code.clone()).or_default()
    }

    /// Takes the oldest that nobody waits for out of its row. `None` if somebody waits for every one.
    fn take_oldest(&mut self, owed: &Deliveries, removals: &mut Vec<Removal>) -> Option<WatchCode> {
        for _ in 0..self.heard.len() {
            let code = self.heard.pop_front()?;
            match self.by_code.get(&code) {
                Some(record) if record.stored.is_none() => {
                    if !self.pinned.contains(&code) {
                        return Some(code);
                    }
                    self.heard.push_back(code);
                }
                // It was started after it was asked for, and is in another row.
                _ => {}
            }
        }
        let rows = [&self.open, &self.closed];
        let oldest = rows
            .iter()
            .filter_map(|row| row.values().find(|stored| self.may_go(stored, owed)))
            .min_by_key(|stored| stored.number)?;
        let oldest = oldest.clone();
        self.open.remove(&oldest.number);
        self.closed.remove(&oldest.number);
        self.names.remove(&oldest);
        removals.push(Removal::Payment(oldest.number));
        Some(oldest.payment.watch_code.clone())
    }

    fn may_go(&self, stored: &StoredPayment, owed: &Deliveries) -> bool {
        let code = &stored.payment.watch_code;
        let has_ended = || {
            self.by_code
                .get(code)
                .is_none_or(|record| record.is_final() || record.polling_ended)
        };
        // A payment whose message the app still waits for stays, and so does one that holds a reference.
        stored.payment.reference().is_none()
            && !self.pinned.contains(code)
            && !owed.owes(stored.number)
            && (!self.has_webhook || has_ended())
    }
}

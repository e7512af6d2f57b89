//! What is known of each watch code.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::RangeBounds;
use std::sync::Arc;

use jiff::{Timestamp, ToSpan};

use super::counts::Counts;
use super::names::Names;
use super::outbox::Deliveries;
use super::paid::{PaidReference, PaidReferences};
use crate::clock::Instant;
use crate::payment::{Code, Reference, WatchCode};
use crate::store::event::Removal;
use crate::store::model::{Completion, Fate, Known, Limits, Observation, Record, StoredPayment};

/// The records, by watch code.
pub(in crate::store) struct Records {
    pub(super) limits: Limits,
    /// The app gets messages about payments, so an open one stays until its message is made.
    pub(super) has_webhook: bool,
    pub(super) by_code: HashMap<WatchCode, Record>,
    names: Names,
    /// Started here and not final yet, by number: in the order of their start.
    pub(super) open: BTreeMap<u64, Arc<StoredPayment>>,
    /// Started here and final, in the same order.
    pub(super) closed: BTreeMap<u64, Closed>,
    /// The closed ones by the moment from which on they are kept for their time.
    pub(super) finished: BTreeSet<(Instant, u64)>,
    /// Left the lists for want of room.
    pub(super) paid: PaidReferences,
    /// Asked for here and not started here, the oldest in front. They go first.
    pub(super) heard: VecDeque<WatchCode>,
    /// Somebody waits for these: they stay whatever the room.
    pub(super) pinned: HashSet<WatchCode>,
    pub(super) counts: Counts,
    /// No payment that was started or completed since then is missing.
    complete_since: Timestamp,
}

/// A payment that is final.
pub(super) struct Closed {
    pub(super) stored: Arc<StoredPayment>,
    pub(super) completion: Completion,
    /// Since when it is kept for its time.
    pub(super) finished: Instant,
}

impl Records {
    pub(super) fn new(limits: Limits, has_webhook: bool, complete_since: Timestamp) -> Self {
        Self {
            limits,
            has_webhook,
            by_code: HashMap::new(),
            names: Names::default(),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            finished: BTreeSet::new(),
            paid: PaidReferences::default(),
            heard: VecDeque::new(),
            pinned: HashSet::new(),
            counts: Counts::new(has_webhook),
            complete_since,
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
        self.closed.range(numbers).map(|(_, closed)| &closed.stored)
    }

    pub(in crate::store) fn count_open(&self) -> usize {
        self.open.len()
    }

    /// How many records there are of each kind.
    pub(in crate::store) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the moment since which no payment is missing, started or completed.
    pub(in crate::store) fn complete_since(&self) -> Timestamp {
        self.complete_since
    }

    /// Notes that payments before that moment are missing.
    pub(in crate::store) fn begin_at(&mut self, moment: Timestamp) {
        self.complete_since = moment;
    }

    /// Returns the weight of all of it.
    pub(super) fn bytes(&self) -> u64 {
        self.counts.bytes() + self.paid.bytes()
    }

    pub(in crate::store) fn known(&self, stored: &Arc<StoredPayment>) -> Known {
        let record = self.by_code.get(&stored.payment.watch_code);
        Known {
            stored: stored.clone(),
            observation: record.and_then(|record| record.observation.clone()),
            completion: self.completion(stored.number).cloned(),
        }
    }

    /// Returns how the payment of that number was completed.
    pub(in crate::store) fn completion(&self, number: u64) -> Option<&Completion> {
        self.closed.get(&number).map(|closed| &closed.completion)
    }

    /// Returns a payment that was started here and has one of these codes.
    pub(in crate::store) fn with_codes(
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

    /// Returns the completed payment of this reference, if it has left the lists for want of room.
    pub(in crate::store) fn paid(&self, reference: &Reference) -> Option<&Fate> {
        self.paid.get(reference).map(|paid| &paid.fate)
    }

    /// Returns the watch code of another payment of the same reference that is completed.
    pub(in crate::store) fn completed_before(&self, stored: &StoredPayment) -> Option<WatchCode> {
        let reference = stored.payment.reference()?;
        if let Some(paid) = self.paid.get(reference)
            && paid.number != stored.number
        {
            return Some(paid.fate.watch_code.clone());
        }
        let mut others = self.of_reference(reference).iter();
        others
            .find(|other| other.number != stored.number && self.closed.contains_key(&other.number))
            .map(|other| other.payment.watch_code.clone())
    }

    /// Returns the payment of that number.
    pub(super) fn by_number(&self, number: u64) -> Option<Arc<StoredPayment>> {
        let closed = || self.closed.get(&number).map(|closed| &closed.stored);
        self.open.get(&number).or_else(closed).cloned()
    }

    /// Takes over from those that these take the place of; returns what was only asked for here.
    pub(super) fn take_over(&mut self, before: Self) -> Vec<(WatchCode, Observation)> {
        self.pinned = before.pinned;
        let heard = before.by_code.into_iter();
        let heard = heard
            .filter(|(code, record)| record.stored.is_none() && !self.by_code.contains_key(code));
        let heard = heard.filter_map(|(code, record)| Some((code, record.observation?)));
        heard.collect()
    }

    /// Keeps what is known of this code, whatever the room.
    pub(in crate::store) fn pin(&mut self, code: &WatchCode) {
        self.pinned.insert(code.clone());
    }

    /// Whether somebody waits for a payment.
    pub(in crate::store) fn is_waited_for(&self) -> bool {
        !self.pinned.is_empty()
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
        self.displace(code, removals);
        self.take_place(code, owed, removals);
        // What was heard of the code before is written nowhere, and may be another's: the gateway is asked anew.
        self.update(code, |record| {
            *record = Record {
                stored: Some(stored.clone()),
                ..Record::default()
            };
        });
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
        completion: Option<&Completion>,
        owed: &Deliveries,
        removals: &mut Vec<Removal>,
    ) {
        let code = &stored.payment.watch_code;
        self.take_place(code, owed, removals);
        let record = self.by_code.get(code).cloned().unwrap_or_default();
        if record.stored.is_none() {
            // It was let go while this was being written: its row is there again.
            self.update(code, |record| record.stored = Some(stored.clone()));
            self.index(stored);
        } else if !record.is_of(stored) {
            removals.push(Removal::Payment(stored.number));
            return;
        } else if record.is_final() {
            return;
        }
        self.update(code, |record| {
            record.observation = Some(observation.clone());
        });
        self.open.remove(&stored.number);
        match completion {
            Some(completion) => self.close(stored, completion.clone(), observation.asked),
            None => drop(self.open.insert(stored.number, stored.clone())),
        }
    }

    fn close(&mut self, stored: &Arc<StoredPayment>, completion: Completion, finished: Instant) {
        let closed = Closed {
            stored: stored.clone(),
            completion,
            finished,
        };
        self.finished.insert((finished, stored.number));
        self.closed.insert(stored.number, closed);
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
        self.take_place(code, owed, removals);
        self.update(code, |record| record.observation = Some(observation));
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

    /// Puts back what was written before this process began; if it is completed it is kept for its time from `finished` on.
    pub(super) fn restore(
        &mut self,
        record: Record,
        completion: Option<Completion>,
        finished: Instant,
        removals: &mut Vec<Removal>,
    ) {
        let Some(stored) = record.stored.clone() else {
            return;
        };
        let code = &stored.payment.watch_code;
        // The row of a payment whose watch code is another's by now may still have been there.
        self.displace(code, removals);
        self.counts.add(&Record::default(), 1);
        self.update(code, |restored| *restored = record);
        match completion {
            Some(completion) => self.close(&stored, completion, finished),
            None => drop(self.open.insert(stored.number, stored.clone())),
        }
        self.index(&stored);
    }

    /// Puts back what the reference of a payment needs that had left the lists.
    pub(super) fn restore_paid(&mut self, reference: &Reference, paid: PaidReference) {
        self.paid.add(reference, paid);
    }

    /// Changes the record of that code, which has its place.
    fn update(&mut self, code: &WatchCode, change: impl FnOnce(&mut Record)) {
        let record = self.by_code.entry(code.clone()).or_default();
        self.counts.add(record, -1);
        change(record);
        self.counts.add(record, 1);
    }

    /// Takes a payment out of everything. Returns what was known of it.
    pub(super) fn forget(&mut self, stored: &StoredPayment) -> (Option<Record>, Option<Closed>) {
        let code = &stored.payment.watch_code;
        let is_its = |record: &Record| record.is_of(stored);
        let record = if self.by_code.get(code).is_some_and(is_its) {
            self.drop_record(code)
        } else {
            None
        };
        self.open.remove(&stored.number);
        let closed = self.closed.remove(&stored.number);
        let mut missing = stored.started_at;
        if let Some(closed) = &closed {
            self.finished.remove(&(closed.finished, stored.number));
            missing = missing.max(closed.completion.seen_at);
        }
        self.names.remove(stored);
        let after = missing.saturating_add(1.millisecond());
        self.complete_since = self.complete_since.max(after.unwrap_or(missing));
        (record, closed)
    }

    pub(super) fn drop_record(&mut self, code: &WatchCode) -> Option<Record> {
        let record = self.by_code.remove(code)?;
        self.counts.add(&record, -1);
        Some(record)
    }
}

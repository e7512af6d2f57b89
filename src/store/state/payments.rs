//! What is known of each watch code, and which of them go first when there is no more room.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::mem;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

use super::outbox::Deliveries;
use crate::clock::Instant;
use crate::payment::{Status, WatchCode};
use crate::store::model::{Known, Observation, Record, Removal, StoredPayment};

/// The records, by watch code.
pub(in crate::store) struct Records {
    room: usize,
    /// The app gets messages about payments, so an open one stays until its message is made.
    has_webhook: bool,
    by_code: HashMap<WatchCode, Record>,
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
    by_status: BTreeMap<&'static str, i64>,
    let_go: u64,
}

impl Records {
    pub(super) fn new(room: usize, has_webhook: bool) -> Self {
        Self {
            room,
            has_webhook,
            by_code: HashMap::new(),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            finished: BTreeSet::new(),
            heard: VecDeque::new(),
            pinned: HashSet::new(),
            by_status: Status::LABELS.map(|label| (label, 0)).into(),
            let_go: 0,
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

    /// How many records have each last known status, by its label.
    pub(in crate::store) fn by_status(&self) -> Vec<(&'static str, u64)> {
        let count = |(status, count): (&&'static str, &i64)| {
            (*status, u64::try_from(*count).unwrap_or_default())
        };
        self.by_status.iter().map(count).collect()
    }

    /// How many records were let go for want of room.
    pub(in crate::store) fn let_go(&self) -> u64 {
        self.let_go
    }

    pub(in crate::store) fn known(&self, stored: &Arc<StoredPayment>) -> Known {
        let record = self.by_code.get(&stored.payment.watch_code);
        (
            stored.clone(),
            record.and_then(|record| record.observation.clone()),
        )
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
        self.count(&record, 1);
        let before = mem::replace(self.record(code, owed, removals), record);
        self.displaced(&before, removals);
        self.open.insert(stored.number, stored.clone());
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
        } else if !record.is_of(stored) {
            removals.push(Removal::Payment(stored.number));
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

    /// Forgets those that have been final for `ttl`, unless somebody waits for them or the app is owed a message.
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
            let Some(stored) = self.closed.get(&number) else {
                continue;
            };
            let code = &stored.payment.watch_code;
            if self.pinned.contains(code) || owed.owes(number) {
                self.finished.insert((now, number));
                continue;
            }
            if let Some(removed) = self.by_code.remove(code) {
                self.count(&removed, -1);
            }
            self.closed.remove(&number);
            removals.push(Removal::Payment(number));
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
        self.count(&record, 1);
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
    }

    /// Removes what was kept of a payment whose record has been replaced.
    fn displaced(&mut self, record: &Record, removals: &mut Vec<Removal>) {
        self.count(record, -1);
        if let Some(stored) = &record.stored {
            self.open.remove(&stored.number);
            self.closed.remove(&stored.number);
            removals.push(Removal::Payment(stored.number));
        }
    }

    fn set_observation(&mut self, code: &WatchCode, observation: Observation) {
        let record = self.by_code.entry(code.clone()).or_default();
        let before = record.clone();
        record.observation = Some(observation);
        let after = record.clone();
        self.count(&before, -1);
        self.count(&after, 1);
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
                    self.count(&removed, -1);
                    self.let_go += 1;
                }
            }
            self.count(&Record::default(), 1);
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
        let (number, code) = (oldest.number, oldest.payment.watch_code.clone());
        self.open.remove(&number);
        self.closed.remove(&number);
        removals.push(Removal::Payment(number));
        Some(code)
    }

    fn may_go(&self, stored: &StoredPayment, owed: &Deliveries) -> bool {
        let code = &stored.payment.watch_code;
        let has_ended = || {
            self.by_code
                .get(code)
                .is_none_or(|record| record.is_final() || record.polling_ended)
        };
        // A payment whose message the app still waits for stays.
        !self.pinned.contains(code)
            && !owed.owes(stored.number)
            && (!self.has_webhook || has_ended())
    }

    fn count(&mut self, record: &Record, by: i64) {
        // The guide's first status, until the gateway was asked.
        let status = record
            .observation
            .as_ref()
            .map_or(Status::Created.label(), |observation| {
                observation.report.status.label()
            });
        *self.by_status.entry(status).or_default() += by;
    }
}

//! Everything that the store knows, in memory. What must survive enters it only when it has been written down.

mod restore;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

use super::answers::{Answer, Answers};
use super::event::{Event, Removal};
use super::journal::{Change, Journal};
use super::outbox::Outbox;
use super::{Known, Observation, Record, Settled, StoredPayment};
use crate::clock::{self, Instant};
use crate::payment::{Report, Status, WatchCode};

pub(super) struct State {
    room: usize,
    /// The app gets messages about payments.
    tells: bool,
    ttl: Duration,
    pub(super) records: HashMap<WatchCode, Record>,
    /// Started here and not final yet, by number: in the order of their start.
    pub(super) open: BTreeMap<u64, Arc<StoredPayment>>,
    /// Started here and final, likewise.
    pub(super) closed: BTreeMap<u64, Arc<StoredPayment>>,
    /// When those became final, the first in front.
    finished: VecDeque<(Instant, u64)>,
    /// Only asked for here, the oldest in front. When there is no more room these go first.
    heard: VecDeque<WatchCode>,
    /// Somebody waits for these: they stay whatever the room.
    pub(super) pinned: HashSet<WatchCode>,
    pub(super) journal: Journal,
    pub(super) answers: Answers,
    pub(super) outbox: Outbox,
    /// The last number given to a payment, to a change, to a delivery.
    pub(super) numbers: Numbers,
    /// What has gone from here, and from what was written down has to.
    pub(super) removals: Vec<Removal>,
    /// The journal's last position.
    pub(super) position: watch::Sender<u64>,
    pub(super) by_status: Family<ByStatus, Gauge>,
    pub(super) let_go: Counter,
}

/// The last ones given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) payment: u64,
    pub(super) position: u64,
    pub(super) delivery: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByStatus {
    status: &'static str,
}

impl State {
    pub(super) fn new(room: usize, ttl: Duration, tells: bool) -> Self {
        let by_status = Family::default();
        for status in [Status::Created, Status::Completed] {
            drop(by_status.get_or_create(&ByStatus {
                status: status.label(),
            }));
        }
        Self {
            room,
            tells,
            ttl,
            records: HashMap::new(),
            open: BTreeMap::new(),
            closed: BTreeMap::new(),
            finished: VecDeque::new(),
            heard: VecDeque::new(),
            pinned: HashSet::new(),
            journal: Journal::default(),
            answers: Answers::default(),
            outbox: Outbox::default(),
            numbers: Numbers::default(),
            removals: Vec::new(),
            position: watch::Sender::new(0),
            by_status,
            let_go: Counter::default(),
        }
    }

    /// Of starts that are about to be written: one of a payment that was started before is none. The gateway may have
    /// keys of its own.
    pub(super) fn deduplicate_starts<'a>(&self, events: impl Iterator<Item = &'a mut Event>) {
        let mut begun = HashMap::new();
        for event in events {
            let Event::Started { stored, answer, .. } = event else {
                continue;
            };
            let code = &stored.payment.watch_code;
            let known = || {
                self.records
                    .get(code)
                    .and_then(|record| record.stored.clone())
            };
            match begun.get(code).cloned().or_else(known) {
                Some(before) if before.payment.code == stored.payment.code => {
                    if before.payment.amount != stored.payment.amount {
                        let code = &stored.payment.code;
                        tracing::warn!(%code, "the gateway gives a payment of another amount than was asked for again");
                    }
                    *event = Event::Again {
                        answer: answer.take(),
                    };
                }
                _ => drop(begun.insert(code.clone(), stored.clone())),
            }
        }
    }

    /// It has been written down: from here on it is true.
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Started {
                stored,
                position,
                answer,
            } => {
                self.start(stored, position);
                answer.into_iter().for_each(|answer| self.answer(answer));
            }
            Event::Again { answer } => answer.into_iter().for_each(|answer| self.answer(answer)),
            Event::Observed {
                stored,
                observation,
                polling_ended: _,
                position,
                delivery,
            } => {
                self.observe(&stored, &observation);
                self.change(Change {
                    position,
                    stored,
                    report: Some(observation.report),
                });
                if let Some(delivery) = delivery {
                    self.outbox.put(delivery);
                }
            }
            Event::PollingEnded {
                stored,
                observation: _,
                delivery,
            } => {
                if let Some(record) = self.records.get_mut(&stored.payment.watch_code)
                    && record.is_of(&stored)
                {
                    record.polling_ended = true;
                }
                if let Some(delivery) = delivery {
                    self.outbox.put(delivery);
                }
            }
            Event::Delivery(delivery) => self.outbox.put(delivery),
        }
    }

    /// It could not be written down yet, and is true all the same: what callers ask for knows it, and nobody is sent
    /// word of it before it is written.
    pub(super) fn apply_unwritten(&mut self, event: &Event) {
        match event {
            Event::Observed {
                stored,
                observation,
                ..
            } => self.observe(stored, observation),
            Event::Delivery(delivery) => self.outbox.put(delivery.clone()),
            Event::Started { .. } | Event::Again { .. } | Event::PollingEnded { .. } => {}
        }
    }

    /// It has been written by now. A message is where it belongs since then: it may even be on its way again.
    pub(super) fn apply_deferred(&mut self, event: Event) {
        if !matches!(event, Event::Delivery(_)) {
            self.apply(event);
        }
    }

    /// An answer that is nothing new, or about a payment that was not started here: nothing of it has to survive.
    pub(super) fn settle(
        &mut self,
        code: &WatchCode,
        report: Arc<Report>,
        asked: Instant,
    ) -> Settled {
        let is_new = !self.records.contains_key(code);
        let before = self.record(code).clone();
        let observation = Observation {
            report: before.newer(report),
            asked,
        };
        self.record_observation(code, observation.clone());
        if is_new {
            // Behind making room for it, which would find it there.
            self.heard.push_back(code.clone());
        }
        Settled {
            observation,
            before,
        }
    }

    /// Forgets what has had its time.
    pub(super) fn sweep(&mut self) {
        let keys = self.answers.expire(self.ttl);
        self.removals.extend(keys.into_iter().map(Removal::Answer));
        while let Some((at, number)) = self.finished.front().copied()
            && clock::now() - at >= self.ttl
        {
            self.finished.pop_front();
            let Some(stored) = self.closed.get(&number).cloned() else {
                continue;
            };
            let code = &stored.payment.watch_code;
            if self.pinned.contains(code) || self.outbox.owes(number) {
                self.finished.push_back((clock::now(), number));
                continue;
            }
            self.closed.remove(&number);
            self.removals.push(Removal::Payment(number));
            if let Some(removed) = self.records.remove(code) {
                self.count(&removed, -1);
            }
        }
        self.removals.extend(
            self.outbox
                .sweep(self.ttl)
                .into_iter()
                .map(Removal::Delivery),
        );
    }

    pub(super) fn known(&self, stored: &Arc<StoredPayment>) -> Known {
        let record = self.records.get(&stored.payment.watch_code);
        (
            stored.clone(),
            record.and_then(|record| record.observation.clone()),
        )
    }

    fn start(&mut self, stored: Arc<StoredPayment>, position: u64) {
        // What was heard of the code before is written down nowhere, and may be another's: the gateway is asked anew.
        let record = Record {
            stored: Some(stored.clone()),
            ..Record::default()
        };
        self.count(&record, 1);
        let before = mem::replace(self.record(&stored.payment.watch_code), record);
        self.displaced(&before);
        self.open.insert(stored.number, stored.clone());
        self.change(Change {
            position,
            stored,
            report: None,
        });
    }

    /// Another record has the place of this one.
    fn displaced(&mut self, record: &Record) {
        self.count(record, -1);
        if let Some(stored) = &record.stored {
            self.open.remove(&stored.number);
            self.closed.remove(&stored.number);
            self.removals.push(Removal::Payment(stored.number));
        }
    }

    fn answer(&mut self, answer: Arc<Answer>) {
        // An older row of that key, which has just been written anew, is not to go any more.
        self.removals
            .retain(|removal| !matches!(removal, Removal::Answer(key) if *key == answer.key));
        self.answers.add(answer);
    }

    fn observe(&mut self, stored: &Arc<StoredPayment>, observation: &Observation) {
        let code = &stored.payment.watch_code;
        let record = self.record(code);
        if record.stored.is_none() {
            // Let go while this was being written: its row is there again.
            record.stored = Some(stored.clone());
            self.removals.retain(
                |removal| !matches!(removal, Removal::Payment(number) if *number == stored.number),
            );
        } else if !record.is_of(stored) {
            return;
        }
        self.record_observation(code, observation.clone());
        self.open.remove(&stored.number);
        if observation.report.status.is_final() {
            if self.closed.insert(stored.number, stored.clone()).is_none() {
                self.finished.push_back((clock::now(), stored.number));
            }
        } else {
            self.open.insert(stored.number, stored.clone());
        }
    }

    pub(super) fn change(&mut self, change: Change) {
        self.position.send_replace(change.position);
        self.journal.add(change);
    }

    fn record_observation(&mut self, code: &WatchCode, observation: Observation) {
        let record = self.record(code);
        let before = record.clone();
        record.observation = Some(observation);
        let after = record.clone();
        self.count(&before, -1);
        self.count(&after, 1);
    }

    /// The record of that code, a new one if need be.
    fn record(&mut self, code: &WatchCode) -> &mut Record {
        if !self.records.contains_key(code) {
            while self.records.len() >= self.room {
                let Some(oldest) = self.take_oldest() else {
                    break;
                };
                if let Some(removed) = self.records.remove(&oldest) {
                    self.count(&removed, -1);
                    self.let_go.inc();
                }
            }
            self.count(&Record::default(), 1);
        }
        self.records.entry(code.clone()).or_default()
    }

    /// Takes the oldest that nobody waits for out of its row. `None`: somebody waits for every one.
    fn take_oldest(&mut self) -> Option<WatchCode> {
        for _ in 0..self.heard.len() {
            let code = self.heard.pop_front()?;
            match self.records.get(&code) {
                Some(record) if record.stored.is_none() => {
                    if !self.pinned.contains(&code) {
                        return Some(code);
                    }
                    self.heard.push_back(code);
                }
                // Heard of first, and started afterwards: it stands in another row.
                _ => {}
            }
        }
        let free = |stored: &&Arc<StoredPayment>| {
            let code = &stored.payment.watch_code;
            let ended = || {
                self.records
                    .get(code)
                    .is_none_or(|record| record.is_final() || record.polling_ended)
            };
            // A payment whose message the app still waits for stays.
            !self.pinned.contains(code)
                && !self.outbox.owes(stored.number)
                && (!self.tells || ended())
        };
        let rows = [&self.open, &self.closed];
        let oldest = rows
            .iter()
            .filter_map(|row| row.values().find(free))
            .min_by_key(|stored| stored.number)?;
        let (number, code) = (oldest.number, oldest.payment.watch_code.clone());
        self.open.remove(&number);
        self.closed.remove(&number);
        self.removals.push(Removal::Payment(number));
        Some(code)
    }

    fn count(&self, record: &Record, by: i64) {
        // The guide's first status, until the gateway was asked.
        let status = record
            .observation
            .as_ref()
            .map_or(Status::Created.label(), |observation| {
                observation.report.status.label()
            });
        self.by_status
            .get_or_create(&ByStatus { status })
            .inc_by(by);
    }
}

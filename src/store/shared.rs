//! The state behind its lock, and what wakes those who wait for a change of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::event::{Event, Removal};
use super::intent::Intent;
use super::model::{Observation, Record};
use super::state::State;
use crate::payment::{Report, WatchCode};

/// The state, shared by the faces of the store and the writer of its file.
pub(super) struct Shared {
    guarded: Mutex<Guarded>,
    /// The name of the journal.
    run: ArcSwap<String>,
    /// The journal's last position.
    position: watch::Sender<u64>,
    /// Rings when a message has been put into the outbox.
    owed: Arc<Notify>,
}

/// What the lock guards.
pub(super) struct Guarded {
    pub(super) state: State,
    /// Rows that have to be deleted with the next write.
    removals: Vec<Removal>,
    /// How far the log of a fleet has been followed.
    pub(super) followed: Followed,
}

/// How far the log has been followed that replicas share.
#[derive(Default)]
pub(super) struct Followed {
    /// The last write that is in the state.
    pub(super) position: u64,
    pub(super) mark: String,
    /// The payments of writes of others since the last write of one's own: it is not known yet that those survive.
    pub(super) unconfirmed: Unconfirmed,
    /// What the gateway has said and could not be written yet. It is known all the same.
    pub(super) unwritten: HashMap<WatchCode, Observation>,
}

/// Payments of which it is not known yet that they survive.
#[derive(Default)]
pub(super) struct Unconfirmed {
    all: bool,
    payments: HashSet<WatchCode>,
}

impl Unconfirmed {
    pub(super) fn has(&self, code: &WatchCode) -> bool {
        self.all || self.payments.contains(code)
    }

    pub(super) fn add(&mut self, code: WatchCode) {
        self.payments.insert(code);
    }

    pub(super) fn clear(&mut self) {
        (self.all, self.payments) = (false, HashSet::new());
    }
}

impl Followed {
    /// Everything up to this write was read, and nothing of it is confirmed.
    pub(super) fn begin(&mut self, position: u64, mark: String) {
        (self.position, self.mark) = (position, mark);
        self.unconfirmed.all = true;
    }

    /// What comes of this intent is in the state.
    pub(super) fn settled(&mut self, intent: &Intent) {
        if let Intent::Report { code, .. } = intent {
            self.unwritten.remove(code);
        }
    }
}

impl Shared {
    /// Shares this state; `removals` are rows that are still to be deleted, `run` is the name of the journal.
    pub(super) fn new(state: State, removals: Vec<Removal>, run: String) -> Self {
        Self {
            position: watch::Sender::new(state.changes.position()),
            run: ArcSwap::from_pointee(run),
            guarded: Mutex::new(Guarded {
                state,
                removals,
                followed: Followed::default(),
            }),
            owed: Arc::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the journal: positions mean nothing in another.
    pub(super) fn run(&self) -> Arc<String> {
        self.run.load_full()
    }

    /// The state has been loaded anew: everybody looks at it.
    pub(super) fn renew(&self, run: String, position: u64) {
        self.run.store(Arc::new(run));
        self.position.send_replace(position);
        self.owed.notify_one();
    }

    /// Returns whether somebody follows all changes; one who only looks for new payments does not count.
    pub(super) fn has_readers(&self) -> bool {
        self.position.receiver_count() > 1
    }

    /// Returns a receiver that changes when something is added to the journal.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.position.subscribe()
    }

    pub(super) fn owed(&self) -> Arc<Notify> {
        self.owed.clone()
    }

    /// Wakes those who wait for what this event has made true.
    pub(super) fn wake(&self, event: &Event) {
        if let Some(change) = event.change() {
            self.position.send_replace(change.position);
        }
        if event.delivery().is_some() {
            self.owed.notify_one();
        }
    }
}

impl Guarded {
    /// Returns what is known of this code.
    pub(super) fn record(&self, code: &WatchCode) -> Option<Record> {
        let mut record = self.state.payments.get(code).cloned();
        if !self.followed.unwritten.is_empty()
            && let Some(observation) = self.followed.unwritten.get(code)
            && let Some(record) = &mut record
            && !record.is_final()
        {
            record.observation = Some(observation.clone());
        }
        record
    }

    /// Returns what is known of this code and could not be written yet, if this report says nothing else.
    pub(super) fn known_unwritten(&self, code: &WatchCode, report: &Report) -> Option<Observation> {
        let known = self.followed.unwritten.get(code)?;
        let is_the_same = known.report.status.is_final() || known.report.body == report.body;
        is_the_same.then(|| known.clone())
    }

    /// Takes in what the gateway has said, if this is about that, before it is written.
    pub(super) fn unwritten(&mut self, intent: &Intent) {
        if let Intent::Report {
            code,
            report,
            asked,
            ..
        } = intent
            && !self.record(code).is_some_and(|record| record.is_final())
        {
            let observation = Observation {
                report: report.clone(),
                asked: *asked,
            };
            self.followed.unwritten.insert(code.clone(), observation);
        }
    }

    /// Returns the rows that are to be deleted now.
    pub(super) fn take_removals(&mut self) -> Vec<Removal> {
        std::mem::take(&mut self.removals)
    }

    /// Adds rows that are to be deleted with the next write.
    pub(super) fn remove(&mut self, rows: Vec<Removal>) {
        self.removals.extend(rows);
    }

    /// Notes that this event has just been written: a row that it wrote anew is not to be deleted any more.
    pub(super) fn wrote(&mut self, event: &Event) {
        self.removals.retain(|row| !event.writes(row));
    }
}

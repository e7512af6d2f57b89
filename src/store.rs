//! What must not be forgotten: the payments started here, and the last that is known of each watch code.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::clock::Instant;
use crate::payment::{Payment, Report, Status, WatchCode};

/// Keeps it in memory: forgotten when the process ends.
pub(crate) struct Store {
    room: usize,
    kept: Mutex<Kept>,
    tracked: Family<Tracked, Gauge>,
}

#[derive(Default)]
struct Kept {
    records: HashMap<WatchCode, Record>,
    /// Started here, in the order of their coming.
    started: VecDeque<WatchCode>,
    /// Only asked for here, likewise. When there is no more room the oldest of these go first.
    heard: VecDeque<WatchCode>,
}

/// What is known of one watch code.
#[derive(Clone, Default)]
pub(crate) struct Record {
    /// The payment, if it was started here.
    pub(crate) payment: Option<Arc<Payment>>,
    /// The last answer of the gateway, if there was one.
    pub(crate) seen: Option<Seen>,
}

/// An answer, and when it was asked for: what happened after that moment it cannot tell.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) report: Arc<Report>,
    pub(crate) asked: Instant,
}

/// What an answer did to what was known.
pub(crate) struct Settled {
    /// What is known now: a final status is never taken back.
    pub(crate) seen: Seen,
    /// What was known before.
    pub(crate) before: Record,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tracked {
    status: &'static str,
}

impl Store {
    /// Room for so many watch codes.
    pub(crate) fn new(room: usize) -> Self {
        Self { room, kept: Mutex::default(), tracked: Family::default() }
    }

    /// A payment was started.
    pub(crate) fn started(&self, payment: Payment) {
        self.with(|kept| {
            let code = payment.watch_code.clone();
            self.record(kept, &code).payment = Some(Arc::new(payment));
            kept.started.push_back(code);
        });
    }

    /// What is known of this code; `None` if it was never heard of.
    pub(crate) fn get(&self, code: &WatchCode) -> Option<Record> {
        self.with(|kept| kept.records.get(code).cloned())
    }

    /// The gateway answered.
    pub(crate) fn settle(&self, code: &WatchCode, report: Report, asked: Instant) -> Settled {
        self.with(|kept| {
            if !kept.records.contains_key(code) {
                kept.heard.push_back(code.clone());
            }
            let record = self.record(kept, code);
            let before = record.clone();
            let seen = match &before.seen {
                Some(seen) if seen.report.status.is_final() => Seen { asked, ..seen.clone() },
                _ => Seen { report: Arc::new(report), asked },
            };
            record.seen = Some(seen.clone());
            self.count(&before, -1);
            self.count(record, 1);
            Settled { seen, before }
        })
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "payments_tracked",
            "Watch codes in memory, by their last known status",
            self.tracked.clone(),
        );
    }

    /// The record of that code, a new one if need be.
    fn record<'a>(&self, kept: &'a mut Kept, code: &WatchCode) -> &'a mut Record {
        if !kept.records.contains_key(code) {
            while kept.records.len() >= self.room {
                let oldest = match kept.heard.pop_front() {
                    // Heard of first, and started afterwards: it stands in the other row too.
                    Some(code) if kept.records.get(&code).is_some_and(|record| record.payment.is_some()) => continue,
                    Some(code) => code,
                    None => match kept.started.pop_front() {
                        Some(code) => code,
                        None => break,
                    },
                };
                if let Some(gone) = kept.records.remove(&oldest) {
                    self.count(&gone, -1);
                }
            }
            self.count(&Record::default(), 1);
        }
        kept.records.entry(code.clone()).or_default()
    }

    fn count(&self, record: &Record, by: i64) {
        // The guide's first status, until the gateway was asked.
        let status = record.seen.as_ref().map_or(Status::Created.label(), |seen| seen.report.status.label());
        self.tracked.get_or_create(&Tracked { status }).inc_by(by);
    }

    fn with<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        f(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

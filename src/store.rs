//! What must not be forgotten: the payments started here, and the last that is known of each watch code.

mod journal;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;

use self::journal::Journal;
pub(crate) use self::journal::{Change, OutOfReach};
use crate::clock::{self, Instant};
use crate::payment::{Payment, Report, Status, WatchCode};
use crate::random;

/// Keeps it in memory: forgotten when the process ends.
pub(crate) struct Store {
    room: usize,
    /// Another one in each run: a position in the journal means nothing in another run.
    run: String,
    kept: Mutex<Kept>,
    /// The journal's last position.
    position: watch::Sender<u64>,
    tracked: Family<ByStatus, Gauge>,
    let_go: Counter,
}

#[derive(Default)]
struct Kept {
    records: HashMap<WatchCode, Record>,
    /// Started here and not final yet, by number: in the order of their start.
    open: BTreeMap<u64, Arc<Tracked>>,
    /// Started here and final, likewise.
    closed: BTreeMap<u64, Arc<Tracked>>,
    /// Only asked for here, the oldest in front. When there is no more room these go first.
    heard: VecDeque<WatchCode>,
    /// Somebody waits for these: they stay whatever the room.
    pinned: HashSet<WatchCode>,
    journal: Journal,
    /// Of the last start.
    number: u64,
}

/// A payment that was started here, and when.
pub(crate) struct Tracked {
    /// Its place in the order of starts, from 1.
    pub(crate) number: u64,
    pub(crate) payment: Payment,
    /// For its age.
    pub(crate) since: Instant,
    /// For people and other programs.
    pub(crate) started_at: Timestamp,
}

/// What is known of one watch code.
#[derive(Clone, Default)]
pub(crate) struct Record {
    /// The payment, if it was started here.
    pub(crate) tracked: Option<Arc<Tracked>>,
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

/// A payment that was started here, and the last answer about it.
pub(crate) type Known = (Arc<Tracked>, Option<Seen>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStatus {
    status: &'static str,
}

impl Store {
    /// Room for so many watch codes.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            room,
            run: random::token(8),
            kept: Mutex::default(),
            position: watch::Sender::new(0),
            tracked: Family::default(),
            let_go: Counter::default(),
        }
    }

    /// A payment was started.
    pub(crate) fn started(&self, payment: Payment) {
        let position = self.with(|kept| {
            let code = payment.watch_code.clone();
            kept.number += 1;
            let number = kept.number;
            let since = clock::now();
            let tracked = Arc::new(Tracked { number, payment, since, started_at: clock::wall_at(since) });
            let record = self.record(kept, &code);
            let before = record.tracked.replace(tracked.clone());
            let report = record.seen.as_ref().map(|seen| seen.report.clone());
            if let Some(before) = before {
                kept.open.remove(&before.number);
                kept.closed.remove(&before.number);
            }
            let is_final = report.as_ref().is_some_and(|report| report.status.is_final());
            let row = if is_final { &mut kept.closed } else { &mut kept.open };
            row.insert(number, tracked.clone());
            kept.journal.add(tracked, report)
        });
        self.position.send_replace(position);
    }

    /// What is known of this code; `None` if it was never heard of.
    pub(crate) fn get(&self, code: &WatchCode) -> Option<Record> {
        self.with(|kept| kept.records.get(code).cloned())
    }

    /// The gateway answered.
    pub(crate) fn settle(&self, code: &WatchCode, report: Report, asked: Instant) -> Settled {
        let (settled, position) = self.with(|kept| {
            let is_new = !kept.records.contains_key(code);
            let record = self.record(kept, code);
            let before = record.clone();
            let report = match &before.seen {
                // The same again keeps its place in memory, and a final status is never taken back.
                Some(seen) if seen.report.status.is_final() || seen.report.body == report.body => seen.report.clone(),
                _ => Arc::new(report),
            };
            let seen = Seen { report, asked };
            record.seen = Some(seen.clone());
            let is_news = before.seen.as_ref().is_none_or(|before| !Arc::ptr_eq(&before.report, &seen.report));
            self.count(&before, -1);
            self.count(record, 1);
            if is_new {
                // Behind making room for it, which would find it there.
                kept.heard.push_back(code.clone());
            }
            let mut position = None;
            if let Some(tracked) = before.tracked.clone().filter(|_| is_news) {
                if seen.report.status.is_final() {
                    kept.open.remove(&tracked.number);
                    kept.closed.insert(tracked.number, tracked.clone());
                }
                position = Some(kept.journal.add(tracked, Some(seen.report.clone())));
            }
            (Settled { seen, before }, position)
        });
        if let Some(position) = position {
            self.position.send_replace(position);
        }
        settled
    }

    /// Keeps what is known of this code, whatever the room.
    pub(crate) fn pin(&self, code: &WatchCode) {
        self.with(|kept| kept.pinned.insert(code.clone()));
    }

    /// Takes that back.
    pub(crate) fn unpin(&self, code: &WatchCode) {
        self.with(|kept| kept.pinned.remove(code));
    }

    /// Open payments that were started after that one, in the order of their start, at most so many.
    pub(crate) fn open_after(&self, number: u64, limit: usize) -> Vec<Known> {
        self.with(|kept| kept.open.range(number + 1..).take(limit).map(|(_, tracked)| kept.known(tracked)).collect())
    }

    /// Payments that were started before that one, the newest first, at most so many; of that status, if one is given.
    pub(crate) fn before(&self, number: u64, status: Option<&Status>, limit: usize) -> Vec<Known> {
        self.with(|kept| {
            let mut open = kept.open.range(..number).rev().map(|(_, tracked)| tracked).peekable();
            let mut closed = kept.closed.range(..number).rev().map(|(_, tracked)| tracked).peekable();
            let all = std::iter::from_fn(|| match (open.peek(), closed.peek()) {
                (Some(a), Some(b)) if a.number < b.number => closed.next(),
                (None, _) => closed.next(),
                _ => open.next(),
            });
            let of_status = |known: &Known| {
                let (_, seen) = known;
                status.is_none_or(|status| seen.as_ref().map_or(&Status::Created, |seen| &seen.report.status) == status)
            };
            all.map(|tracked| kept.known(tracked)).filter(of_status).take(limit).collect()
        })
    }

    /// How many payments are open in each of these groups: up to the first age, from there up to the second, and so
    /// on; the rest comes last.
    pub(crate) fn open_by_age<const N: usize>(&self, ages: [std::time::Duration; N]) -> ([usize; N], usize) {
        let now = clock::now();
        self.with(|kept| {
            let (mut groups, mut rest) = ([0; N], 0);
            for tracked in kept.open.values() {
                let age = now - tracked.since;
                match ages.iter().position(|limit| age < *limit) {
                    Some(group) => groups[group] += 1,
                    None => rest += 1,
                }
            }
            (groups, rest)
        })
    }

    /// Names this run of the journal.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The journal's last position.
    pub(crate) fn position(&self) -> u64 {
        self.with(|kept| kept.journal.position())
    }

    /// Tells when something is written into the journal.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.position.subscribe()
    }

    /// What was written after that position, the oldest first, at most so many.
    ///
    /// # Errors
    /// When the journal does not reach back so far.
    pub(crate) fn changes_after(&self, position: u64, limit: usize) -> Result<Vec<Change>, OutOfReach> {
        self.with(|kept| kept.journal.after(position, limit))
    }

    /// Adds this room's metrics.
    pub(crate) fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register(
            "payments_tracked",
            "Watch codes in memory, by their last known status",
            self.tracked.clone(),
        );
        registry.register("payments_let_go", "Watch codes forgotten because of watch.max_tracked", self.let_go.clone());
        registry.register_collector(Box::new(Open(self.clone())));
    }

    /// The record of that code, a new one if need be.
    fn record<'a>(&self, kept: &'a mut Kept, code: &WatchCode) -> &'a mut Record {
        if !kept.records.contains_key(code) {
            while kept.records.len() >= self.room {
                let Some(oldest) = kept.oldest_unpinned() else { break };
                if let Some(gone) = kept.records.remove(&oldest) {
                    self.count(&gone, -1);
                    self.let_go.inc();
                }
            }
            self.count(&Record::default(), 1);
        }
        kept.records.entry(code.clone()).or_default()
    }

    fn count(&self, record: &Record, by: i64) {
        // The guide's first status, until the gateway was asked.
        let status = record.seen.as_ref().map_or(Status::Created.label(), |seen| seen.report.status.label());
        self.tracked.get_or_create(&ByStatus { status }).inc_by(by);
    }

    fn with<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        f(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kept {
    fn known(&self, tracked: &Arc<Tracked>) -> Known {
        let record = self.records.get(&tracked.payment.watch_code);
        (tracked.clone(), record.and_then(|record| record.seen.clone()))
    }

    /// Takes the oldest that nobody waits for out of its row. `None`: somebody waits for every one.
    fn oldest_unpinned(&mut self) -> Option<WatchCode> {
        for _ in 0..self.heard.len() {
            let code = self.heard.pop_front()?;
            match self.records.get(&code) {
                Some(record) if record.tracked.is_none() => {
                    if !self.pinned.contains(&code) {
                        return Some(code);
                    }
                    self.heard.push_back(code);
                }
                // Heard of first, and started afterwards: it stands in another row.
                _ => {}
            }
        }
        let unpinned = |tracked: &&Arc<Tracked>| !self.pinned.contains(&tracked.payment.watch_code);
        let rows = [&self.open, &self.closed];
        let oldest = rows.iter().filter_map(|row| row.values().find(unpinned)).min_by_key(|tracked| tracked.number)?;
        let (number, code) = (oldest.number, oldest.payment.watch_code.clone());
        self.open.remove(&number);
        self.closed.remove(&number);
        Some(code)
    }
}

/// How many payments are open and how old the oldest is, when somebody asks for it.
struct Open(Arc<Store>);

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Open")
    }
}

impl Collector for Open {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (count, since) =
            self.0.with(|kept| (kept.open.len(), kept.open.values().next().map(|tracked| tracked.since)));
        let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        let help = "Payments started here that are neither completed nor let go.";
        count.encode(encoder.encode_descriptor("payments_open", help, None, count.metric_type())?)?;
        let age = ConstGauge::new(since.map_or(0.0, |since| (clock::now() - since).as_secs_f64()));
        let help = "Age of the oldest payment that is neither completed nor let go; 0 where there is none.";
        age.encode(encoder.encode_descriptor("oldest_open_payment", help, Some(&Unit::Seconds), age.metric_type())?)
    }
}

//! What must not be forgotten: the payments started here, what was answered under which key, what the app is still to
//! be told of; and the last that is known of each watch code.
//!
//! All of it is in memory, and read there. With a file each fact is written down first, and becomes true when that is
//! done: nobody hears of what a crash could take back.

mod answers;
mod backend;
mod batch;
mod counted;
mod deliveries;
mod fact;
mod file;
#[cfg(fuzzing)]
pub mod fuzz;
mod journal;
mod known;
mod lists;
mod lived;
mod outbox;
mod place;
mod row;
mod shelf;
mod shown;
mod tables;

use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

pub(crate) use self::answers::Answer;
pub(crate) use self::batch::Starting;
use self::counted::Counted;
use self::fact::Fact;
pub(crate) use self::file::CannotOpen;
use self::file::File;
pub(crate) use self::journal::{Change, OutOfReach};
pub(crate) use self::known::{Known, Record, Seen, Settled, Tracked};
pub(crate) use self::outbox::{Delivery, Kind, LastTries, State};
pub(crate) use self::place::Place;
use self::shelf::Shelf;
pub(crate) use self::shown::shown;
use crate::clock::{self, Instant};
use crate::payment::{Fingerprint, IdempotencyKey, Payment, Report, WatchCode};
use crate::ready::Ready;
use crate::{random, text};

/// `[store]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Where it is kept.
    #[serde(with = "text")]
    pub(crate) url: Option<Place>,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: Some(Place::Memory) }
    }
}

/// Live keys at most: each costs a few hundred bytes.
const MAX_KEYS: usize = 250_000;

/// Keeps it.
pub(crate) struct Store {
    /// In the journal's positions: what one run, or one file, has written means nothing in another.
    run: String,
    ttl: Duration,
    shelf: Arc<Mutex<Shelf>>,
    /// `None`: all is forgotten when the process ends.
    file: Option<File>,
    /// Makes messages to the app out of what happens; `None` where the app is not to be told.
    compose: Option<Compose>,
    position: watch::Receiver<u64>,
}

/// What is posted to the app about this payment.
pub(crate) type Compose = fn(Kind, &Tracked, Option<&Report>, Timestamp) -> String;

/// It could not be written down: nobody may hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has no room, or could not be written")]
pub(crate) struct NotKept;

impl Store {
    /// Opens it, with room for so many watch codes. Answers under a key, and finished payments, are kept for `ttl`.
    /// With `compose` the app is told what happens. `ready` has a check of this room's, which fails while nothing can be
    /// written.
    ///
    /// # Errors
    /// When a file cannot be used. It is left as it is.
    pub(crate) fn open(
        place: &Place,
        room: usize,
        ttl: Duration,
        compose: Option<Compose>,
        ready: &Ready,
    ) -> Result<Self, CannotOpen> {
        drop(ready.latch("store"));
        let mut shelf = Shelf::new(room, ttl, compose.is_some());
        let position = shelf.position.subscribe();
        let (file, run, shelf) = match place {
            Place::Memory => (None, random::token(8), Arc::new(Mutex::new(shelf))),
            Place::Directory(directory) => {
                let (opened, run) = file::open(directory, &mut shelf)?;
                let shelf = Arc::new(Mutex::new(shelf));
                (Some(opened.serve(shelf.clone(), ready.clone())), run, shelf)
            }
        };
        Ok(Self { run, ttl, shelf, file, compose, position })
    }

    /// Whether a start can be kept at this moment.
    ///
    /// # Errors
    /// When the last try to write something failed.
    pub(crate) fn has_room(&self) -> Result<(), NotKept> {
        if self.file.as_ref().is_none_or(File::has_room) { Ok(()) } else { Err(NotKept) }
    }

    /// Says that a start is under way, for as long as this is held: those that end together are written together.
    pub(crate) fn starting(&self) -> Option<Starting> {
        self.file.as_ref().map(File::starting)
    }

    /// A payment was started; `answer` is what was asked for and answered under a key. When this returns it is kept,
    /// and only then anybody may hear of it. One that the gateway gives a second time is no other payment: what is known
    /// of it stays.
    ///
    /// # Errors
    /// When it could not be.
    pub(crate) async fn started(
        &self,
        payment: Payment,
        answer: Option<(IdempotencyKey, Fingerprint, Arc<str>)>,
    ) -> Result<(), NotKept> {
        let since = clock::now();
        let kept = {
            let mut shelf = self.shelf();
            shelf.numbers.payment += 1;
            shelf.numbers.position += 1;
            let (number, position) = (shelf.numbers.payment, shelf.numbers.position);
            let tracked = Arc::new(Tracked { number, payment, since, started_at: clock::wall_at(since) });
            let answer = answer.map(|(key, request, body)| Arc::new(Answer { key, request, body, since }));
            self.keep(&mut shelf, Fact::Started { tracked, position, answer })
        };
        kept.done().await
    }

    /// What was answered under this key, if its time is not over.
    pub(crate) fn answer(&self, key: &IdempotencyKey) -> Option<Arc<Answer>> {
        self.shelf().answers.get(key, self.ttl)
    }

    /// Whether so many more keys can be kept.
    pub(crate) fn has_keys(&self, more: usize) -> bool {
        self.shelf().answers.len() + more <= MAX_KEYS
    }

    /// What is known of this code; `None` if it was never heard of.
    pub(crate) fn get(&self, code: &WatchCode) -> Option<Record> {
        self.shelf().records.get(code).cloned()
    }

    /// The gateway answered. Something new about a payment that was started here is kept when this returns; where it
    /// cannot be, it is known all the same, and written later.
    pub(crate) async fn settle(&self, code: &WatchCode, report: Report, asked: Instant) -> Settled {
        let report = Arc::new(report);
        let (settled, kept) = {
            let mut shelf = self.shelf();
            let before = shelf.records.get(code).cloned().unwrap_or_default();
            if before.tracked.as_ref().is_some_and(|tracked| asked < tracked.since) {
                // It is about what had this code until then.
                return Settled { seen: Seen { report, asked }, before };
            }
            let seen = Seen { report: before.newer(report.clone()), asked };
            let is_news = before.seen.as_ref().is_none_or(|before| !Arc::ptr_eq(&before.report, &seen.report));
            let Some(tracked) = before.tracked.clone().filter(|_| is_news) else {
                return shelf.settle(code, report, asked);
            };
            shelf.numbers.position += 1;
            let position = shelf.numbers.position;
            let delivery = if seen.report.status.is_final() {
                self.delivery(&mut shelf, Kind::Completed, &tracked, Some(&seen.report))
            } else {
                None
            };
            let polling_ended = before.polling_ended;
            let fact = Fact::Told { tracked, seen: seen.clone(), polling_ended, position, delivery };
            (Settled { seen, before }, self.keep(&mut shelf, fact))
        };
        // Not kept is not untrue.
        let _ = kept.done().await;
        settled
    }

    /// This payment is not polled in the background any more: the app is told of it once, if it is told anything.
    pub(crate) async fn polling_ended(&self, code: &WatchCode) {
        if self.compose.is_none() {
            return;
        }
        let kept = {
            let mut shelf = self.shelf();
            let Some(Record { tracked: Some(tracked), seen, polling_ended: false }) = shelf.records.get(code).cloned()
            else {
                return;
            };
            let report = seen.as_ref().map(|seen| &*seen.report);
            if report.is_some_and(|report| report.status.is_final()) {
                return;
            }
            let delivery = self.delivery(&mut shelf, Kind::PollingEnded, &tracked, report);
            // Ahead of its being written: nobody is told it a second time meanwhile.
            if let Some(record) = shelf.records.get_mut(code) {
                record.polling_ended = true;
            }
            self.keep(&mut shelf, Fact::PollingEnded { tracked, seen, delivery })
        };
        let _ = kept.done().await;
    }

    /// Keeps what is known of this code, whatever the room.
    pub(crate) fn pin(&self, code: &WatchCode) {
        self.shelf().pinned.insert(code.clone());
    }

    /// Takes that back.
    pub(crate) fn unpin(&self, code: &WatchCode) {
        self.shelf().pinned.remove(code);
    }

    /// Names the journal: positions mean nothing in another.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The journal's last position.
    pub(crate) fn position(&self) -> u64 {
        self.shelf().journal.position()
    }

    /// Tells when something is written into the journal.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.position.clone()
    }

    /// What was written after that position, the oldest first, at most so many.
    ///
    /// # Errors
    /// When the journal does not reach back so far.
    pub(crate) fn changes_after(&self, position: u64, limit: usize) -> Result<Vec<Change>, OutOfReach> {
        self.shelf().journal.after(position, limit)
    }

    /// Forgets what has had its time.
    pub(crate) fn sweep(&self) {
        self.shelf().sweep();
    }

    /// Returns when the file can never be used again by this process: what it holds is not known any more.
    pub(crate) async fn broken(&self) {
        match &self.file {
            Some(file) => file.broken().await,
            None => std::future::pending().await,
        }
    }

    /// Writes what is still to be written, and closes the file.
    pub(crate) async fn close(&self) {
        if let Some(file) = &self.file {
            file.close().await;
        }
    }

    /// Adds this room's metrics.
    pub(crate) fn register(self: &Arc<Self>, registry: &mut Registry) {
        let shelf = self.shelf();
        let tracked = shelf.tracked.clone();
        registry.register("payments_tracked", "Watch codes in memory, by their last known status", tracked);
        let let_go = shelf.let_go.clone();
        registry.register("payments_let_go", "Watch codes forgotten because of watch.max_tracked", let_go);
        drop(shelf);
        registry.register_collector(Box::new(Counted(self.clone())));
    }

    /// A message to the app, if it is to be told.
    fn delivery(
        &self,
        shelf: &mut Shelf,
        kind: Kind,
        tracked: &Tracked,
        report: Option<&Report>,
    ) -> Option<Arc<Delivery>> {
        let compose = self.compose?;
        shelf.numbers.delivery += 1;
        let since = clock::now();
        let created_at = clock::wall_at(since);
        Some(Arc::new(Delivery {
            number: shelf.numbers.delivery,
            id: format!("msg_{}", random::token(24)),
            payment: tracked.number,
            kind,
            body: compose(kind, tracked, report, created_at).into(),
            created_at,
            since,
            tries: 0,
            failed: None,
            not_before: None,
            last_error: None,
            state: State::Due(since),
        }))
    }

    /// Writes a fact down, and makes it true. In the order of the calls: the caller holds the shelf.
    fn keep(&self, shelf: &mut Shelf, mut fact: Fact) -> Kept {
        match &self.file {
            Some(file) => Kept(Some(file.keep(fact))),
            None => {
                shelf.unite(iter::once(&mut fact));
                shelf.apply(fact);
                // There is nothing from which it would have to go.
                shelf.gone.clear();
                Kept(None)
            }
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fact on its way; `None`: it is kept already.
struct Kept(Option<oneshot::Receiver<Result<(), NotKept>>>);

impl Kept {
    async fn done(self) -> Result<(), NotKept> {
        match self.0 {
            // Without an answer nothing is known: the process is about to end.
            Some(kept) => kept.await.unwrap_or(Err(NotKept)),
            None => Ok(()),
        }
    }
}

//! What must not be forgotten: the payments started here, what was answered under which key, what the app is still to
//! hear of; and the last that is known of each watch code.
//!
//! All of it is in memory, and read there. With a file each event is written down first, and becomes true when that is
//! done: nobody hears of what a crash could take back.

mod answers;
mod backend;
mod batch;
mod counted;
mod deliveries;
mod event;
mod file;
#[cfg(fuzzing)]
pub mod fuzz;
mod journal;
mod kept;
mod known;
mod lists;
mod lived;
mod outbox;
mod place;
mod row;
mod shown;
mod state;
mod tables;

use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(crate) use self::answers::Answer;
pub(crate) use self::batch::Starting;
use self::counted::Counted;
use self::event::Event;
pub(crate) use self::file::CannotOpen;
use self::file::File;
pub(crate) use self::journal::{Change, OutOfReach};
use self::kept::Kept;
pub(crate) use self::kept::WriteFailed;
pub(crate) use self::known::{Known, Observation, Record, Settled, StoredPayment};
pub(crate) use self::outbox::{Delivery, DeliveryState, Kind, LastTries};
pub(crate) use self::place::Place;
pub(crate) use self::shown::shown;
use self::state::State;
use crate::clock::{self, Instant};
use crate::payment::{Fingerprint, IdempotencyKey, Payment, Report, WatchCode};
use crate::readiness::Readiness;
use crate::{random, text};

/// `[store]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Where it is kept.
    #[serde(with = "text::required")]
    pub(crate) url: Place,
}

impl Default for Config {
    fn default() -> Self {
        Self { url: Place::Memory }
    }
}

/// Live keys at most: each costs a few hundred bytes.
const MAX_KEYS: usize = 250_000;

/// Keeps it.
pub(crate) struct Store {
    /// In the journal's positions: what one run, or one file, has written means nothing in another.
    run: String,
    ttl: Duration,
    state: Arc<Mutex<State>>,
    /// `None`: all is forgotten when the process ends.
    file: Option<File>,
    /// Composes the messages to the app; `None` where the app gets none.
    compose: Option<Compose>,
    position: watch::Receiver<u64>,
}

/// What is posted to the app about this payment.
pub(crate) type Compose = fn(Kind, &StoredPayment, Option<&Report>, Timestamp) -> String;

impl Store {
    /// Opens it, with room for `room` watch codes. Answers under a key, and finished payments, are kept for `ttl`.
    /// With `compose` the app gets messages. `readiness` has a check of this room's, which fails while nothing can be
    /// written.
    ///
    /// # Errors
    /// When a file cannot be used. It is left as it is.
    pub(crate) fn open(
        place: &Place,
        room: usize,
        ttl: Duration,
        compose: Option<Compose>,
        readiness: &Readiness,
    ) -> Result<Self, CannotOpen> {
        drop(readiness.latch("store"));
        let mut state = State::new(room, ttl, compose.is_some());
        let position = state.position.subscribe();
        let (file, run, state) = match place {
            Place::Memory => (None, random::token(8), Arc::new(Mutex::new(state))),
            Place::Directory(directory) => {
                let (opened, run) = file::open(directory, &mut state)?;
                let state = Arc::new(Mutex::new(state));
                (
                    Some(opened.serve(state.clone(), readiness.clone())),
                    run,
                    state,
                )
            }
        };
        Ok(Self {
            run,
            ttl,
            state,
            file,
            compose,
            position,
        })
    }

    /// Whether a start can be kept at this moment.
    ///
    /// # Errors
    /// When the last try to write something failed.
    pub(crate) fn has_room(&self) -> Result<(), WriteFailed> {
        if self.file.as_ref().is_none_or(File::has_room) {
            Ok(())
        } else {
            Err(WriteFailed)
        }
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
    ) -> Result<(), WriteFailed> {
        let since = clock::now();
        let kept = {
            let mut state = self.state();
            state.numbers.payment += 1;
            state.numbers.position += 1;
            let (number, position) = (state.numbers.payment, state.numbers.position);
            let stored = Arc::new(StoredPayment {
                number,
                payment,
                since,
                started_at: clock::wall_at(since),
            });
            let answer = answer.map(|(key, request, body)| {
                Arc::new(Answer {
                    key,
                    request,
                    body,
                    since,
                })
            });
            self.keep(
                &mut state,
                Event::Started {
                    stored,
                    position,
                    answer,
                },
            )
        };
        kept.done().await
    }

    /// What was answered under this key, if its time is not over.
    pub(crate) fn answer(&self, key: &IdempotencyKey) -> Option<Arc<Answer>> {
        self.state().answers.get(key, self.ttl)
    }

    /// Whether `more` further keys can be kept.
    pub(crate) fn has_keys(&self, more: usize) -> bool {
        self.state().answers.len() + more <= MAX_KEYS
    }

    /// What is known of this code; `None` if it was never heard of.
    pub(crate) fn get(&self, code: &WatchCode) -> Option<Record> {
        self.state().records.get(code).cloned()
    }

    /// The gateway answered. Something new about a payment that was started here is kept when this returns; where it
    /// cannot be, it is known all the same, and written later.
    pub(crate) async fn settle(&self, code: &WatchCode, report: Report, asked: Instant) -> Settled {
        let report = Arc::new(report);
        let (settled, kept) = {
            let mut state = self.state();
            let before = state.records.get(code).cloned().unwrap_or_default();
            if before
                .stored
                .as_ref()
                .is_some_and(|stored| asked < stored.since)
            {
                // It is about what had this code until then.
                return Settled {
                    observation: Observation { report, asked },
                    before,
                };
            }
            let observation = Observation {
                report: before.newer(report.clone()),
                asked,
            };
            let is_news = before
                .observation
                .as_ref()
                .is_none_or(|before| !Arc::ptr_eq(&before.report, &observation.report));
            let Some(stored) = before.stored.clone().filter(|_| is_news) else {
                return state.settle(code, report, asked);
            };
            state.numbers.position += 1;
            let position = state.numbers.position;
            let delivery = if observation.report.status.is_final() {
                self.delivery(
                    &mut state,
                    Kind::Completed,
                    &stored,
                    Some(&observation.report),
                )
            } else {
                None
            };
            let polling_ended = before.polling_ended;
            let event = Event::Observed {
                stored,
                observation: observation.clone(),
                polling_ended,
                position,
                delivery,
            };
            (
                Settled {
                    observation,
                    before,
                },
                self.keep(&mut state, event),
            )
        };
        // Not kept is not untrue.
        let _ = kept.done().await;
        settled
    }

    /// This payment is not polled in the background any more: the app gets one message about it, if it gets messages.
    pub(crate) async fn polling_ended(&self, code: &WatchCode) {
        if self.compose.is_none() {
            return;
        }
        let kept = {
            let mut state = self.state();
            let Some(Record {
                stored: Some(stored),
                observation,
                polling_ended: false,
            }) = state.records.get(code).cloned()
            else {
                return;
            };
            let report = observation.as_ref().map(|observation| &*observation.report);
            if report.is_some_and(|report| report.status.is_final()) {
                return;
            }
            let delivery = self.delivery(&mut state, Kind::PollingEnded, &stored, report);
            // Set before it is written, so that no second message is made meanwhile.
            if let Some(record) = state.records.get_mut(code) {
                record.polling_ended = true;
            }
            self.keep(
                &mut state,
                Event::PollingEnded {
                    stored,
                    observation,
                    delivery,
                },
            )
        };
        let _ = kept.done().await;
    }

    /// Keeps what is known of this code, whatever the room.
    pub(crate) fn pin(&self, code: &WatchCode) {
        self.state().pinned.insert(code.clone());
    }

    /// Takes that back.
    pub(crate) fn unpin(&self, code: &WatchCode) {
        self.state().pinned.remove(code);
    }

    /// Names the journal: positions mean nothing in another.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    /// The journal's last position.
    pub(crate) fn position(&self) -> u64 {
        self.state().journal.position()
    }

    /// Changes when something is written into the journal.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.position.clone()
    }

    /// What was written after that position, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the journal does not reach back so far.
    pub(crate) fn changes_after(
        &self,
        position: u64,
        limit: usize,
    ) -> Result<Vec<Change>, OutOfReach> {
        self.state().journal.after(position, limit)
    }

    /// Forgets what has had its time.
    pub(crate) fn sweep(&self) {
        self.state().sweep();
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
        let state = self.state();
        let by_status = state.by_status.clone();
        registry.register(
            "payments_tracked",
            "Watch codes in memory, by their last known status",
            by_status,
        );
        let let_go = state.let_go.clone();
        registry.register(
            "payments_let_go",
            "Watch codes forgotten because of watch.max_tracked",
            let_go,
        );
        drop(state);
        registry.register_collector(Box::new(Counted(self.clone())));
    }

    /// Writes an event down, and makes it true. In the order of the calls: the caller holds the state.
    fn keep(&self, state: &mut State, mut event: Event) -> Kept {
        match &self.file {
            Some(file) => Kept(Some(file.keep(event))),
            None => {
                state.deduplicate_starts(iter::once(&mut event));
                state.apply(event);
                // There is nothing from which it would have to go.
                state.removals.clear();
                Kept(None)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

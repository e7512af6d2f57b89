//! Events on their way to being true: each is made durable first, by the keeper of this store.

mod backend;
mod batch;
mod columns;
mod delivery_row;
mod file;
#[cfg(fuzzing)]
pub mod fuzz;
mod lived;
mod row;
mod tables;
mod writer;

use std::sync::{Arc, MutexGuard};

use tokio::sync::{Notify, oneshot, watch};

pub(crate) use self::batch::Starting;
pub(crate) use self::file::CannotOpen;
use self::writer::File;
use super::decide::Decision;
use super::event::Removal;
use super::intent::{Effect, Intent};
use super::model::{RecordError, WriteFailed};
use super::place::Place;
use super::shared::{Guarded, Shared};
use super::state::State;
use crate::random;
use crate::readiness::Readiness;

/// The state, and what keeps it.
pub(super) struct Log {
    shared: Arc<Shared>,
    keeper: Keeper,
}

/// Where events are written.
enum Keeper {
    /// Nowhere: all is forgotten when the process ends.
    Memory,
    /// Into a file.
    File(File),
}

/// What is to be written, or has been.
#[must_use]
pub(super) struct Acknowledged(Written);

enum Written {
    /// It is true already.
    Now(Result<Effect, RecordError>),
    /// It is being written.
    Later(oneshot::Receiver<Result<Effect, RecordError>>),
}

impl Log {
    /// Opens what is in this place, and puts it into the state; also returns the name of its journal. `readiness` has a
    /// check of this room's, which fails while nothing can be written.
    ///
    /// # Errors
    /// If a file cannot be used. It is left as it is.
    pub(super) fn open(
        place: &Place,
        mut state: State,
        readiness: &Readiness,
    ) -> Result<(Self, String), CannotOpen> {
        drop(readiness.latch("store"));
        Ok(match place {
            Place::Memory => {
                let log = Self {
                    shared: Arc::new(Shared::new(state, Vec::new())),
                    keeper: Keeper::Memory,
                };
                (log, random::token(8))
            }
            Place::Directory(directory) => {
                let (opened, run, removals) = file::open(directory, &mut state)?;
                let shared = Arc::new(Shared::new(state, removals));
                let keeper = Keeper::File(opened.serve(shared.clone(), readiness.clone()));
                (Self { shared, keeper }, run)
            }
            Place::Fleet(_) => return Err(CannotOpen::Fleet),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.shared.lock()
    }

    /// Makes what comes of an intent durable, then true. They come in the order of the calls, but for those that depend on
    /// others of the same write.
    pub(super) fn append(&self, guarded: &mut Guarded, intent: Intent) -> Acknowledged {
        Acknowledged(match &self.keeper {
            Keeper::Memory => Written::Now(match guarded.state.decide(&intent) {
                Decision::Write(event, effect) => {
                    let removals = guarded.state.apply(&event);
                    self.remove(guarded, removals);
                    self.shared.wake(&event);
                    Ok(effect)
                }
                Decision::Nothing(effect) => Ok(effect),
                Decision::Refused(reused) => Err(RecordError::CodeReused(reused)),
            }),
            Keeper::File(file) => Written::Later(file.append(intent)),
        })
    }

    /// Deletes these rows with the next write.
    pub(super) fn remove(&self, guarded: &mut Guarded, rows: Vec<Removal>) {
        match &self.keeper {
            Keeper::Memory => {}
            Keeper::File(_) => guarded.remove(rows),
        }
    }

    /// Returns whether the last try to write went well.
    pub(super) fn has_room(&self) -> bool {
        match &self.keeper {
            Keeper::Memory => true,
            Keeper::File(file) => file.has_room(),
        }
    }

    /// Says that a start is under way, for as long as the result is held: those that end together are written together.
    pub(super) fn starting(&self) -> Option<Starting> {
        match &self.keeper {
            Keeper::Memory => None,
            Keeper::File(file) => Some(file.starting()),
        }
    }

    /// Returns a receiver that changes when something is added to the journal.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed()
    }

    /// Returns what rings when a message has been put into the outbox.
    pub(super) fn owed(&self) -> Arc<Notify> {
        self.shared.owed()
    }

    /// Returns when the file can never be used again by this process: what it holds is not known any more.
    pub(super) async fn broken(&self) {
        match &self.keeper {
            Keeper::Memory => std::future::pending().await,
            Keeper::File(file) => file.broken().await,
        }
    }

    /// Writes what is still to be written, and closes the file.
    pub(super) async fn close(&self) {
        if let Keeper::File(file) = &self.keeper {
            file.close().await;
        }
    }
}

impl Acknowledged {
    /// Waits until it is true; returns what has come of it.
    ///
    /// # Errors
    /// If it could not be written and may not be true without, or if the codes of a start are another payment's.
    pub(super) async fn done(self) -> Result<Effect, RecordError> {
        match self.0 {
            Written::Now(result) => result,
            // Without an answer nothing is known: the process is about to end.
            Written::Later(written) => written.await.unwrap_or(Err(WriteFailed.into())),
        }
    }
}

//! Events on their way to being true: each is made durable first, by the keeper of this store.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};

use super::config::Config;
use super::decide::Decision;
use super::event::Removal;
use super::file::{self, CannotOpen, File, Starting};
use super::fleet::{Fleet, Fleetwide};
use super::intent::{Effect, Intent};
use super::model::{RecordError, WriteFailed};
use super::place::Place;
use super::shared::{Guarded, Shared};
use super::state::State;
use crate::readiness::Readiness;
use crate::{clock, random};

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
    /// Into a database that other replicas share.
    Fleet(Box<Fleet>),
}

/// What is to be written, or has been.
#[must_use]
pub(super) struct Acknowledged(Written);

enum Written {
    /// It is true already.
    Now(Result<Effect, RecordError>),
    /// It is being written.
    Later(oneshot::Receiver<Result<Effect, RecordError>>),
    /// It is being written where that may take long; this is how long it is waited for.
    Within {
        done: oneshot::Receiver<Result<Effect, RecordError>>,
        patience: Duration,
        intent: Arc<Intent>,
        shared: Arc<Shared>,
    },
}

impl Log {
    /// Opens what is in this place, and puts it into the state. `readiness` has a check of this room's, which fails while
    /// nothing can be written.
    ///
    /// # Errors
    /// If a file cannot be used. It is left as it is.
    pub(super) fn open(
        config: &Config,
        fleetwide: Fleetwide,
        mut state: State,
        readiness: &Readiness,
    ) -> Result<Self, CannotOpen> {
        drop(readiness.latch("store"));
        Ok(match &config.url {
            Place::Memory => {
                let run = random::token(8);
                Self {
                    shared: Arc::new(Shared::new(state, Vec::new(), run)),
                    keeper: Keeper::Memory,
                }
            }
            Place::Directory(directory) => {
                let (opened, run, removals) = file::open(directory, &mut state)?;
                let shared = Arc::new(Shared::new(state, removals, run));
                let keeper = Keeper::File(opened.serve(shared.clone(), readiness.clone())?);
                Self { shared, keeper }
            }
            Place::Fleet(url) => {
                let (limits, compose) = (*state.limits(), state.compose);
                let shared = Arc::new(Shared::new(state, Vec::new(), random::token(8)));
                let fleet = Fleet::open(
                    url,
                    config,
                    fleetwide,
                    shared.clone(),
                    (limits, compose),
                    readiness,
                );
                let keeper = Keeper::Fleet(Box::new(fleet));
                Self { shared, keeper }
            }
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
                Decision::Refused(why) => Err(why),
            }),
            Keeper::File(file) => Written::Later(file.append(intent)),
            Keeper::Fleet(fleet) => {
                let mut intent = intent;
                fleet.set_clock(&mut intent);
                let intent = Arc::new(intent);
                let (done, patience) = fleet.append(&intent);
                Written::Within {
                    done,
                    patience,
                    intent,
                    shared: self.shared.clone(),
                }
            }
        })
    }

    /// Deletes these rows with the next write.
    pub(super) fn remove(&self, guarded: &mut Guarded, rows: Vec<Removal>) {
        match &self.keeper {
            Keeper::Memory => {}
            Keeper::File(_) | Keeper::Fleet(_) => guarded.remove(rows),
        }
    }

    /// Returns whether the last try to write went well.
    pub(super) fn has_room(&self) -> bool {
        match &self.keeper {
            Keeper::Memory => true,
            Keeper::File(file) => file.has_room(),
            Keeper::Fleet(fleet) => fleet.is_up(),
        }
    }

    /// Says that a start is under way, for as long as the result is held: those that end together are written together.
    pub(super) fn starting(&self) -> Option<Starting> {
        match &self.keeper {
            Keeper::Memory | Keeper::Fleet(_) => None,
            Keeper::File(file) => Some(file.starting()),
        }
    }

    /// The store that replicas share, if this is one.
    pub(super) fn fleet(&self) -> Option<&Fleet> {
        match &self.keeper {
            Keeper::Memory | Keeper::File(_) => None,
            Keeper::Fleet(fleet) => Some(fleet),
        }
    }

    /// The name of the journal: positions mean nothing in another.
    pub(super) fn run(&self) -> Arc<String> {
        self.shared.run()
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
            Keeper::Fleet(fleet) => fleet.broken().await,
        }
    }

    /// Writes what is still to be written, and closes the file.
    pub(super) async fn close(&self) {
        match &self.keeper {
            Keeper::Memory => {}
            Keeper::File(file) => file.close().await,
            Keeper::Fleet(fleet) => fleet.close().await,
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
            Written::Within {
                done,
                patience,
                intent,
                shared,
            } => {
                let done = clock::timeout(patience, done).await;
                let done = done.ok().and_then(Result::ok);
                done.unwrap_or_else(|| {
                    // What is true without is known from here on, and written later.
                    shared.lock().unwritten(&intent);
                    Err(WriteFailed.into())
                })
            }
        }
    }
}

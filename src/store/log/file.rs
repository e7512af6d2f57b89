//! The store's file: one writer, which writes all that has come in meanwhile at once.

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::mem;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use redb::Database;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::backend::Backend;
use super::batch::{Batch, Message, Noted, Reply, Starting, Starts};
use super::lived::Lived;
use super::tables::{self, Gone, Loaded};
use crate::clock::Reading;
use crate::readiness::{Latch, Readiness};
use crate::store::event::{Event, Removal};
use crate::store::model::{RecordError, WriteFailed};
use crate::store::shared::Shared;
use crate::store::state::State;

/// Pages in memory. All reading is done elsewhere.
const CACHE: usize = 1 << 20;
/// How often a file that could not be written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Why a store cannot be used; says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotOpen {
    /// Another process has it.
    #[error("store.url: another tillgate uses {0}: each needs a directory of its own")]
    Taken(PathBuf),
    /// The system refuses.
    #[error("store.url: {0} cannot be used: {1}")]
    System(PathBuf, io::Error),
    /// It is not what was written.
    #[error(
        "store.url: {0} is damaged, or not a store of this version ({1}). It is left as it is. Restore it from a backup; \
         or move it away to begin with an empty store: then open payments are no longer followed, keys are forgotten, \
         and what the app was not told yet it has to ask for (GET /watch for each open order)"
    )]
    Damaged(PathBuf, String),
}

/// The way to the writer.
pub(super) struct File {
    writer: Sender<Message>,
    has_room: Arc<AtomicBool>,
    broken: CancellationToken,
    starts: Starts,
}

/// A file that is open, and read.
pub(super) struct Opened {
    path: PathBuf,
    /// `None` while there is no room.
    database: Option<Database>,
    /// Held for as long as the process uses the directory. After the database, and so dropped after it: closing that
    /// still writes to its file.
    _claim: fs::File,
    lived: Lived,
    broken: CancellationToken,
}

/// Opens the store in this directory, a new one if there is none, and puts what it holds into the state. Also returns the
/// name of its journal, and the rows that have to be deleted.
pub(super) fn open(
    directory: &Path,
    state: &mut State,
) -> Result<(Opened, String, Vec<Removal>), CannotOpen> {
    let system = |error| CannotOpen::System(directory.to_owned(), error);
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => sync_parent(directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(system(error)),
    }
    let claim = private()
        .create(true)
        .truncate(false)
        .open(directory.join("lock"))
        .map_err(system)?;
    match claim.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(CannotOpen::Taken(directory.to_owned())),
        Err(TryLockError::Error(error)) => return Err(system(error)),
    }
    let path = directory.join("store.redb");
    if !path.try_exists().map_err(system)? {
        create(directory, &path)?;
    }
    let damaged = |why: &dyn std::fmt::Display| CannotOpen::Damaged(path.clone(), why.to_string());
    // redb would take an empty file for a new one.
    if fs::metadata(&path).map_err(system)?.len() == 0 {
        return Err(damaged(&"it is empty"));
    }
    let broken = CancellationToken::new();
    let read = || {
        let database = database(&path, &broken).map_err(|error| match error {
            redb::Error::Io(error) if !is_damage(&error) => CannotOpen::System(path.clone(), error),
            error => damaged(&error),
        })?;
        let loaded = tables::load(&database, state).map_err(|error| damaged(&error))?;
        Ok((database, loaded))
    };
    // redb panics at some kinds of damage.
    let read = catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged(&"its pages make no sense")));
    let (database, loaded) = read?;
    let Loaded {
        run,
        lived,
        removals,
    } = loaded;
    let opened = Opened {
        path,
        database: Some(database),
        _claim: claim,
        lived,
        broken,
    };
    Ok((opened, run, removals))
}

/// redb reports a file that is not its own, or that was cut short, as an error of the system.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// For nobody else's eyes: whoever has a code can look at its payment.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Makes the name of a new directory durable, which is in the one above it; if we may look into that one.
fn sync_parent(directory: &Path) {
    let parent = directory
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let _ = fs::File::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.sync_all());
}

/// Makes an empty store. It gets its name when it is whole, so that no crash leaves half of one.
fn create(directory: &Path, path: &Path) -> Result<(), CannotOpen> {
    let system = |error| CannotOpen::System(directory.to_owned(), error);
    let unfinished = directory.join("store.redb.new");
    private()
        .create(true)
        .truncate(true)
        .open(&unfinished)
        .map_err(system)?;
    let made = database(&unfinished, &CancellationToken::new())
        .and_then(|database| tables::create(&database));
    made.map_err(|error| system(io::Error::other(error)))?;
    fs::rename(&unfinished, path)
        .and_then(|()| fs::File::open(directory)?.sync_all())
        .map_err(system)
}

fn database(path: &Path, broken: &CancellationToken) -> Result<Database, redb::Error> {
    let backend = Backend {
        file: private().open(path)?,
        broken: broken.clone(),
    };
    Ok(Database::builder()
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)?)
}

impl File {
    /// Whether the last try to write went well.
    pub(super) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    /// To be held until what was started is kept, or nothing was.
    pub(super) fn starting(&self) -> Starting {
        self.starts.one_more()
    }

    /// Writes an event after all before it.
    pub(super) fn append(&self, event: Event) -> oneshot::Receiver<Result<(), RecordError>> {
        let (done, kept) = oneshot::channel();
        // Without a writer the answer is dropped, which says so.
        let _ = self.writer.send(Message::Keep(
            Noted {
                event,
                reading: Reading::take(),
            },
            done,
        ));
        kept
    }

    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.writer.send(Message::Close(done)).is_ok() {
            let _ = closed.await;
        }
    }
}

impl Opened {
    /// Starts the writer: a thread of its own, because writing blocks. Not ready while it cannot write.
    pub(super) fn serve(self, shared: Arc<Shared>, readiness: Readiness) -> File {
        let (writer, messages) = mpsc::channel();
        let (has_room, broken) = (Arc::new(AtomicBool::new(true)), self.broken.clone());
        let starts = Starts::default();
        let mut running = Writer {
            file: self,
            shared,
            readiness,
            has_room: has_room.clone(),
            unwritable: None,
            deferred: Vec::new(),
        };
        let under_way = starts.clone();
        std::thread::spawn(move || {
            // A crash in here is an end too: nobody would write any more, and nobody would know.
            let end = running.file.broken.clone();
            if catch_unwind(AssertUnwindSafe(move || running.run(&messages, &under_way))).is_err() {
                end.cancel();
            }
        });
        File {
            writer,
            has_room,
            broken,
            starts,
        }
    }

    /// All or nothing.
    fn write<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Noted>,
        gone: &Gone,
    ) -> Result<(), redb::Error> {
        let is_open = self.database.is_some();
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert(database(&self.path, &self.broken)?),
        };
        let transaction = database.begin_write()?;
        if !is_open {
            // There is room only if this finds some: a start must not be sent to find that out.
            tables::take_room(&transaction)?;
        }
        tables::write(&transaction, events, gone, self.lived)?;
        Ok(transaction.commit()?)
    }
}

/// The one that writes.
struct Writer {
    file: Opened,
    shared: Arc<Shared>,
    readiness: Readiness,
    has_room: Arc<AtomicBool>,
    /// Held while the file cannot be written.
    unwritable: Option<Latch>,
    /// True, and not written yet.
    deferred: Vec<Noted>,
}

/// Whether there is more to write.
enum Next {
    Go,
    End,
}

impl Writer {
    fn run(&mut self, messages: &Receiver<Message>, under_way: &Starts) {
        loop {
            let is_settled = self.deferred.is_empty() && self.file.database.is_some();
            let wait = if is_settled { Duration::MAX } else { TRY_AGAIN };
            let Some(batch) = Batch::next(messages, wait, under_way) else {
                return;
            };
            if let Next::End = self.write(batch.events) {
                return;
            }
            if let Some(done) = batch.closing {
                drop(self.file.database.take());
                let _ = done.send(());
                return;
            }
        }
    }

    fn write(&mut self, events: Vec<(Noted, Reply)>) -> Next {
        let (gone, events) = {
            let mut guarded = self.shared.lock();
            let gone = Gone {
                rows: guarded.take_removals(),
                complete_since: guarded.state.payments.complete_since(),
            };
            (gone, judged(&guarded.state, events))
        };
        let new = events.iter().map(|(noted, _)| noted);
        match self.file.write(self.deferred.iter().chain(new), &gone) {
            Ok(()) => self.written(events),
            Err(error) if self.file.broken.is_cancelled() => {
                tracing::error!(%error, "the store could not be made durable (fsync): what it holds is not known any more");
                // Closing it would write again.
                mem::forget(self.file.database.take());
                return Next::End;
            }
            Err(error) => self.failed(&error, events, gone.rows),
        }
        Next::Go
    }

    /// All of it is durable.
    fn written(&mut self, events: Vec<(Noted, Reply)>) {
        if self.unwritable.take().is_some() {
            self.has_room.store(true, Ordering::Relaxed);
            tracing::info!("the store can be written again");
        }
        let mut guarded = self.shared.lock();
        for Noted { event, .. } in self.deferred.drain(..) {
            guarded.wrote(&event);
            let removals = guarded.state.apply_deferred(&event);
            guarded.remove(removals);
            self.shared.wake(&event);
        }
        for (Noted { event, .. }, reply) in events {
            guarded.wrote(&event);
            let removals = guarded.state.apply(&event);
            guarded.remove(removals);
            self.shared.wake(&event);
            // Nobody may be waiting any more.
            let _ = reply.send(Ok(()));
        }
    }

    /// None of it is. What may be true without stays true, and is written later.
    fn failed(&mut self, error: &redb::Error, events: Vec<(Noted, Reply)>, removals: Vec<Removal>) {
        if self.unwritable.is_none() {
            self.has_room.store(false, Ordering::Relaxed);
            tracing::error!(%error, "the store cannot be written: starts are refused until it can");
            self.unwritable = Some(self.readiness.latch("store"));
        }
        self.file.database = None;
        let mut guarded = self.shared.lock();
        guarded.remove(removals);
        for (noted, reply) in events {
            let kept = if noted.event.is_refusable() {
                Err(WriteFailed.into())
            } else {
                let removals = guarded.state.apply_unwritten(&noted.event);
                guarded.remove(removals);
                self.shared.wake(&noted.event);
                self.deferred.push(noted);
                Ok(())
            };
            let _ = reply.send(kept);
        }
    }
}

/// Returns the events that may be written, and answers the others.
fn judged(state: &State, events: Vec<(Noted, Reply)>) -> Vec<(Noted, Reply)> {
    let mut judge = state.judge();
    let mut all = Vec::with_capacity(events.len());
    for (mut noted, reply) in events {
        match judge.judge(&mut noted.event) {
            Ok(()) => all.push((noted, reply)),
            Err(reused) => drop(reply.send(Err(RecordError::CodeReused(reused)))),
        }
    }
    all
}

//! The store's file: how it is opened, and written as a whole.

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::Database;
use tokio_util::sync::CancellationToken;

use super::backend::Backend;
use super::tables::{self, Gone, Loaded, Noted};
use crate::store::event::Removal;
use crate::store::rows::Lived;
use crate::store::state::State;

/// The file that is locked by who uses the directory.
pub(super) const LOCK: &str = "lock";
/// The store itself.
pub(super) const STORE: &str = "store.redb";
/// Pages in memory. All reading is done elsewhere.
const CACHE: usize = 1 << 20;

/// Why a store cannot be used; says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotOpen {
    /// Another process has it.
    #[error("store.url: another tillgate uses {0}: each needs a directory of its own")]
    Taken(PathBuf),
    /// The system refuses.
    #[error("store.url: {0} cannot be used: {1}")]
    System(PathBuf, io::Error),
    /// The system gives no thread to write it.
    #[error(
        "store.url: the system gives no thread to write the store ({0}): raise its limit of processes (ulimit -u, or that of the container)"
    )]
    NoThread(io::Error),
    /// It is not what was written.
    #[error(
        "store.url: {0} is damaged, or not a store of this version ({1}). It is left as it is. Restore it from a backup; \
         or move it away to begin with an empty store: then open payments are no longer followed, keys are forgotten, \
         and what the app was not told yet it has to ask for (GET /watch for each open order)"
    )]
    Damaged(PathBuf, String),
}

/// A file that is open, and read.
pub(in crate::store) struct Opened {
    path: PathBuf,
    /// `None` while there is no room.
    pub(super) database: Option<Database>,
    /// Held for as long as the process uses the directory. After the database, and so dropped after it: closing that
    /// still writes to its file.
    _claim: fs::File,
    lived: Lived,
    /// An fsync has failed.
    pub(super) broken: CancellationToken,
}

/// Opens the store in this directory, a new one if there is none, and puts what it holds into the state. Also returns the
/// name of its journal, and the rows that have to be deleted.
pub(in crate::store) fn open(
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
        .open(directory.join(LOCK))
        .map_err(system)?;
    match claim.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(CannotOpen::Taken(directory.to_owned())),
        Err(TryLockError::Error(error)) => return Err(system(error)),
    }
    let path = directory.join(STORE);
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

impl Opened {
    /// All or nothing.
    pub(super) fn write<'a>(
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

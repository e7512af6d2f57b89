//! Files whose content matters while we run: secrets, tokens, roots.
//!
//! They are polled, not watched: Kubernetes swaps a `..data` symlink that a watch on the file goes blind after, some
//! mounts notify nobody at all, and reading a small file every second costs nothing.

use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::clock;

/// How long a content that is wanted at once must stay the same: overwriting a file takes less.
const SETTLES: Duration = Duration::from_millis(10);
/// So often it is looked at again for that: who writes without end is not waited for.
const MAX_READS: usize = 5;
/// No file that we read is larger than this; one that is was named by mistake.
const MAX_BYTES: usize = 1 << 20;

/// Turns the content of a file into what it is for. The error says what is wrong without quoting the content.
type Parse<T> = Box<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

/// A file, and the last good thing that was read from it.
pub(crate) struct ReloadableFile<T> {
    path: PathBuf,
    parse: Parse<T>,
    good: ArcSwapOption<T>,
    /// Keyed, so that what is kept of a content tells nothing of it; and not a digest like SHA-256, which works on a block
    /// that it leaves behind on the stack.
    hash: RandomState,
    /// Held for a whole look, reading included.
    last_read: Mutex<LastRead>,
    /// Seconds since the epoch of the last good read.
    pub(crate) loaded_at: Gauge,
    /// Reads that found something bad.
    pub(crate) failures: Counter,
}

/// What was seen of a file, by its hash or why it could not be read.
type Sight = Result<u64, io::ErrorKind>;

#[derive(Default)]
struct LastRead {
    /// What was decided about, good or bad: a bad one is logged once, not every second.
    decided: Option<Sight>,
    /// What was seen last.
    last: Option<Sight>,
    /// The hash of what is in use.
    good: Option<u64>,
}

/// Whether to wait for a content to stay as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// Somebody said that it is there, or needs it now: take it unless it changes under our eyes. Blocks for some
    /// ten milliseconds.
    Briefly,
    /// Take it as it is.
    None,
    /// Only what is the same in two looks: a file that is being written is not taken half-written.
    TwoReads,
}

/// Why there is nothing good to begin with.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// No such file: mounts can come late.
    Missing,
    /// Anything else; says what.
    Bad(String),
}

impl<T> ReloadableFile<T> {
    /// Names the file and looks at it once.
    ///
    /// # Errors
    /// `Bad` content is an error from the start. A missing file is none: [`ReloadableFile::get`] is `None` until it comes.
    pub(crate) fn open(
        path: impl Into<PathBuf>,
        parse: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let file = Self {
            path: path.into(),
            parse: Box::new(parse),
            good: ArcSwapOption::empty(),
            hash: RandomState::new(),
            last_read: Mutex::default(),
            loaded_at: Gauge::default(),
            failures: Counter::default(),
        };
        match file.try_reload(Settle::None) {
            Err(Unusable::Bad(why)) => Err(why),
            Ok(_) | Err(Unusable::Missing) => Ok(file),
        }
    }

    /// The last good content; `None` before there was any.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        self.good.load_full()
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again. New good content takes the old one's place; bad content is logged and counted, and the
    /// last good stays. True when something new was taken.
    pub(crate) fn reload(&self, settle: Settle) -> bool {
        match self.try_reload(settle) {
            Ok(false) => false,
            Ok(true) => {
                tracing::info!(file = %self.path.display(), "file loaded");
                true
            }
            Err(unusable) => {
                self.failures.inc();
                let why = match unusable {
                    Unusable::Missing => "it is missing".to_owned(),
                    Unusable::Bad(why) => why,
                };
                let file = self.path.display();
                if self.good.load().is_some() {
                    tracing::warn!(%file, why, "file not reloaded: the last good content stays in use");
                } else {
                    tracing::warn!(%file, why, "file not loaded");
                }
                false
            }
        }
    }

    fn see(&self) -> (io::Result<Zeroizing<Vec<u8>>>, Sight) {
        let content = read(&self.path);
        let seen = match &content {
            Ok(bytes) => Ok(self.hash.hash_one(&**bytes)),
            Err(error) => Err(error.kind()),
        };
        (content, seen)
    }

    /// `Ok(true)` when new content was taken, `Ok(false)` when nothing changed since the last look.
    fn try_reload(&self, settle: Settle) -> Result<bool, Unusable> {
        // One look at a time, so that an older content never takes the place of a newer one.
        let mut last_read = self
            .last_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut content, mut seen) = self.see();
        if settle == Settle::Briefly && last_read.decided != Some(seen) {
            for _ in 1..MAX_READS {
                std::thread::sleep(SETTLES);
                let before = seen;
                (content, seen) = self.see();
                if seen == before {
                    break;
                }
            }
        }
        let is_still = last_read.last.replace(seen) == Some(seen);
        if last_read.decided == Some(seen) || (settle == Settle::TwoReads && !is_still) {
            return Ok(false);
        }
        last_read.decided = Some(seen);
        if last_read.good.map(Ok) == Some(seen) {
            // Gone or bad for a while, and the same again: nothing new.
            tracing::info!(file = %self.path.display(), "file good again, with the content in use");
            return Ok(false);
        }
        let bytes = content.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unusable::Missing,
            _ => Unusable::Bad(format!("it cannot be read: {error}")),
        })?;
        self.good
            .store(Some(Arc::new((self.parse)(&bytes).map_err(Unusable::Bad)?)));
        last_read.good = seen.ok();
        self.loaded_at.set(clock::unix_seconds());
        Ok(true)
    }
}

/// Something that is looked at every second.
pub(crate) trait Reload: Send + Sync {
    /// Whether there is something good to use.
    fn is_loaded(&self) -> bool;
    /// See [`ReloadableFile::reload`].
    fn reload(&self, settle: Settle) -> bool;
}

impl<T: Send + Sync> Reload for ReloadableFile<T> {
    fn is_loaded(&self) -> bool {
        self.good.load().is_some()
    }

    fn reload(&self, settle: Settle) -> bool {
        ReloadableFile::reload(self, settle)
    }
}

/// Reads a whole file through one descriptor, so that it is never half of one file and half of another, into a
/// buffer that is wiped. One line end at the end (LF or CRLF) is dropped.
///
/// # Errors
/// Those of the system; also when it is not a file, or is too large.
pub(crate) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // Or a named pipe would be waited for until somebody writes into it.
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(at_once)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let size = usize::try_from(meta.len()).unwrap_or(usize::MAX);
    if size > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 1 MiB",
        ));
    }
    // Exactly sized from the start and never grown: a buffer that moves leaves a copy behind.
    let mut bytes = Zeroizing::new(vec![0; size + 1]);
    let mut length = 0;
    // Not `read_to_end`, which looks for the end with a buffer of its own.
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if length > size {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it grew while it was read",
        ));
    }
    bytes.truncate(length);
    for end in *b"\n\r" {
        if bytes.last() == Some(&end) {
            bytes.pop();
        } else {
            break;
        }
    }
    Ok(bytes)
}

/// What the mode of the file lets others do, if that is more than a secret should: for a warning.
pub(crate) fn too_open(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o007 != 0).then(|| {
        format!(
            "{} has mode {mode:04o}: every user of this machine can open it; chmod 0640 or less",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_content_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let parse = |bytes: &[u8]| {
            if bytes.is_empty() {
                Err("it is empty".to_owned())
            } else {
                Ok(bytes.to_vec())
            }
        };
        let file = ReloadableFile::open(&path, parse).unwrap();
        assert!(file.get().is_none());
        for (content, good, failures) in [
            ("one\r\n", "one", 0),
            ("", "one", 1),
            ("two\n\n", "two\n", 1),
            ("three", "three", 1),
        ] {
            std::fs::write(&path, content).unwrap();
            assert!(!file.reload(Settle::TwoReads), "it may still be written");
            file.reload(Settle::TwoReads);
            assert!(!file.reload(Settle::None), "the same content is not new");
            assert_eq!(file.get().unwrap().as_slice(), good.as_bytes());
            assert_eq!(file.failures.get(), failures);
        }
        std::fs::remove_file(&path).unwrap();
        file.reload(Settle::None);
        assert_eq!(file.get().unwrap().as_slice(), b"three");
        assert!(
            ReloadableFile::open(dir.path(), parse).is_err(),
            "a directory"
        );
    }
}

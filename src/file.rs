//! Files whose content may change at run time: secrets, tokens, roots.
//!
//! They are polled rather than watched: Kubernetes swaps a `..data` symlink, after which a watch on the file sees nothing,
//! some mounts send no notifications at all, and reading a small file every second costs nothing.

mod access;

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

pub(crate) use self::access::{Denied, may_change, may_fill, unseen};
use crate::clock;

/// How long content must stay the same for [`Settle::Briefly`]. Overwriting a file takes less.
const SETTLES: Duration = Duration::from_millis(10);
/// The most reads for [`Settle::Briefly`], so that a file that changes all the time delays nothing.
const MAX_READS: usize = 5;
/// The largest file that is read. A larger one was named by mistake.
const MAX_BYTES: usize = 1 << 20;

/// Parses the content of a file. The error says what is wrong without quoting the content.
type Parse<T> = Box<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

/// A file, and its last good content.
pub(crate) struct ReloadableFile<T> {
    file: Observed,
    parse: Parse<T>,
    good: ArcSwapOption<T>,
    /// The time of the last good read, in seconds since the epoch.
    pub(crate) loaded_at: Gauge,
    /// The number of reads that found nothing usable.
    pub(crate) failures: Counter,
}

/// A file, and what was seen of it: all that does not depend on what its content means.
struct Observed {
    path: PathBuf,
    /// Keyed, so that a stored hash reveals nothing of the content. A digest such as SHA-256 would leave a copy of the
    /// content on the stack.
    hash: RandomState,
    /// Locked during a whole reload, reading included.
    last_read: Mutex<LastRead>,
}

/// The hash of the content that was read, or the reason why it could not be read.
type Sight = Result<u64, io::ErrorKind>;

#[derive(Default)]
struct LastRead {
    /// The content that was taken or rejected last, so that bad content is logged once rather than every second.
    decided: Option<Sight>,
    /// The content of the last read.
    last: Option<Sight>,
    /// The hash of the content in use.
    good: Option<u64>,
}

/// Whether to wait until content no longer changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// Take it once two reads ten milliseconds apart are equal: for content that was announced, or is needed now. Blocks
    /// for up to 40 ms.
    Briefly,
    /// Take it at once.
    None,
    /// Take it if it is the same as in the reload before, so that a half-written file is not taken.
    TwoReads,
}

/// Why the content of a file cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// There is no such file. It may be mounted later.
    Missing,
    /// Any other reason. Says which.
    Bad(String),
}

impl<T> ReloadableFile<T> {
    /// Opens the file at this path and reads it once.
    ///
    /// # Errors
    /// Fails if the content is bad. A missing file is not an error: [`ReloadableFile::get`] returns `None` until it exists.
    pub(crate) fn open(
        path: impl Into<PathBuf>,
        parse: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let file = Self::unread(path, parse);
        match file.try_reload(Settle::None) {
            Err(Unusable::Bad(why)) => Err(why),
            Ok(_) | Err(Unusable::Missing) => Ok(file),
        }
    }

    /// The file at this path, which is not read before it is reloaded.
    pub(crate) fn unread(
        path: impl Into<PathBuf>,
        parse: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            file: Observed {
                path: path.into(),
                hash: RandomState::new(),
                last_read: Mutex::default(),
            },
            parse: Box::new(parse),
            good: ArcSwapOption::empty(),
            loaded_at: Gauge::default(),
            failures: Counter::default(),
        }
    }

    /// Returns the last good content; `None` before there was any.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        self.good.load_full()
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Reads the file again. Returns true if it has new good content, which replaces the old one. Bad content is logged and
    /// counted, and the last good content stays in use.
    pub(crate) fn reload(&self, settle: Settle) -> bool {
        match self.try_reload(settle) {
            Ok(false) => false,
            Ok(true) => {
                tracing::info!(file = %self.path().display(), "file loaded");
                true
            }
            Err(unusable) => {
                self.failures.inc();
                unusable.log(self.path(), self.good.load().is_some());
                false
            }
        }
    }

    /// Returns true if new content was taken, and false if nothing has changed since the last reload.
    fn try_reload(&self, settle: Settle) -> Result<bool, Unusable> {
        let is_new = self.file.reload(settle, &mut |bytes| {
            self.good.store(Some(Arc::new((self.parse)(bytes)?)));
            Ok(())
        })?;
        if is_new {
            self.loaded_at.set(clock::unix_seconds());
        }
        Ok(is_new)
    }
}

impl Unusable {
    fn log(self, path: &Path, has_good: bool) {
        let why = match self {
            Self::Missing => "it is missing".to_owned(),
            Self::Bad(why) => why,
        };
        let file = path.display();
        if has_good {
            tracing::warn!(%file, why, "file not reloaded: the last good content stays in use");
        } else {
            tracing::warn!(%file, why, "file not loaded");
        }
    }
}

impl Observed {
    fn see(&self) -> (io::Result<Zeroizing<Vec<u8>>>, Sight) {
        let content = read(&self.path);
        let seen = match &content {
            Ok(bytes) => Ok(self.hash.hash_one(&**bytes)),
            Err(error) => Err(error.kind()),
        };
        (content, seen)
    }

    /// Gives new content to `take`. Returns false if nothing has changed since the last reload.
    fn reload(
        &self,
        settle: Settle,
        take: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<bool, Unusable> {
        // One reload at a time, so that older content never replaces newer content.
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
            // The file was missing or bad in between.
            tracing::info!(file = %self.path.display(), "file good again, with the content in use");
            return Ok(false);
        }
        let bytes = content.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unusable::Missing,
            _ => Unusable::Bad(format!("it cannot be read: {error}")),
        })?;
        take(&bytes).map_err(Unusable::Bad)?;
        last_read.good = seen.ok();
        Ok(true)
    }
}

/// Something that is reloaded every second.
pub(crate) trait Reload: Send + Sync {
    /// Returns whether there is good content.
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

/// Reads a whole file into a buffer that is wiped on drop. It uses one descriptor, so that it never gets parts of two files.
/// Drops one line end (LF or CRLF) at the end.
///
/// # Errors
/// Returns the error of the system. Also fails if it is not a regular file, is over 1 MiB, or grows meanwhile.
pub(crate) fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // Otherwise opening a named pipe would block until another process opens it for writing.
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
    // Sized exactly and never grown: a buffer that moves leaves a copy of its content behind.
    let mut bytes = Zeroizing::new(vec![0; size + 1]);
    let mut length = 0;
    // `read_to_end` would read into a buffer of its own to find the end.
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

/// Returns a warning if every user of the machine can open the file.
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

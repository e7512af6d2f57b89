//! A socket in the file system.
//!
//! It is made under a name that nobody knows, gets its group and mode, listens, and only then its own name: whoever
//! sees that name sees it ready. A link takes the name, because a link never takes the place of what is there.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::file::{Denied, may_fill};
use crate::random;

/// For its owner and its group.
const MODE: u32 = 0o660;
/// Longest path that the system has room for, beside the zero at its end.
const MAX_PATH: usize = 107;
/// Length of the names that nobody knows, with their dot.
const HIDDEN: usize = 10;

/// The file of a socket that this process listens on. Dropping it removes the file, if it still is that one.
pub(crate) struct SocketFile {
    path: PathBuf,
    id: Id,
}

/// What a file is by, whatever its name.
type Id = (u64, u64);

fn id(of: &Metadata) -> Id {
    (of.dev(), of.ino())
}

impl SocketFile {
    /// Makes the file, in the place of one at which nobody listens any more, and listens.
    ///
    /// # Errors
    /// A sentence that says what to do.
    pub(crate) fn open(path: &Path) -> Result<(Self, UnixListener), String> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let group = match fs::metadata(directory) {
            Ok(directory) if directory.is_dir() => directory.gid(),
            Ok(_) => return Err(format!("{} is no directory", directory.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let help =
                    "make it, with the group that may come in (in systemd: RuntimeDirectory=)";
                return Err(format!(
                    "there is no directory {}: {help}",
                    directory.display()
                ));
            }
            Err(error) => return Err(format!("{} cannot be used: {error}", directory.display())),
        };
        let hidden = Hidden::beside(path);
        let cannot = |what: &str, error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                format!(
                    "this user may not {what} in {}: give it the directory, and its group",
                    directory.display()
                )
            }
            _ => format!("cannot {what} in {}: {error}", directory.display()),
        };
        let made = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
            .and_then(|socket| socket.bind(&SockAddr::unix(&hidden.0)?).map(|()| socket));
        let socket = made.map_err(|error| cannot("make a socket", error))?;
        let id = furnish(&hidden.0, group).map_err(|error| {
            cannot(
                &format!("give a socket mode 0660 and the group of its directory ({group})"),
                error,
            )
        })?;
        socket
            .listen(1024)
            .map_err(|error| cannot("listen", error))?;
        let listener = UnixListener::from_std(OwnedFd::from(socket).into())
            .map_err(|error| cannot("listen", error))?;
        // What is in the way may be gone, or another one, when it is looked at.
        for _ in 0..5 {
            match fs::hard_link(&hidden.0, path) {
                Ok(()) => {
                    return Ok((
                        Self {
                            path: path.to_owned(),
                            id,
                        },
                        listener,
                    ));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => clear_away(path)?,
                Err(error) => return Err(cannot("name a socket", error)),
            }
        }
        Err(taken(path))
    }

    /// Why no socket can be made there, whoever else runs: something that is no socket has the name.
    pub(crate) fn in_the_way(path: &Path) -> Option<String> {
        let kind = fs::symlink_metadata(path).ok()?.file_type();
        let what = match kind {
            _ if kind.is_socket() => return None,
            _ if kind.is_symlink() => "a symlink",
            _ if kind.is_dir() => "a directory",
            _ if kind.is_file() => "a regular file",
            _ => "a pipe or a device",
        };
        Some(format!(
            "{} is {what} and no socket: it is left as it is",
            path.display()
        ))
    }

    /// Looks whether the file could be made, and makes nothing.
    ///
    /// # Errors
    /// Says why it could not.
    pub(crate) fn look(path: &Path) -> Result<(), Denied> {
        if let Some(why) = Self::in_the_way(path) {
            return Err(Denied::ToEverybody(why));
        }
        may_fill(path.parent().unwrap_or(Path::new("/")))
    }

    /// Who could put another socket in its place, if that is everybody: for a warning.
    pub(crate) fn too_open(path: &Path) -> Option<String> {
        let directory = path.parent()?;
        let now = fs::metadata(directory).ok()?;
        let mode = now.mode() & 0o777;
        // A volume of a container, which Kubernetes gives mode 0777, and which only that container has. What is for every
        // user of a machine, like /tmp, has the sticky bit.
        let is_volume =
            now.mode() & 0o1000 == 0 && fs::metadata(directory.join("..")).ok()?.dev() != now.dev();
        (mode & 0o002 != 0 && !is_volume).then(|| {
            format!(
                "{} has mode {mode:04o}: every user of this machine can put a socket there that the app takes for \
                 tillgate's; take a directory that only tillgate may write into",
                directory.display()
            )
        })
    }

    /// The group that may come in, as far as it is known before the file is there.
    pub(crate) fn who_may_come_in(path: &Path) -> String {
        let directory = path.parent().unwrap_or(path);
        let group = match fs::metadata(directory) {
            Ok(now) => format!("group {} (that of {})", now.gid(), directory.display()),
            Err(_) => format!(
                "the group of {}, which is not there yet",
                directory.display()
            ),
        };
        format!(
            "unix:{} is a Unix socket: {group} can start payments, and see every code",
            path.display()
        )
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| id(&now) == self.id) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A name that nobody knows; what has it loses it.
struct Hidden(PathBuf);

impl Hidden {
    fn beside(path: &Path) -> Self {
        Self(path.with_file_name(format!(".{}", random::token(HIDDEN - 1))))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Gives a fresh socket its group and mode.
fn furnish(path: &Path, group: u32) -> io::Result<Id> {
    // Held, not opened: who else may write into the directory could put another file in its place, and have us open
    // that one to the group.
    let held = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::PATH | OFlags::NOFOLLOW).bits().cast_signed())
        .open(path)?;
    let made = held.metadata()?;
    if !made.file_type().is_socket() || made.nlink() != 1 {
        return Err(io::Error::other("another program took its place"));
    }
    let by_number = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    if made.gid() != group {
        chown(&by_number, None, Some(group))?;
    }
    fs::set_permissions(&by_number, Permissions::from_mode(MODE))?;
    settled(&held, group)
}

/// Not every file system keeps the mode that is set.
fn settled(held: &File, group: u32) -> io::Result<Id> {
    let now = held.metadata()?;
    if now.gid() != group || now.mode() & 0o7777 != MODE {
        return Err(io::Error::other(
            "the file system keeps neither groups nor modes",
        ));
    }
    Ok(id(&now))
}

/// Removes a socket at which nobody listens any more. Whatever else is there stays as it is.
fn clear_away(path: &Path) -> Result<(), String> {
    let seen = match fs::symlink_metadata(path) {
        Ok(seen) => seen,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{} cannot be looked at: {error}", path.display())),
    };
    if let Some(why) = SocketFile::in_the_way(path) {
        return Err(why);
    }
    let asked = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
        .and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match asked.map_err(|error| error.kind()) {
        Err(io::ErrorKind::ConnectionRefused) => {}
        Err(io::ErrorKind::NotFound) => return Ok(()),
        Err(io::ErrorKind::PermissionDenied) => {
            return Err(format!(
                "this user may not ask whether anybody listens at {}: remove it if nobody does",
                path.display()
            ));
        }
        _ => return Err(taken(path)),
    }
    // Put aside first: another process that starts at the same moment may have put its own there meanwhile.
    let aside = Hidden::beside(path);
    match fs::rename(path, &aside.0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(format!(
                "the old socket {} cannot be removed: {error}",
                path.display()
            ));
        }
    }
    if fs::symlink_metadata(&aside.0).is_ok_and(|now| id(&now) == id(&seen)) {
        tracing::info!(socket = %path.display(), "replacing a socket that nobody listens at");
        return Ok(());
    }
    let _ = fs::hard_link(&aside.0, path);
    Err(taken(path))
}

fn taken(path: &Path) -> String {
    format!(
        "another program listens at {}: end it, or set another path",
        path.display()
    )
}

/// Whether both are the same file: a directory may have several names.
pub(super) fn is_same(this: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let directory = fs::canonicalize(path.parent()?).ok()?;
        Some(directory.join(path.file_name()?))
    };
    this == other || place(this).is_some_and(|this| place(other) == Some(this))
}

/// Why this is no path that a socket can have.
pub(super) fn unfit(path: &Path) -> Option<&'static str> {
    let bytes = path.as_os_str().as_bytes();
    let name = path.file_name().map_or(&b""[..], OsStrExt::as_bytes);
    if !path.is_absolute() || name.is_empty() || !bytes.ends_with(name) || bytes.contains(&0) {
        return Some("has no absolute path of a file");
    }
    // Under its hidden name it must have room too.
    let longest = bytes.len() - name.len() + name.len().max(HIDDEN);
    (longest > MAX_PATH).then_some("has too long a path for a socket: the system takes 107 bytes")
}

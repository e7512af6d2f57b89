//! Whether this process could write somewhere, asked without doing it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

/// Why something cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It belongs to another user, who may be the one that tillgate runs as.
    ToThisUser(String),
    /// It is not fit for anybody.
    ToEverybody(String),
}

/// Returns whether this process may make files in this directory.
///
/// # Errors
/// Says why it may not.
pub(crate) fn may_fill(directory: &Path) -> Result<(), Denied> {
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => ask(directory, Access::WRITE_OK | Access::EXEC_OK, "0700"),
        Ok(_) => Err(Denied::ToEverybody(format!("{shown} is no directory"))),
        Err(error) => Err(unseen(directory, &error)),
    }
}

/// Returns whether this process may read and write this file.
///
/// # Errors
/// Says why it may not.
pub(crate) fn may_change(file: &Path) -> Result<(), Denied> {
    ask(file, Access::READ_OK | Access::WRITE_OK, "0600")
}

fn ask(path: &Path, wish: Access, needed: &str) -> Result<(), Denied> {
    let shown = path.display();
    match access(path, wish).map_err(io::Error::from) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let Ok(found) = fs::metadata(path) else {
                return Err(unseen(path, &error));
            };
            let (owner, user) = (found.uid(), geteuid().as_raw());
            Err(if owner == user {
                let mode = found.mode() & 0o7777;
                Denied::ToEverybody(format!("{shown} has mode {mode:04o}, and needs {needed}"))
            } else {
                Denied::ToThisUser(format!(
                    "{shown} is for user {owner} to write, and this is user {user}: tillgate has to run as user {owner}"
                ))
            })
        }
        Err(error) => Err(Denied::ToEverybody(format!(
            "{shown} cannot be written: {error}"
        ))),
    }
}

/// The reason why something cannot be looked at.
pub(crate) fn unseen(path: &Path, error: &io::Error) -> Denied {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Denied::ToThisUser(format!(
            "this user may not look at {shown}: check as the user that tillgate runs as"
        )),
        io::ErrorKind::NotFound => Denied::ToEverybody(format!("there is no {shown}")),
        _ => Denied::ToEverybody(format!("{shown} cannot be looked at: {error}")),
    }
}

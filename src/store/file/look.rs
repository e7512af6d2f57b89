//! Looks whether a store could be opened in a directory, and opens nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::opened::{LOCK, STORE};
use crate::file::{Denied, may_change, may_fill, unseen};

/// What every file of redb begins with.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// Looks at the directory of a store: whether it is there, or could be made, and whether a store in it looks like one.
///
/// # Errors
/// Says why no store could be opened there.
pub(crate) fn look(directory: &Path) -> Result<(), Denied> {
    match fs::symlink_metadata(directory) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return look_above(directory),
        Err(error) => return Err(unseen(directory, &error)),
    }
    may_fill(directory)?;
    let there = |name: &str| {
        let path = directory.join(name);
        let found = path.try_exists().map_err(|error| unseen(&path, &error))?;
        Ok(found.then_some(path))
    };
    if let Some(lock) = there(LOCK)? {
        may_change(&lock)?;
    }
    let Some(store) = there(STORE)? else {
        return Ok(());
    };
    may_change(&store)?;
    let mut first = Vec::with_capacity(MAGIC.len());
    let read =
        File::open(&store).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut first));
    match read {
        Ok(_) if first == MAGIC => Ok(()),
        Ok(_) => Err(Denied::ToEverybody(format!(
            "{} is damaged, or not a store: its first bytes are none of a store's",
            store.display()
        ))),
        Err(error) => Err(unseen(&store, &error)),
    }
}

/// Looks whether the directory could be made: the one above it has to be there.
fn look_above(directory: &Path) -> Result<(), Denied> {
    let above = directory.parent().unwrap_or(directory);
    may_fill(above).map_err(|why| match why {
        Denied::ToEverybody(why) => Denied::ToEverybody(format!(
            "{} is not there and cannot be made: {why}",
            directory.display()
        )),
        other => other,
    })
}

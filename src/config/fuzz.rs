//! A configuration file, for the programs in `tests/fuzz`: not a part of tillgate.

use std::path::Path;

use super::environment::Environment;
use super::load::{Source, load};

/// Loads the file alone, without any variable.
///
/// # Errors
/// Its faults: key, place, what is wrong, and what to do.
pub fn file(path: &Path) -> Result<String, Vec<[String; 4]>> {
    match load(Source::File(Some(path)), &Environment::empty()) {
        Ok(loaded) => Ok(loaded.explained.to_string()),
        Err(faults) => Err(faults.into_iter().map(|fault| [fault.key, fault.place, fault.what, fault.mend]).collect()),
    }
}

//! Access to the loading of a configuration file, for the programs in `tests/fuzz`. Not part of tillgate.

use std::path::Path;

use super::environment::Environment;
use super::load::{Source, load};

/// Loads the file without any variable.
///
/// # Errors
/// Returns its diagnostics: the key, the place, what is wrong, and what to do.
pub fn file(path: &Path) -> Result<String, Vec<[String; 4]>> {
    match load(Source::File(Some(path)), &Environment::empty()) {
        Ok(loaded) => Ok(loaded.explained.to_string()),
        Err(diagnostics) => Err(diagnostics
            .into_iter()
            .map(|diagnostic| {
                [
                    diagnostic.key,
                    diagnostic.place,
                    diagnostic.what,
                    diagnostic.help,
                ]
            })
            .collect()),
    }
}

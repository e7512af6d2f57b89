//! Loads a configuration: defaults, then the file, then the environment.

use std::path::Path;

use secrecy::SecretString;

use super::check::Loaded;
use super::environment::Environment;
use super::explain::Origin;
use super::reading::{Diagnostic, Reading};

/// What there is beside defaults and environment.
pub(crate) enum Source<'a> {
    /// The file of `--config FILE`, or else the first of the usual ones that exists, if any does.
    File(Option<&'a Path>),
    /// No file. These values take the place of all others, and this secret that of any other: for `dev` and for tests.
    Given(&'a [(&'a str, &'a str)], SecretString),
}

/// Loads and checks everything.
///
/// # Errors
/// Returns all diagnostics at once.
pub(crate) fn load(
    source: Source<'_>,
    environment: &Environment,
) -> Result<Loaded, Vec<Diagnostic>> {
    read(source, environment).finish(environment, false)
}

/// The same for `check`, which also looks at what `run` would open.
///
/// # Errors
/// Returns all diagnostics at once.
pub(crate) fn look(
    path: Option<&Path>,
    environment: &Environment,
) -> Result<Loaded, Vec<Diagnostic>> {
    read(Source::File(path), environment).finish(environment, true)
}

fn read(source: Source<'_>, environment: &Environment) -> Reading {
    let mut reading = Reading::new();
    match source {
        Source::File(path) => {
            reading.file(path);
            reading.environment(environment);
        }
        Source::Given(values, secret) => {
            reading.environment(environment);
            reading.forget_secret();
            reading.take_secret(secret, Origin::Given);
            for (key, value) in values {
                reading.set(key, value, Origin::Given);
            }
        }
    }
    reading
}

#[cfg(test)]
mod tests {
    use super::super::reading::help_of;
    use super::super::sections::Config;
    use super::*;

    #[test]
    fn what_is_wrong_with_a_line_is_always_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[gateway]\n#r\0").unwrap();
        let mut reading = Reading::new();
        reading.file(Some(file.path()));
        assert_eq!(reading.diagnostics[0].what, "this is not TOML");
        assert!(
            reading.diagnostics[0].place.ends_with(":2"),
            "{:?}",
            reading.diagnostics
        );
    }

    #[test]
    fn the_annotated_example_has_every_key_with_its_default() {
        let mut reading = Reading::new();
        reading.file(Some(Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/config/tillgate.toml"
        ))));
        assert_eq!(reading.diagnostics, []);
        for key in reading.defaults.keys() {
            let (_, name) = key.split_once('.').unwrap();
            assert!(
                help_of(key).starts_with(&format!("write it like: {name} = ")),
                "{key} is not in config/tillgate.toml"
            );
        }
        let mut example = reading.extract();
        assert!(
            example.gateway.url.take().is_some(),
            "the one key without a default"
        );
        let (example, default) = (
            serde_json::to_value(example).unwrap(),
            serde_json::to_value(Config::default()).unwrap(),
        );
        assert_eq!(example, default);
    }
}

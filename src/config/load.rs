//! Defaults, then the file, then the environment.

mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::Provider;
use figment::providers::Serialized;
use figment::value::Value;
use secrecy::SecretString;
use toml_edit::ImDocument;

use self::values::{One, figment, toml_value, value_of, what_of};
use super::environment::{Environment, variable_of};
use super::explain::Origin;
use super::{Config, Diagnostic, Loaded};
use crate::file;

pub(super) const SECRET: &str = "merchant.secret";
const PLACES: [&str; 2] = ["tillgate.toml", "/etc/tillgate/tillgate.toml"];
/// The annotated example: where the help for a key takes its line from.
const EXAMPLE: &str = include_str!("../../config/tillgate.toml");

/// What else there is beside defaults and environment.
pub(crate) enum Source<'a> {
    /// `--config FILE`, or the first of the usual places that exists, or nothing.
    File(Option<&'a Path>),
    /// No file, but these values over everything, and this secret: for `dev` and for tests.
    Given(&'a [(&'a str, &'a str)], SecretString),
}

/// Loads and checks everything.
///
/// # Errors
/// All diagnostics at once.
pub(crate) fn load(
    source: Source<'_>,
    environment: &Environment,
) -> Result<Loaded, Vec<Diagnostic>> {
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
    reading.finish(environment)
}

/// Values by key as they are found, later ones over earlier ones.
pub(super) struct Reading {
    pub(super) defaults: BTreeMap<String, Value>,
    pub(super) found: BTreeMap<String, (Value, Origin)>,
    /// Never among the values: it passes through no parser that could quote it.
    pub(super) secret: Option<SecretString>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) file: Option<PathBuf>,
}

impl Reading {
    pub(super) fn new() -> Self {
        let mut defaults = BTreeMap::new();
        #[expect(
            clippy::expect_used,
            reason = "the defaults are constants of this program"
        )]
        let data = Serialized::defaults(Config::default())
            .data()
            .expect("the defaults can be written");
        for (section, value) in data.into_values().flatten() {
            for (key, value) in value.into_dict().into_iter().flatten() {
                defaults.insert(format!("{section}.{key}"), value);
            }
        }
        Self {
            defaults,
            found: BTreeMap::new(),
            secret: None,
            diagnostics: Vec::new(),
            file: None,
        }
    }

    pub(super) fn report(
        &mut self,
        key: &str,
        place: impl ToString,
        what: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic {
            key: key.to_owned(),
            place: place.to_string(),
            what: what.into(),
            help: help.into(),
        });
    }

    pub(super) fn file(&mut self, path: Option<&Path>) {
        let path = match path {
            Some(path) => path,
            None => match PLACES.iter().map(Path::new).find(|path| path.exists()) {
                Some(path) => path,
                None => return,
            },
        };
        self.file = Some(path.to_owned());
        let place = path.display().to_string();
        let bytes = match file::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let help =
                    "name the configuration with --config FILE, or leave it out and use variables";
                return self.report(
                    "--config",
                    place,
                    format!("the file cannot be read: {error}"),
                    help,
                );
            }
        };
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return self.report(
                "--config",
                place,
                "the file is not UTF-8",
                "save it as UTF-8",
            );
        };
        let document = match text.parse::<ImDocument<String>>() {
            Ok(document) => document,
            Err(error) => {
                // Its message alone: with its context it would quote the line, and that may be the secret's.
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                // Of some control characters it says nothing at all.
                let message = error
                    .message()
                    .lines()
                    .next()
                    .filter(|line| !line.trim().is_empty());
                let message = message.unwrap_or("this is not TOML").to_owned();
                let help =
                    "write it as TOML: [section] lines, and key = value lines with texts in quotes";
                return self.report("--config", format!("{place}:{line}"), message, help);
            }
        };
        for (section, item) in document.iter() {
            let known = self
                .defaults
                .keys()
                .any(|key| key.split('.').next() == Some(section));
            let Some(table) = item.as_table_like().filter(|_| known) else {
                let line = item.span().map_or(1, |span| line_of(text, span.start));
                let place = format!("{place}:{line}");
                match known {
                    true => self.report(
                        section,
                        place,
                        "it is a section",
                        format!("write [{section}] on a line of its own"),
                    ),
                    false => self.unknown(section, place, str::to_owned),
                }
                continue;
            };
            for (name, item) in table.iter() {
                let line = item.span().map_or(1, |span| line_of(text, span.start));
                let key = format!("{section}.{name}");
                let origin = Origin::File {
                    path: place.clone(),
                    line,
                };
                if key == SECRET {
                    match item.as_str() {
                        Some("") => {}
                        Some(secret) => {
                            self.take_secret(SecretString::from(Box::<str>::from(secret)), origin)
                        }
                        None => self.report(&key, origin, "it is not a text", help_of(SECRET)),
                    }
                } else if self.defaults.contains_key(&key) && item.as_str() == Some("") {
                    // Unset.
                } else if self.defaults.contains_key(&key) {
                    match value_of(item) {
                        Some(value) => drop(self.found.insert(key, (value, origin))),
                        None => self.report(
                            &key,
                            origin,
                            "a section where a value belongs",
                            help_of(&key),
                        ),
                    }
                } else {
                    self.unknown(&key, origin, str::to_owned);
                }
            }
        }
    }

    pub(super) fn environment(&mut self, environment: &Environment) {
        for (name, key, value) in environment.settings() {
            let origin = Origin::Variable(name.to_owned());
            let Some(value) = value.to_str() else {
                self.report(&key, origin, "it is not UTF-8", help_of(&key));
                continue;
            };
            if !self.defaults.contains_key(&key) {
                self.unknown(&key, origin, |known| match known.contains('.') {
                    true => format!("{known} ({})", variable_of(known)),
                    false => known.to_owned(),
                });
            } else if name != name.to_uppercase() {
                self.report(
                    &key,
                    origin,
                    "it is not in upper case",
                    format!("write it {}", name.to_uppercase()),
                );
            } else if value.is_empty() {
                // Unset, so that a template may leave it empty.
            } else if key == SECRET {
                self.take_secret(SecretString::from(Box::<str>::from(value)), origin);
            } else {
                self.set(&key, value, origin);
            }
        }
    }

    /// Takes a value from its text, as the default's type has it: texts stand as they are.
    fn set(&mut self, key: &str, text: &str, origin: Origin) {
        let value = match self.defaults.get(key) {
            Some(Value::String(..)) | None => Some(Value::from(text)),
            Some(_) => toml_value(text),
        };
        match value {
            Some(value) => drop(self.found.insert(key.to_owned(), (value, origin))),
            None => self.report(
                key,
                origin,
                format!("{text:?} cannot be read"),
                help_of(key),
            ),
        }
    }

    fn take_secret(&mut self, secret: SecretString, origin: Origin) {
        self.secret = Some(secret);
        self.found
            .insert(SECRET.to_owned(), (Value::from("[redacted]"), origin));
    }

    fn forget_secret(&mut self) {
        self.secret = None;
        self.found.remove(SECRET);
        self.found.remove("merchant.secret_file");
    }

    /// A key, or a section, that there is not: with the nearest one that there is, `written` as it has to be there.
    fn unknown(&mut self, key: &str, place: impl ToString, written: fn(&str) -> String) {
        let section = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
        let mut known: Vec<String> = self.defaults.keys().cloned().collect();
        let mut key = key.to_owned();
        if !key.starts_with('.') && !known.iter().any(|other| section(other) == section(&key)) {
            known = known.iter().map(|other| section(other)).collect();
            key = section(&key);
        }
        let nearest = known
            .iter()
            .min_by_key(|other| strsim::damerau_levenshtein(other, &key));
        let nearest = nearest.map_or_else(String::new, |nearest| written(nearest));
        let what = if key.contains('.') {
            "there is no such key"
        } else {
            "there is no such section"
        };
        let help = format!("did you mean {nearest}? config/tillgate.toml lists all keys");
        // A name of no characters is written so.
        self.report(
            if key.is_empty() { "\"\"" } else { &key },
            place,
            what,
            help,
        );
    }

    /// The configuration of all values that fit; the others are diagnostics. Each is tried alone over the defaults, and each
    /// item of a list too, so that every one that does not fit is reported: a parser stops at the first.
    pub(super) fn extract(&mut self) -> Config {
        let defaults = figment(&self.defaults);
        let mut all = defaults.clone();
        for (key, (value, origin)) in self.found.clone() {
            let wrong_with = |value: &Value| {
                defaults
                    .clone()
                    .merge(One(&key, value))
                    .extract::<Config>()
                    .err()
                    .map(|it| it.kind)
            };
            let Some(wrong) = wrong_with(&value) else {
                all = all.merge(One(&key, &value));
                continue;
            };
            let items = value.as_array().unwrap_or_default().iter();
            let of_items: Vec<_> = items
                .filter_map(|item| wrong_with(&Value::from(vec![item.clone()])))
                .collect();
            for kind in if of_items.is_empty() {
                vec![wrong]
            } else {
                of_items
            } {
                self.report(&key, &origin, what_of(&kind), help_of(&key));
            }
        }
        all.extract().unwrap_or_default()
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

/// The key's line in the annotated example.
pub(super) fn help_of(key: &str) -> String {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let mut lines = EXAMPLE
        .lines()
        .skip_while(|line| !line.starts_with(&format!("[{section}]")))
        .skip(1);
    let line = lines
        .find(|line| line.split(" = ").next() == Some(name))
        .unwrap_or(name);
    let mut example = line.splitn(2, '#').map(str::trim);
    let (setting, comment) = (example.next().unwrap_or_default(), example.next());
    match comment {
        Some(comment) => format!("write it like: {setting}   ({comment})"),
        None => format!("write it like: {setting}"),
    }
}

#[cfg(test)]
mod tests {
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

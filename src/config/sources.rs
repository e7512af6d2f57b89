//! Where values come from: a file, the environment, the command itself.

use std::path::Path;

use figment::value::Value;
use secrecy::SecretString;
use toml_edit::{ImDocument, Item};

use super::environment::{Environment, variable_of};
use super::explain::Origin;
use super::reading::{Reading, SECRET, help_at, help_of, toml_value, value_of};
use crate::file;

/// The one key that has a text or a list of them.
const LISTEN: &str = "listen.address";

const PLACES: [&str; 2] = ["tillgate.toml", "/etc/tillgate/tillgate.toml"];

impl Reading {
    /// Reads the file at this path, or else the first of the usual ones that exists, if any does.
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
                let what = format!("the file cannot be read: {error}");
                return self.report("--config", place, what, help);
            }
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.text(&place, text),
            Err(_) => self.report(
                "--config",
                place,
                "the file is not UTF-8",
                "save it as UTF-8",
            ),
        }
    }

    /// Takes the sections of a file.
    fn text(&mut self, place: &str, text: &str) {
        let document = match text.parse::<ImDocument<String>>() {
            Ok(document) => document,
            Err(error) => return self.report_malformed(place, text, &error),
        };
        for (section, item) in document.iter() {
            let at = |item: &Item| Origin::File {
                path: place.to_owned(),
                line: item.span().map_or(1, |span| line_of(text, span.start)),
            };
            let known = self
                .defaults
                .keys()
                .any(|key| key.split('.').next() == Some(section));
            match item.as_table_like() {
                _ if !known => self.report_unknown(section, at(item), str::to_owned),
                Some(table) => {
                    for (name, item) in table.iter() {
                        self.item(&format!("{section}.{name}"), item, at(item));
                    }
                }
                None => {
                    let help = format!("write [{section}] on a line of its own");
                    self.report(section, at(item), "it is a section", help);
                }
            }
        }
    }

    fn report_malformed(&mut self, place: &str, text: &str, error: &toml_edit::TomlError) {
        // The message alone: its context would quote the line, which may hold the secret.
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        // The message is empty for some control characters.
        let message = error
            .message()
            .lines()
            .next()
            .filter(|line| !line.trim().is_empty());
        let message = message.unwrap_or("this is not TOML").to_owned();
        let help = "write it as TOML: [section] lines, and key = value lines with texts in quotes";
        self.report("--config", format!("{place}:{line}"), message, help);
    }

    /// Takes one value of a file. An empty text leaves the key unset.
    fn item(&mut self, key: &str, item: &Item, origin: Origin) {
        if !self.defaults.contains_key(key) {
            return self.report_unknown(key, origin, str::to_owned);
        }
        match item.as_str() {
            Some("") => {}
            Some(secret) if key == SECRET => {
                self.take_secret(SecretString::from(Box::<str>::from(secret)), origin);
            }
            None if key == SECRET => self.report(key, origin, "it is not a text", help_of(SECRET)),
            _ => match value_of(item) {
                Some(value) => drop(self.found.insert(key.to_owned(), (value, origin))),
                None => {
                    let what = "a section where a value belongs";
                    self.report(key, origin, what, help_of(key));
                }
            },
        }
    }

    /// Takes the variables that are settings. An empty one leaves the key unset, so that a template may have it.
    pub(super) fn environment(&mut self, environment: &Environment) {
        let near_misses = environment.near_misses(self.defaults.keys());
        self.near_misses = near_misses
            .map(|(name, key)| (name.to_owned(), key.to_owned()))
            .collect();
        self.proxies = environment.proxies().map(str::to_owned).collect();
        for (name, key, value) in environment.settings() {
            let origin = Origin::Variable(name.to_owned());
            let Some(value) = value.to_str() else {
                self.report(&key, origin, "it is not UTF-8", help_of(&key));
                continue;
            };
            if !self.defaults.contains_key(&key) {
                self.report_unknown(&key, origin, |known| match known.contains('.') {
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
                // Unset.
            } else if key == SECRET {
                self.take_secret(SecretString::from(Box::<str>::from(value)), origin);
            } else {
                self.set(&key, value, origin);
            }
        }
    }

    /// Takes a value from its text: as it is where the default is a text, and as TOML otherwise.
    pub(super) fn set(&mut self, key: &str, text: &str, origin: Origin) {
        let list = |text| toml_value(text).filter(|value| value.as_array().is_some());
        let value = match self.defaults.get(key) {
            // An address may begin with a bracket, too: [::1]:8700.
            _ if key == LISTEN => list(text).or_else(|| Some(Value::from(text))),
            Some(Value::String(..)) | None => Some(Value::from(text)),
            Some(_) => toml_value(text),
        };
        match value {
            Some(value) => drop(self.found.insert(key.to_owned(), (value, origin))),
            None => {
                let help = help_at(key, &origin);
                self.report(key, origin, format!("{text:?} cannot be read"), help);
            }
        }
    }

    pub(super) fn take_secret(&mut self, secret: SecretString, origin: Origin) {
        self.secret = Some(secret);
        self.found
            .insert(SECRET.to_owned(), (Value::from("[redacted]"), origin));
    }

    /// Drops the secret that was found, in either form.
    pub(super) fn forget_secret(&mut self) {
        self.secret = None;
        self.found.remove(SECRET);
        self.found.remove("merchant.secret_file");
    }

    /// Reports a key or section that does not exist. The help names the nearest one that does, as `written` has it.
    fn report_unknown(&mut self, key: &str, place: impl ToString, written: fn(&str) -> String) {
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
        // An empty name is written as TOML writes it.
        self.report(
            if key.is_empty() { "\"\"" } else { &key },
            place,
            what,
            help,
        );
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
}

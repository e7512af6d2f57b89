//! The values that were found so far, and what is wrong with them.

mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;

use figment::Provider;
use figment::providers::Serialized;
use figment::value::Value;
use secrecy::SecretString;

use self::values::{One, figment, what_of};
pub(super) use self::values::{toml_value, value_of};
use super::environment::variable_of;
use super::explain::Origin;
use super::sections::Config;
use crate::file::ReloadableFile;
use crate::text::FilePath;

/// The key of the inline secret.
pub(super) const SECRET: &str = "merchant.secret";
/// The annotated example, which has the help for each key.
const EXAMPLE: &str = include_str!("../../config/tillgate.toml");

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// The key, or the file where no key is to blame.
    pub(crate) key: String,
    /// Where the value comes from.
    pub(crate) place: String,
    /// What is wrong with it.
    pub(crate) what: String,
    /// What to do.
    pub(crate) help: String,
}

/// The values that were found, by key. A later one takes the place of an earlier one.
pub(super) struct Reading {
    pub(super) defaults: BTreeMap<String, Value>,
    pub(super) found: BTreeMap<String, (Value, Origin)>,
    /// The inline secret. It is not among the values, so that it passes through no parser that could quote it.
    pub(super) secret: Option<SecretString>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// The configuration file, if there is one.
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

    /// Whether something is wrong with this key.
    pub(super) fn is_bad(&self, key: &str) -> bool {
        self.diagnostics
            .iter()
            .any(|diagnostic| diagnostic.key == key)
    }

    /// Returns where the value of this key comes from.
    pub(super) fn place(&self, key: &str) -> String {
        self.found
            .get(key)
            .map_or_else(|| self.unset(key), |(_, origin)| origin.to_string())
    }

    /// Returns where a key that is not set could be set.
    pub(super) fn unset(&self, key: &str) -> String {
        let variable = variable_of(key);
        match &self.file {
            Some(path) => format!("not set in {}, and {variable} is not set", path.display()),
            None => format!("there is no configuration file, and {variable} is not set"),
        }
    }

    /// Opens a file, if one is named. Returns `None`, after a report, if it is missing or its content is bad.
    pub(super) fn open_file<T: 'static>(
        &mut self,
        key: &str,
        path: Option<&FilePath>,
        parse: fn(&[u8]) -> Result<T, String>,
        help: &str,
    ) -> Option<Option<ReloadableFile<T>>> {
        let Some(path) = path else { return Some(None) };
        match ReloadableFile::open(&path.0, parse) {
            Ok(file) if file.get().is_some() => Some(Some(file)),
            other => {
                let what = other
                    .err()
                    .unwrap_or_else(|| "the file is missing".to_owned());
                let place = self.named(path, key);
                self.report(key, place, what, help);
                None
            }
        }
    }

    /// Returns where a file is named, with its name unless that could be a secret.
    pub(super) fn named(&self, path: &FilePath, key: &str) -> String {
        let place = self.place(key);
        if path.could_be_a_secret() {
            place
        } else {
            format!("{path}, named in {place}")
        }
    }

    /// Returns the configuration of all values that fit, and reports the others. Each value is tried alone over the
    /// defaults, and each item of a list too, because a parser stops at the first one that does not fit.
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

/// Returns the line of the annotated example that sets this key.
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

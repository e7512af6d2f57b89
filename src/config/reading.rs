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
use super::explain::{Origin, Remarks};
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
    /// The variables that would be settings with a second underscore, each with the key that it would set.
    pub(super) near_misses: Vec<(String, String)>,
    /// The proxy variables that are set.
    pub(super) proxies: Vec<String>,
    /// What is no fault.
    pub(super) remarks: Remarks,
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
            near_misses: Vec::new(),
            proxies: Vec::new(),
            remarks: Remarks::default(),
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
        let near = self.near_misses.iter().find(|(_, other)| other == key);
        let near = near.map_or_else(String::new, |(name, _)| {
            format!(" ({name} is, which has one underscore too few)")
        });
        match &self.file {
            Some(path) => format!(
                "not set in {}, and {variable} is not set{near}",
                path.display()
            ),
            None => format!("there is no configuration file, and {variable} is not set{near}"),
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
                self.report(&key, &origin, what_of(&kind), help_at(&key, &origin));
            }
        }
        all.extract().unwrap_or_default()
    }
}

/// Returns how to set this key, by the annotated example.
pub(super) fn help_of(key: &str) -> String {
    let (setting, comment) = example(key);
    format!("write it like: {setting}{comment}")
}

/// The same for where its value comes from: a variable has no quotes around a text.
pub(super) fn help_at(key: &str, origin: &Origin) -> String {
    let Origin::Variable(name) = origin else {
        return help_of(key);
    };
    let (setting, comment) = example(key);
    let value = setting.split_once(" = ").map_or("", |(_, value)| value);
    let shell = match value.starts_with('[') {
        true => "; in a shell with '' around it",
        false => "",
    };
    let value = value.trim_matches('"');
    format!("write it like: {name}={value}{shell}{comment}")
}

/// Returns the line of the annotated example that sets this key, and its comment. Instead of an empty list it has the one
/// that the comment shows.
fn example(key: &str) -> (String, String) {
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let mut lines = EXAMPLE
        .lines()
        .skip_while(|line| !line.starts_with(&format!("[{section}]")))
        .skip(1);
    let line = lines
        .find(|line| line.split(" = ").next() == Some(name))
        .unwrap_or(name);
    let mut parts = line.splitn(2, '#').map(str::trim);
    let (setting, comment) = (parts.next().unwrap_or_default(), parts.next());
    let list = comment.and_then(|comment| {
        let from = comment.find("[\"")?;
        comment[from..].split_inclusive(']').next()
    });
    let setting = match (setting.strip_suffix("[]"), list) {
        (Some(start), Some(list)) => format!("{start}{list}"),
        _ => setting.to_owned(),
    };
    let comment = comment.map_or_else(String::new, |comment| format!("   ({comment})"));
    (setting, comment)
}

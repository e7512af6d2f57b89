//! Single values: from TOML to figment.

use std::collections::BTreeMap;

use figment::error::Kind;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use toml_edit::ImDocument;

/// Returns the message of figment, without the names of Rust types.
pub(super) fn what_of(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            let expected = match expected.as_str() {
                "u32" | "u64" | "usize" => "a whole number, not below zero",
                "a nonzero u32" | "a nonzero usize" => "a whole number over zero",
                "f64" => "a number",
                other => other,
            };
            format!("found {found}, expected {expected}")
        }
        Kind::UnknownVariant(found, expected) => {
            format!("found {found:?}, expected one of {}", expected.join(", "))
        }
        other => other.to_string(),
    }
}

/// Returns the defaults as a figment.
pub(super) fn figment(defaults: &BTreeMap<String, Value>) -> Figment {
    defaults
        .iter()
        .fold(Figment::new(), |figment, (key, value)| {
            figment.merge(One(key, value))
        })
}

/// A provider of one value under its key.
pub(super) struct One<'a>(pub(super) &'a str, pub(super) &'a Value);

impl Provider for One<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("tillgate")
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let (section, name) = self.0.split_once('.').unwrap_or(("", self.0));
        let inner = Dict::from([(name.to_owned(), self.1.clone())]);
        Ok(Profile::Default.collect(Dict::from([(section.to_owned(), Value::from(inner))])))
    }
}

/// Converts a TOML value; `None` if no key can have a value of its kind.
pub(in super::super) fn value_of(item: &toml_edit::Item) -> Option<Value> {
    fn convert(value: &toml_edit::Value) -> Option<Value> {
        Some(match value {
            toml_edit::Value::String(text) => Value::from(text.value().as_str()),
            toml_edit::Value::Integer(number) => Value::from(*number.value()),
            toml_edit::Value::Float(number) => Value::from(*number.value()),
            toml_edit::Value::Boolean(yes) => Value::from(*yes.value()),
            toml_edit::Value::Array(items) => {
                Value::from(items.iter().map(convert).collect::<Option<Vec<_>>>()?)
            }
            toml_edit::Value::Datetime(_) | toml_edit::Value::InlineTable(_) => return None,
        })
    }
    convert(item.as_value()?)
}

/// Parses the text of one TOML value.
pub(in super::super) fn toml_value(text: &str) -> Option<Value> {
    let document = format!("value = {text}")
        .parse::<ImDocument<String>>()
        .ok()?;
    value_of(document.get("value")?).filter(|_| document.len() == 1)
}

//! JSON that keeps numbers as text and members in their order. Requests of callers are read strictly, answers of the
//! gateway leniently.
//!
//! `serde_json::Value` would turn `1e2` into `100.0`, drop the digits of long numbers and silently take the last of two
//! equal keys. None of that may happen to money.

mod lenient;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Display, Write};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::payment::Fingerprint;

/// The deepest nesting of arrays and objects.
const MAX_DEPTH: usize = 16;

/// A JSON value. `Display` writes it without white space, and numbers as they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    /// `null`, `true`, `false`, or the text of a number.
    Literal(Box<str>),
    /// A text, unescaped.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Object),
}

/// The members of an object in their order. No name occurs twice.
pub(crate) type Object = Vec<(String, Json)>;

/// Why bytes are not one object. `Display` repeats nothing of the input, which may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAnObject {
    /// Says what is wrong, and where if that is known.
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    /// This name occurs more than once in one object.
    #[error("{REPEATED}")]
    Repeated(String),
}

impl From<&'static str> for NotAnObject {
    fn from(what: &'static str) -> Self {
        Self::Malformed(what.into())
    }
}

/// Reads exactly one object, strictly.
///
/// # Errors
/// Says what is wrong.
pub(crate) fn parse_object(bytes: &[u8]) -> Result<Object, NotAnObject> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(EMPTY.into());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let place = error.valid_up_to();
        NotAnObject::Malformed(format!("it is not UTF-8 from byte {place} on").into())
    })?;
    if text.starts_with('\u{feff}') {
        return Err("it starts with a byte order mark".into());
    }
    // The parser names what it expected and the place, never what it found there.
    let raw: &RawValue = serde_json::from_str(text)
        .map_err(|error| NotAnObject::Malformed(format!("{MALFORMED}: {error}").into()))?;
    match parse(raw, 1, &mut Names::Once)? {
        Json::Object(members) => Ok(members),
        _ => Err(NO_OBJECT.into()),
    }
}

/// A value that was read leniently.
pub(crate) struct Lenient {
    /// The value, in whose objects no name occurs twice.
    pub(crate) value: Json,
    /// The names that occurred more than once in the outermost object.
    pub(crate) repeated: Vec<String>,
}

/// Reads exactly one value leniently. A byte order mark is skipped, bytes that are not UTF-8 and halves of surrogate pairs
/// become U+FFFD, strings may have control characters in them, and if a name occurs more than once in one object the last
/// value counts.
///
/// # Errors
/// Says what is wrong, without quoting the input: it may hold a secret.
pub(crate) fn parse_lenient(bytes: &[u8]) -> Result<Lenient, &'static str> {
    let text = lenient::repaired(bytes);
    if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
        return Err(EMPTY);
    }
    let raw: &RawValue = serde_json::from_str(&text).map_err(|_| MALFORMED)?;
    let mut names = Names::LastCounts {
        repeated: Vec::new(),
    };
    let value = parse(raw, 1, &mut names).map_err(|error| match error {
        NotAnObject::Malformed(Cow::Borrowed(what)) => what,
        _ => MALFORMED,
    })?;
    let repeated = match names {
        Names::LastCounts { repeated } => repeated,
        Names::Once => Vec::new(),
    };
    Ok(Lenient { value, repeated })
}

/// Decodes bytes as text. A byte order mark is skipped, and bytes that are not UTF-8 become U+FFFD.
pub(crate) fn decode_lenient(bytes: &[u8]) -> Cow<'_, str> {
    lenient::decoded(bytes)
}

const EMPTY: &str = "the body is empty";
const REPEATED: &str = "a key occurs twice in one object";
const MALFORMED: &str = "it is not one well-formed JSON value";
/// The error for a value that is not an object.
pub(crate) const NO_OBJECT: &str = "it is not an object";

/// Returns the member with this name.
pub(crate) fn get<'a>(object: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    object
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

/// Sets a member, in place of one with the same name.
pub(crate) fn set(object: &mut Object, name: &str, value: Json) {
    object.retain(|(key, _)| key != name);
    object.push((name.to_owned(), value));
}

/// Hashes a canonical text.
pub(crate) fn fingerprint(canonical: &str) -> Fingerprint {
    let mut fingerprint = Fingerprint([0; 16]);
    fingerprint
        .0
        .copy_from_slice(&Sha256::digest(canonical)[..16]);
    fingerprint
}

impl Json {
    /// Returns the text, if the value is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value `null`.
    pub(crate) fn null() -> Self {
        Self::Literal("null".into())
    }

    /// Returns whether the value is `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Literal(literal) if &**literal == "null")
    }

    /// Returns the value with the members of every object in the order of their names, so that equal values are written
    /// as equal bytes.
    pub(crate) fn canonical(self) -> Self {
        match self {
            Self::Array(items) => Self::Array(items.into_iter().map(Self::canonical).collect()),
            Self::Object(mut members) => {
                members.sort_by(|a, b| a.0.cmp(&b.0));
                Self::Object(
                    members
                        .into_iter()
                        .map(|(name, value)| (name, value.canonical()))
                        .collect(),
                )
            }
            scalar => scalar,
        }
    }

    /// Calls `change` on every text and name, and on every literal, which becomes a text if it changes. Drops members that
    /// get the same name, since none of them is the right one.
    pub(crate) fn rewrite(&mut self, change: &mut dyn FnMut(&str) -> Option<String>) {
        match self {
            Self::Literal(literal) => {
                if let Some(text) = change(literal) {
                    *self = Self::Text(text);
                }
            }
            Self::Text(text) => {
                if let Some(changed) = change(text) {
                    *text = changed;
                }
            }
            Self::Array(items) => items.iter_mut().for_each(|item| item.rewrite(change)),
            Self::Object(members) => {
                let mut renamed = false;
                for (name, value) in &mut *members {
                    if let Some(changed) = change(name) {
                        *name = changed;
                        renamed = true;
                    }
                    value.rewrite(change);
                }
                if renamed {
                    let mut names = HashMap::new();
                    for (name, _) in &*members {
                        *names.entry(name.clone()).or_insert(0) += 1;
                    }
                    members.retain(|(name, _)| names.get(name) == Some(&1));
                }
            }
        }
    }
}

impl Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => f.write_str(literal),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Array(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { "," })?;
                }
                f.write_char(']')
            }
            Self::Object(members) => {
                f.write_char('{')?;
                for (i, (name, value)) in members.iter().enumerate() {
                    write!(
                        f,
                        "{}{}:{value}",
                        if i == 0 { "" } else { "," },
                        quoted(name)
                    )?;
                }
                f.write_char('}')
            }
        }
    }
}

/// Returns the text as JSON writes it, quotes included.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn parse(raw: &RawValue, depth: usize, names: &mut Names) -> Result<Json, NotAnObject> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{' | b'[') if depth > MAX_DEPTH => Err("it is nested deeper than 16".into()),
        Some(b'{') => {
            let Members(members) = read(text)?;
            let mut parsed = Object::with_capacity(members.len());
            for (name, value) in members {
                parsed.push((name, parse(value, depth + 1, names)?));
            }
            Ok(Json::Object(names.settle(parsed, depth)?))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = read(text)?;
            let items = items.into_iter().map(|item| parse(item, depth + 1, names));
            Ok(Json::Array(items.collect::<Result<_, _>>()?))
        }
        Some(b'"') => Ok(Json::Text(read(text)?)),
        _ => Ok(Json::Literal(text.into())),
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, &'static str> {
    // The text is known to be well-formed, except for halves of surrogate pairs.
    serde_json::from_str(text).map_err(|_| MALFORMED)
}

/// What happens to a name that occurs more than once in one object.
enum Names {
    /// The object is refused.
    Once,
    /// The last value takes the place of the first.
    LastCounts {
        /// The names of the outermost object that occurred more than once.
        repeated: Vec<String>,
    },
}

impl Names {
    /// Returns the members of an object at this depth, each name once.
    fn settle(&mut self, members: Object, depth: usize) -> Result<Object, NotAnObject> {
        let mut places = HashMap::new();
        let mut settled = Object::with_capacity(members.len());
        for (name, value) in members {
            match (places.entry(name.clone()), &mut *self) {
                (Entry::Vacant(place), _) => {
                    place.insert(settled.len());
                    settled.push((name, value));
                }
                (Entry::Occupied(_), Self::Once) => return Err(NotAnObject::Repeated(name)),
                (Entry::Occupied(place), Self::LastCounts { repeated }) => {
                    settled[*place.get()].1 = value;
                    if depth == 1 {
                        repeated.push(name);
                    }
                }
            }
        }
        Ok(settled)
    }
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

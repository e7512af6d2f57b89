//! Strict JSON that keeps what it read: numbers as the text they were, members in their order, no key twice.
//!
//! `serde_json::Value` would turn `1e2` into `100.0`, drop the digits of long numbers and take the last of two equal
//! keys in silence, and with money none of that may happen.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Write};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::payment::Fingerprint;

/// How deep arrays and objects may stand in each other.
const MAX_DEPTH: usize = 16;

/// A JSON value. `Display` writes it compactly, numbers as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    /// `null`, `true`, `false`, or a number as the text it was.
    Literal(Box<str>),
    /// A text, unescaped.
    Text(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Object),
}

/// The members of an object, in their order; no name occurs twice.
pub(crate) type Object = Vec<(String, Json)>;

/// Reads exactly one object.
///
/// # Errors
/// What is wrong, in words that never quote the input: it may hold a secret.
pub(crate) fn parse_object(bytes: &[u8]) -> Result<Object, &'static str> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("the body is empty");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    if text.starts_with('\u{feff}') {
        return Err("it starts with a byte order mark");
    }
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| "it is not one well-formed JSON value")?;
    match parse(raw, 1)? {
        Json::Object(members) => Ok(members),
        _ => Err("it is not an object"),
    }
}

/// The member of that name.
pub(crate) fn get<'a>(object: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    object.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Gives a member that value, in the place of what stands under its name.
pub(crate) fn set(object: &mut Object, name: &str, value: Json) {
    object.retain(|(key, _)| key != name);
    object.push((name.to_owned(), value));
}

/// The same for the same canonical text, and for no other.
pub(crate) fn fingerprint(canonical: &str) -> Fingerprint {
    let mut fingerprint = Fingerprint([0; 16]);
    fingerprint.0.copy_from_slice(&Sha256::digest(canonical)[..16]);
    fingerprint
}

impl Json {
    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// `null`.
    pub(crate) fn null() -> Self {
        Self::Literal("null".into())
    }

    /// It is `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Literal(literal) if &**literal == "null")
    }

    /// The same value with the members of every object in the order of their names: two values that mean the same
    /// print the same bytes.
    pub(crate) fn canonical(self) -> Self {
        match self {
            Self::Array(items) => Self::Array(items.into_iter().map(Self::canonical).collect()),
            Self::Object(mut members) => {
                members.sort_by(|a, b| a.0.cmp(&b.0));
                Self::Object(members.into_iter().map(|(name, value)| (name, value.canonical())).collect())
            }
            scalar => scalar,
        }
    }

    /// Calls `change` on every text and name, and on every literal (which it may turn into a text). Members that come
    /// to have the same name are dropped: which of them would stay?
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
                    write!(f, "{}{}:{value}", if i == 0 { "" } else { "," }, quoted(name))?;
                }
                f.write_char('}')
            }
        }
    }
}

/// A text as JSON writes it, quotes included.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn parse(raw: &RawValue, depth: usize) -> Result<Json, &'static str> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{' | b'[') if depth > MAX_DEPTH => Err("it is nested deeper than 16"),
        Some(b'{') => {
            let Members(members) = read(text)?;
            let parsed = members.into_iter().map(|(name, value)| parse(value, depth + 1).map(|value| (name, value)));
            Ok(Json::Object(parsed.collect::<Result<_, _>>()?))
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = read(text)?;
            Ok(Json::Array(items.into_iter().map(|item| parse(item, depth + 1)).collect::<Result<_, _>>()?))
        }
        Some(b'"') => Ok(Json::Text(read(text)?)),
        _ => Ok(Json::Literal(text.into())),
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, &'static str> {
    // The text is already known to be well-formed: what can still fail is a key that occurs twice, or half a
    // surrogate pair.
    serde_json::from_str(text).map_err(|error| match error.to_string() {
        message if message.starts_with(TWICE) => TWICE,
        _ => "it is not one well-formed JSON value",
    })
}

const TWICE: &str = "a key occurs twice in one object";

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
                let mut seen = HashSet::new();
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(TWICE));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_read_is_written_again_number_for_number() {
        let text = r#"{"b":12345678901234567890123,"a":[1e2,-0,0.10,{"é\n":null}],"c":true}"#;
        let object = Json::Object(parse_object(text.as_bytes()).unwrap());
        assert_eq!(object.to_string(), text);
        assert!(object.canonical().to_string().starts_with(r#"{"a":[1e2,-0,0.10,"#));
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let number = "-?(0|[1-9][0-9]{0,30})([.][0-9]{1,20})?([eE][+-]?[0-9]{1,2})?";
        let leaf = prop_oneof![
            prop_oneof!["null", "true", "false", number].prop_map(|literal| Json::Literal(literal.into())),
            any::<String>().prop_map(Json::Text),
        ];
        leaf.prop_recursive(8, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Json::Array),
                prop::collection::btree_map(any::<String>(), inner, 0..8)
                    .prop_map(|members| Json::Object(members.into_iter().rev().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_written_reads_back_as_it_was(value in any_json()) {
            let object = vec![("value".to_owned(), value)];
            let text = Json::Object(object.clone()).to_string();
            prop_assert_eq!(parse_object(text.as_bytes()).unwrap(), object);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }

    #[test]
    fn doubtful_json_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(16), "]".repeat(16));
        let cases: [&[u8]; 12] = [
            b"",
            b"  ",
            b"null",
            b"[]",
            b"{",
            b"{} {}",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            br#"{"amount":1,"\u0061mount":2}"#,
            br#"{"x":{"a":1,"a":1}}"#,
            br#"{"a":"\ud800"}"#,
            deep.as_bytes(),
        ];
        for case in cases {
            assert!(parse_object(case).is_err(), "{}", String::from_utf8_lossy(case));
        }
        let just_deep_enough = format!("{{\"a\":{}{}}}", "[".repeat(15), "]".repeat(15));
        assert!(parse_object(just_deep_enough.as_bytes()).is_ok());
    }
}

//! JSON that keeps what it read: numbers as the text they were, members in their order. What a caller sends is read
//! strictly, what the gateway sends leniently.
//!
//! `serde_json::Value` would turn `1e2` into `100.0`, drop the digits of long numbers and take the last of two equal
//! keys in silence, and with money none of that may happen.

mod lenient;

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Display, Write};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
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

/// Reads exactly one object, strictly.
///
/// # Errors
/// What is wrong, in words that never quote the input: it may hold a secret.
pub(crate) fn parse_object(bytes: &[u8]) -> Result<Object, &'static str> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(EMPTY);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    if text.starts_with('\u{feff}') {
        return Err("it starts with a byte order mark");
    }
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| MALFORMED)?;
    match parse(raw, 1, &mut Names::Once)? {
        Json::Object(members) => Ok(members),
        _ => Err(NO_OBJECT),
    }
}

/// A value that was read leniently.
pub(crate) struct Lenient {
    /// In its objects, too, no name occurs twice.
    pub(crate) value: Json,
    /// The names that occurred more than once in the outermost object. The last value of each is kept.
    pub(crate) repeated: Vec<String>,
}

/// Reads exactly one value. A byte order mark is skipped, bytes that are not UTF-8 and halves of surrogate pairs become
/// U+FFFD, strings may have control characters in them, and of a name that occurs more than once in one object the last
/// value counts.
///
/// # Errors
/// What is wrong, in words that never quote the input: it may hold a secret.
pub(crate) fn parse_lenient(bytes: &[u8]) -> Result<Lenient, &'static str> {
    let text = lenient::repaired(bytes);
    if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
        return Err(EMPTY);
    }
    let raw: &RawValue = serde_json::from_str(&text).map_err(|_| MALFORMED)?;
    let mut names = Names::LastCounts {
        repeated: Vec::new(),
    };
    let value = parse(raw, 1, &mut names)?;
    let repeated = match names {
        Names::LastCounts { repeated } => repeated,
        Names::Once => Vec::new(),
    };
    Ok(Lenient { value, repeated })
}

/// The bytes as text. A byte order mark is skipped, and bytes that are not UTF-8 become U+FFFD.
pub(crate) fn decode_lenient(bytes: &[u8]) -> Cow<'_, str> {
    lenient::decoded(bytes)
}

const EMPTY: &str = "the body is empty";
const MALFORMED: &str = "it is not one well-formed JSON value";
/// What is said of a value that is not an object.
pub(crate) const NO_OBJECT: &str = "it is not an object";

/// The member of that name.
pub(crate) fn get<'a>(object: &'a [(String, Json)], name: &str) -> Option<&'a Json> {
    object
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

/// Gives a member that value, in the place of what stands under its name.
pub(crate) fn set(object: &mut Object, name: &str, value: Json) {
    object.retain(|(key, _)| key != name);
    object.push((name.to_owned(), value));
}

/// The same for the same canonical text, and for no other.
pub(crate) fn fingerprint(canonical: &str) -> Fingerprint {
    let mut fingerprint = Fingerprint([0; 16]);
    fingerprint
        .0
        .copy_from_slice(&Sha256::digest(canonical)[..16]);
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

/// A text as JSON writes it, quotes included.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn parse(raw: &RawValue, depth: usize, names: &mut Names) -> Result<Json, &'static str> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{' | b'[') if depth > MAX_DEPTH => Err("it is nested deeper than 16"),
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
    // The text is already known to be well-formed, but for halves of surrogate pairs.
    serde_json::from_str(text).map_err(|_| MALFORMED)
}

/// What becomes of a name that occurs more than once in one object.
enum Names {
    /// The object is refused.
    Once,
    /// The last value takes the place of the first.
    LastCounts {
        /// Such names of the outermost object.
        repeated: Vec<String>,
    },
}

impl Names {
    /// The members of an object at that depth, each name once.
    fn settle(&mut self, members: Object, depth: usize) -> Result<Object, &'static str> {
        let mut places = HashMap::new();
        let mut settled = Object::with_capacity(members.len());
        for (name, value) in members {
            match (places.entry(name.clone()), &mut *self) {
                (Entry::Vacant(place), _) => {
                    place.insert(settled.len());
                    settled.push((name, value));
                }
                (Entry::Occupied(_), Self::Once) => return Err("a key occurs twice in one object"),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_read_is_written_again_number_for_number() {
        let text = r#"{"b":12345678901234567890123,"a":[1e2,-0,0.10,{"é\n":null}],"c":true}"#;
        let object = Json::Object(parse_object(text.as_bytes()).unwrap());
        assert_eq!(object.to_string(), text);
        assert!(
            object
                .canonical()
                .to_string()
                .starts_with(r#"{"a":[1e2,-0,0.10,"#)
        );
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let number = "-?(0|[1-9][0-9]{0,30})([.][0-9]{1,20})?([eE][+-]?[0-9]{1,2})?";
        let leaf = prop_oneof![
            prop_oneof!["null", "true", "false", number]
                .prop_map(|literal| Json::Literal(literal.into())),
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
            assert!(
                parse_object(case).is_err(),
                "{}",
                String::from_utf8_lossy(case)
            );
        }
        let just_deep_enough = format!("{{\"a\":{}{}}}", "[".repeat(15), "]".repeat(15));
        assert!(parse_object(just_deep_enough.as_bytes()).is_ok());
    }

    fn lenient(bytes: &[u8]) -> Result<String, &'static str> {
        parse_lenient(bytes).map(|read| read.value.to_string())
    }

    #[test]
    fn what_takes_no_guess_is_read_leniently() {
        let cases: [(&[u8], &str); 14] = [
            (b"\xef\xbb\xbf{\"a\":1}", r#"{"a":1}"#),
            (
                b"{\"a\":\"M\xfcller \xe9\"}",
                "{\"a\":\"M\u{fffd}ller \u{fffd}\"}",
            ),
            (b"{\"\xfc\":1,\"\xe9\":2}", "{\"\u{fffd}\":2}"),
            (br#"{"a":"\ud83d"}"#, "{\"a\":\"\u{fffd}\"}"),
            (br#"{"a":"\ude00\ud83d"}"#, "{\"a\":\"\u{fffd}\u{fffd}\"}"),
            (
                br#"{"a":"\ud83d\ud83d\ude00x"}"#,
                "{\"a\":\"\u{fffd}\u{1f600}x\"}",
            ),
            (
                br#"{"a":"\\ud83d \" \u00e9"}"#,
                "{\"a\":\"\\\\ud83d \\\" \u{e9}\"}",
            ),
            (br#"{"\ud83d":1}"#, "{\"\u{fffd}\":1}"),
            (
                br#"{"a":1,"b":2,"\u0061":{"c":3,"c":4}}"#,
                r#"{"a":{"c":4},"b":2}"#,
            ),
            (br#"[{"a":1,"a":2}]"#, r#"[{"a":2}]"#),
            (
                b"{\"a\":\"tab\tline\n\0\"}\n\t ",
                r#"{"a":"tab\tline\n\u0000"}"#,
            ),
            (
                br#"{"a":[1e2,-0,0.10,12345678901234567890123]}"#,
                r#"{"a":[1e2,-0,0.10,12345678901234567890123]}"#,
            ),
            (b"\"text\"", "\"text\""),
            (b"null", "null"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(
                lenient(bytes).as_deref(),
                Ok(expected),
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn what_is_not_json_is_not_read_leniently_either() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(16), "]".repeat(16));
        let hidden = format!("{{\"a\":{}{},\"a\":1}}", "[".repeat(16), "]".repeat(16));
        let cases: [&[u8]; 18] = [
            b"",
            b"\xef\xbb\xbf",
            b"\xef\xbb\xbf\xef\xbb\xbf{}",
            b" \n",
            b"{",
            b"{} {}",
            b"{}\0",
            b"{}x",
            b"{\xfc}",
            b"{\"a\":\x01 1}",
            b"{\"a",
            b"{\"a\\",
            br#"{"a":"\u12"}"#,
            br#"{"a":"\u+123"}"#,
            br#"{"a":"\x"}"#,
            b"{'a':1}",
            deep.as_bytes(),
            hidden.as_bytes(),
        ];
        for case in cases {
            assert!(lenient(case).is_err(), "{}", String::from_utf8_lossy(case));
        }
    }

    #[test]
    fn only_the_repeated_names_of_the_outermost_object_are_told() {
        let read =
            parse_lenient(br#"{"a":1,"b":{"c":1,"c":2},"\u0061":2,"d":[{"e":1,"e":1}],"a":3}"#)
                .unwrap();
        assert_eq!(read.repeated, ["a", "a"]);
        assert_eq!(
            read.value.to_string(),
            r#"{"a":3,"b":{"c":2},"d":[{"e":1}]}"#
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_strictly_well_formed_is_read_the_same_leniently(value in any_json()) {
            let object = vec![("value".to_owned(), value)];
            let text = Json::Object(object.clone()).to_string();
            let read = parse_lenient(text.as_bytes()).unwrap();
            prop_assert_eq!(read.value, Json::Object(object));
            prop_assert!(read.repeated.is_empty());
        }

        #[test]
        fn what_is_read_leniently_can_be_read_strictly_from_then_on(
            parts in prop::collection::vec(prop_oneof![
                prop::sample::select(vec![
                    "{", "}", "[", "]", ":", ",", "\"", "\"a\"", "\"a\":", "1", "null", "\\", "\\u", "\\ud83d",
                    "\\ude00", "\\\"", "\t", "{\"a\":\"", "\",\"a\":2}", "\"}",
                ]).prop_map(|part| part.as_bytes().to_vec()),
                prop::collection::vec(any::<u8>(), 0..3),
            ], 0..12),
        ) {
            if let Ok(read) = parse_lenient(&parts.concat())
                && let Json::Object(object) = read.value
            {
                let text = Json::Object(object.clone()).to_string();
                prop_assert_eq!(parse_object(text.as_bytes()), Ok(object));
            }
        }
    }
}

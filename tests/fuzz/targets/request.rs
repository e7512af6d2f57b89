//! The body of a start. What we would send is what another reader of JSON reads in it.
#![no_main]

use std::collections::HashSet;
use std::fmt;

use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tillgate::fuzz::start;

const MOST: u64 = 1_000_000;
const ALLOWED: &[&str] = &["https://shop.example/back"];

fuzz_target!(|body: &[u8]| {
    let Ok(read) = start::request(body, MOST, "order", ALLOWED) else {
        return;
    };
    let text = std::str::from_utf8(body).expect("only UTF-8 is read");
    let other = serde_json::from_str(text);
    // A number that no float can hold is JSON all the same, and passed on as the text it is: this reader gives up there.
    if other.as_ref().is_err_and(|error: &serde_json::Error| {
        error.to_string().starts_with("number out of range")
    }) {
        return;
    }
    serde_json::from_str::<NoNameTwice>(text).expect("no name stands there twice");
    let Ok(Value::Object(other)) = other else {
        panic!("another reader does not read it")
    };
    assert_eq!(other["amount"].as_u64(), Some(read.amount));
    assert!((1..=MOST).contains(&read.amount));
    assert!(
        other
            .keys()
            .all(|name| ["amount", "redirect", "reference", "order"].contains(&name.as_str())),
        "{other:?}"
    );
    assert_eq!(
        other.get("redirect").is_some_and(Value::is_string),
        read.redirect.is_some()
    );
    match other.get("reference") {
        None | Some(Value::Null) => assert_eq!(read.reference, None),
        Some(Value::String(text)) => assert_eq!(read.reference.as_ref(), Some(text)),
        Some(Value::Number(_)) => {
            let digits = read.reference.as_deref().unwrap_or_default();
            assert!(
                digits
                    .trim_start_matches('-')
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
            );
            assert!(!digits.is_empty());
        }
        other => panic!("{other:?}"),
    }
    match &read.extra[..] {
        [] => assert!(!other.contains_key("order")),
        [(name, json)] => {
            assert_eq!(name, "order");
            assert_eq!(
                serde_json::from_str::<Value>(json).ok().as_ref(),
                other.get("order")
            );
        }
        more => panic!("{more:?}"),
    }
    // The same meaning, written in another way.
    let mut again = format!("{{ \"amount\" : {} ", read.amount);
    if let Some(redirect) = &read.redirect {
        again.push_str(&format!(",\"redirect\":{}", Value::from(redirect.as_str())));
    }
    if let Some(reference) = &read.reference {
        again.push_str(&format!(
            ",\"reference\":{}",
            Value::from(reference.as_str())
        ));
    }
    for (name, json) in &read.extra {
        again.push_str(&format!(",{}:{json}", Value::from(name.as_str())));
    }
    again.push('}');
    assert_eq!(
        start::request(again.as_bytes(), MOST, "order", ALLOWED).as_ref(),
        Ok(&read)
    );
});

/// Any JSON in which no object has a name twice.
struct NoNameTwice;

impl<'de> Deserialize<'de> for NoNameTwice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for NoNameTwice {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Self)) = map.next_entry::<String, Self>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("twice"));
            }
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while let Some(Self) = items.next_element()? {}
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

use proptest::prelude::*;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::SecretString;

use super::forms::hex;
use super::needles::{Needles, REDACTED};
use super::*;
use crate::json;

#[test]
fn neither_form_of_the_secret_is_left() {
    let secret = r#"sec"ret\1234"#;
    let scrubber = Scrubber::new(vec![Arc::new(SecretString::from(secret))]);
    let request = format!("{{\"merchant_secret\":{}}}", json::quoted(secret));
    let answer = format!(
        r#"{{"a":{},"b":["x\u0073ec\"ret\\1234"],{}:1,"request":{}}}"#,
        json::quoted(secret),
        json::quoted(secret),
        json::quoted(&request)
    );
    let mut value = Json::Object(json::parse_object(answer.as_bytes()).unwrap());
    scrubber.scrub(&mut value);
    assert_eq!(
        value.to_string(),
        r#"{"a":"[redacted]","b":["x[redacted]"],"[redacted]":1,"request":"{\"merchant_secret\":\"[redacted]\"}"}"#
    );
    assert!(scrubber.has_found());
}

#[test]
fn no_name_occurs_twice_when_it_is_out() {
    let secret = "a-secret-of-18-byt";
    let scrubber = Scrubber::new(vec![Arc::new(SecretString::from(secret))]);
    let answer = format!(
        r#"{{"{secret}":1,"a":[{{"[redacted]":2,"b":3,"{secret}":4}}],"{}":5}}"#,
        hex(secret.as_bytes()).as_str()
    );
    let mut value = Json::Object(json::parse_object(answer.as_bytes()).unwrap());
    scrubber.scrub(&mut value);
    assert_eq!(value.to_string(), r#"{"a":[{"b":3}]}"#);
}

#[test]
fn nothing_is_left_of_a_secret_that_begins_with_another_nor_where_two_forms_meet() {
    let secrets = ["sk_live_abcdef", "sk_live_abcdef_2026-xyz"]
        .map(|secret| Arc::new(SecretString::from(secret)));
    for _ in 0..20 {
        // Where they are in memory is no matter.
        let secrets = secrets
            .iter()
            .map(|secret| Arc::new((**secret).clone()))
            .collect();
        assert_eq!(
            Scrubber::new(secrets).text("<sk_live_abcdef_2026-xyz>".to_owned()),
            "<[redacted]>"
        );
    }
    assert_eq!(
        Needles::of("25abcdef%")
            .take_out("25abcdef%25abcdef%")
            .as_deref(),
        Some("[redacted]")
    );
    let secret = "begin:the-rest";
    let meeting = format!("{}{secret}!", STANDARD_NO_PAD.encode(format!("0{secret}0")));
    assert_eq!(
        Needles::of(secret).take_out(&meeting).as_deref(),
        Some("[redacted]!")
    );
}

#[test]
fn nothing_is_left_of_a_secret_in_another_encoding() {
    let latin = |secret: &str| {
        secret
            .chars()
            .map(|c| u8::try_from(u32::from(c)).unwrap())
            .collect::<Vec<_>>()
    };
    for secret in [
        "gr\u{fc}\u{df}e-key",
        "\u{e9}t\u{e9}-2026-key",
        "the-key-of-caf\u{e9}",
    ] {
        let text = String::from_utf8_lossy(&latin(&format!("<{secret}>"))).into_owned();
        assert_eq!(
            Needles::of(secret).take_out(&text).as_deref(),
            Some("<[redacted]>"),
            "{text}"
        );
        assert!(
            Needles::of(secret)
                .take_out(&"\u{fffd}".repeat(20))
                .is_none()
        );
    }
}

/// Each of them may be one of the secret's, or the escape of another.
#[test]
fn a_secret_of_backslashes_takes_no_longer_than_another() {
    let secret = "\\".repeat(40);
    assert_eq!(
        Needles::of(&secret)
            .take_out(&format!("x{}", "\\".repeat(80)))
            .as_deref(),
        Some("x[redacted]")
    );
}

/// As the query of a URL has it.
fn percent_of(text: &str) -> String {
    let coded = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(coded).collect()
}

/// As Python's JSON has it.
fn ascii(text: &str) -> String {
    let unit = |unit: u16| match u8::try_from(unit) {
        Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    text.encode_utf16().map(unit).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_coding_hides_it(
        secret in "[!-~\u{a1}-\u{24f}]{8,40}",
        before in any::<String>(),
        after in any::<String>(),
        encode in prop::collection::vec(any::<bool>(), 200),
    ) {
        let needles = Needles::of(&secret);
        let plain = format!("{before}{secret}{after}");
        let mut encode = encode.into_iter().cycle();
        let percent: String = secret
            .bytes()
            .map(|byte| match (byte.is_ascii() && encode.next() == Some(false), encode.next()) {
                (true, _) => char::from(byte).to_string(),
                (false, Some(true)) => format!("%{byte:02x}"),
                (false, _) => format!("%{byte:02X}"),
            })
            .collect();
        let forms = [
            plain.clone(),
            json::quoted(&plain),
            json::quoted(&plain).replace('/', r"\/"),
            plain.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect(),
            STANDARD_NO_PAD.encode(json::quoted(&plain)),
            STANDARD_NO_PAD.encode(json::quoted(&plain).replace('/', r"\/")),
            hex(ascii(&json::quoted(&plain)).as_bytes()).to_string(),
            URL_SAFE_NO_PAD.encode(ascii(&json::quoted(&plain).replace('/', r"\/"))),
            format!("{before}{percent}{after}"),
            format!("{before} {}", STANDARD_NO_PAD.encode(&plain)),
            format!("{}%{after}", URL_SAFE_NO_PAD.encode(&plain)),
            format!("{before}{}{after}", &*hex(secret.as_bytes())),
            format!("{before}{}", hex(json::quoted(&plain).as_bytes()).to_uppercase()),
            format!("0x{}", hex(plain.as_bytes()).replace('b', "B")),
            percent_of(&json::quoted(&plain)),
            percent_of(&plain.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>()),
        ];
        for form in forms {
            let clean = needles.take_out(&form);
            prop_assert!(clean.is_some(), "{:?}", form);
            let again = clean.and_then(|clean| needles.take_out(&clean));
            prop_assert!(again.is_none() || REDACTED.contains(&secret), "{:?}", again);
        }
    }
}

#[test]
fn what_only_looks_like_it_stays() {
    assert!(
        Needles::of("redacted")
            .take_out("redacted %72edacted")
            .is_some(),
        "it ends"
    );
    assert!(
        Needles::of("a_secret_of_1234")
            .take_out("100% of nothing: c3VjaCBhIHRleHQ a_secret_of_123")
            .is_none()
    );
}

use proptest::prelude::*;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::SecretString;

use super::forms::hex;
use super::needles::{Needles, Part, REDACTED};
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
            .take_out("25abcdef%25abcdef%", Part::Half)
            .as_deref(),
        Some("[redacted]")
    );
    let secret = "begin:the-rest";
    let meeting = format!("{}{secret}!", STANDARD_NO_PAD.encode(format!("0{secret}0")));
    assert_eq!(
        Needles::of(secret)
            .take_out(&meeting, Part::Half)
            .as_deref(),
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
            Needles::of(secret).take_out(&text, Part::Whole).as_deref(),
            Some("<[redacted]>"),
            "{text}"
        );
        assert!(
            Needles::of(secret)
                .take_out(&"\u{fffd}".repeat(20), Part::Half)
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
            .take_out(&format!("x{}", "\\".repeat(80)), Part::Half)
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
            let clean = needles.take_out(&form, Part::Half);
            prop_assert!(clean.is_some(), "{:?}", form);
            let again = clean.and_then(|clean| needles.take_out(&clean, Part::Half));
            prop_assert!(again.is_none() || REDACTED.contains(&secret), "{:?}", again);
        }
    }
}

#[test]
fn what_only_looks_like_it_stays() {
    assert!(
        Needles::of("redacted")
            .take_out("redacted %72edacted", Part::Half)
            .is_some(),
        "it ends"
    );
    assert!(
        Needles::of("a_secret_of_1234")
            .take_out("100% of nothing: c3VjaCBhIHRleHQ a_secret_of", Part::Half)
            .is_none()
    );
}

#[test]
fn half_of_a_secret_in_a_row_is_taken_out() {
    let scrubber = |secret: &str| Scrubber::new(vec![Arc::new(SecretString::from(secret))]);
    let canary = scrubber("canary-Q7w9E2r4T6y8-U1i3O5p0");
    for (text, clean) in [
        ("<canary-Q7w9E2r>", "<[redacted]>"),
        ("<Q7W9e2r4t6y8-U>", "<[redacted]>"),
        ("<4T6y8-U1i3O5p0>", "<[redacted]>"),
        (
            "<-Q7w9E2r4T6y8-U1i3O5p0> <canary-Q7w9E2r4T6y8-U1i3O5p>",
            "<[redacted]> <[redacted]>",
        ),
        // Thirteen in a row, and fourteen are half of it.
        ("<canary-Q7w9E2>", "<canary-Q7w9E2>"),
        ("canary-Q7w9E2-4T6y8-U1i3O5p", "canary-Q7w9E2-4T6y8-U1i3O5p"),
    ] {
        assert_eq!(canary.text_and_parts(text.to_owned()), clean, "{text}");
    }
    // Twelve at the least: of a short one only the whole counts.
    let short = scrubber("short-secret-1");
    assert_eq!(
        short.text_and_parts("short-secre".to_owned()),
        "short-secre"
    );
    assert_eq!(
        short.text_and_parts("short-secret".to_owned()),
        "[redacted]"
    );
    assert_eq!(
        scrubber("a-secret").text_and_parts("a-secre".to_owned()),
        "a-secre"
    );
    let accents = scrubber("\u{e9}\u{e8}\u{ea}\u{eb}-\u{e9}\u{e8}\u{ea}\u{eb}");
    let text = "\u{e9}\u{e8}\u{ea}\u{eb}-\u{e9}\u{e8}\u{ea}";
    assert_eq!(accents.text_and_parts(text.to_owned()), "[redacted]");
}

#[test]
fn what_is_acted_on_is_changed_for_the_whole_secret_alone() {
    let secret = "canary-Q7w9E2r4T6y8-U1i3O5p0";
    let scrubber = Scrubber::new(vec![Arc::new(SecretString::from(secret))]);
    let clean = |text: &str| {
        let mut value = Json::Object(json::parse_object(text.as_bytes()).unwrap());
        scrubber.scrub(&mut value);
        if let Json::Object(object) = &mut value {
            scrubber.scrub_parts(object);
        }
        value.to_string()
    };
    let half = "canary-Q7w9E2r4";
    assert_eq!(
        clean(&format!(
            r#"{{"code":"{half}","note":"{half}","more":{{"code":"{half}"}}}}"#
        )),
        format!(r#"{{"code":"{half}","note":"[redacted]","more":{{"code":"[redacted]"}}}}"#)
    );
    assert_eq!(
        clean(&format!(r#"{{"code":"{secret}"}}"#)),
        r#"{"code":"[redacted]"}"#
    );
}

proptest::proptest! {
    #[test]
    fn no_half_is_left_and_nothing_shorter_is_touched(
        secret in "[a-zA-Z0-9_-]{8,40}", around in "[ .]{0,3}", from in 0_usize..40, length in 1_usize..41
    ) {
        let from = from.min(secret.len() - 1);
        let part = &secret[from..(from + length).min(secret.len())];
        let text = format!("{around}{part}{around}");
        let scrubber = Scrubber::new(vec![Arc::new(SecretString::from(secret.as_str()))]);
        let is_half = part.len() >= secret.len().div_ceil(2).max(12) || part == secret;
        let clean = if is_half { format!("{around}[redacted]{around}") } else { text.clone() };
        proptest::prop_assert_eq!(scrubber.text_and_parts(text), clean);
    }
}

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;
use crate::json;

fn scrubber(secret: &str) -> Scrubber {
    Scrubber::new(&[Arc::new(SecretString::from(secret))])
}

fn clean(secret: &str, text: &str) -> Option<String> {
    scrubber(secret).take_out(text, Part::Half)
}

fn clean_object(secret: &str, answer: &str) -> (String, Option<&'static str>) {
    let mut object = json::parse_object(answer.as_bytes()).unwrap();
    let echoed = scrubber(secret).object(&mut object);
    (Json::Object(object).to_string(), echoed)
}

fn each(text: &str, mut coded: impl FnMut(u8) -> String) -> String {
    text.bytes().map(&mut coded).collect()
}

/// The body of a JSON text.
fn quoted(text: &str) -> String {
    let quoted = json::quoted(text);
    quoted[1..quoted.len() - 1].to_owned()
}

fn units(text: &str) -> String {
    text.encode_utf16().fold(String::new(), |mut units, unit| {
        let _ = write!(units, "\\u{unit:04X}");
        units
    })
}

fn lines(text: &str) -> String {
    let coded = STANDARD.encode(text).into_bytes();
    let lines: Vec<_> = coded.chunks(16).map(String::from_utf8_lossy).collect();
    lines.join("\r\n")
}

fn html(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let text = text.replace('>', "&gt;").replace('"', "&quot;");
    text.replace('\'', "&#39;").replace('/', "&sol;")
}

/// Each coding that is looked for.
const CODINGS: [fn(&str) -> String; 21] = [
    quoted,
    |text| quoted(text).replace('/', "\\/"),
    units,
    |text| each(text, |byte| format!("\\x{byte:02x}")),
    |text| each(text, |byte| format!("%{byte:02X}")),
    |text| each(text, |byte| format!("%{byte:02x}")),
    // As the query of a URL has it.
    |text| {
        each(text, |byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
    },
    html,
    |text| {
        text.chars()
            .map(|c| format!("&#{};", u32::from(c)))
            .collect()
    },
    |text| {
        text.chars()
            .map(|c| format!("&#x{:X};", u32::from(c)))
            .collect()
    },
    |text| {
        text.chars()
            .map(|c| format!("&#{:04};", u32::from(c)))
            .collect()
    },
    |text| each(text, |byte| format!("{byte:02x}")),
    |text| each(text, |byte| format!("{byte:02X}")),
    |text| each(text, |byte| format!("{byte:02x} ")),
    |text| each(text, |byte| format!("{byte:02X}:")),
    |text| each(text, |byte| format!("0x{byte:02x}, ")),
    |text| STANDARD.encode(text),
    |text| STANDARD_NO_PAD.encode(text),
    |text| URL_SAFE_NO_PAD.encode(text),
    |text| URL_SAFE_NO_PAD.encode(format!("x{text}")),
    lines,
];

fn coding() -> impl Strategy<Value = fn(&str) -> String> {
    (0..CODINGS.len()).prop_map(|coding| CODINGS[coding])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_coding_hides_it_nor_three_one_around_the_other(
        secret in "[!-~]{8,48}|[!-~\u{a1}-\u{24f}]{8,40}|[a-zA-Z0-9_-]{24,48}",
        codings in prop::collection::vec(coding(), 0..=3),
        (before, after) in ("[ -~]{0,12}", "[ -~]{0,12}"),
        (is_half, from, case) in (any::<bool>(), any::<prop::sample::Index>(), 0..3),
    ) {
        let half = secret.len().div_ceil(2).max(12);
        let part = if is_half && secret.is_ascii() && half < secret.len() {
            let from = from.index(secret.len() - half + 1);
            &secret[from..from + half]
        } else {
            &secret
        };
        let part = match case {
            0 => part.to_owned(),
            1 => part.to_ascii_lowercase(),
            _ => part.to_ascii_uppercase(),
        };
        let mut text = format!("{before} {part} {after}");
        let mut alone = part;
        for coding in codings {
            text = coding(&text);
            alone = coding(&alone);
        }
        for text in [text, format!("{before} {alone} {after}")] {
            let clean = clean(&secret, &text);
            prop_assert!(clean.is_some(), "{:?}", text);
            let again = clean.and_then(|clean| super::tests::clean(&secret, &clean));
            prop_assert!(again.is_none() || REDACTED.contains(&secret), "{:?}", again);
        }
    }

    #[test]
    fn no_half_is_left_and_nothing_shorter_is_touched(
        secret in "[a-zA-Z0-9_-]{8,40}", around in "[ .]{0,3}", from in 0_usize..40, length in 1_usize..41
    ) {
        let from = from.min(secret.len() - 1);
        let part = &secret[from..(from + length).min(secret.len())];
        let text = format!("{around}{part}{around}");
        let is_half = part.len() >= secret.len().div_ceil(2).max(12) || part == secret;
        let expected = is_half.then(|| format!("{around}[redacted]{around}"));
        prop_assert_eq!(clean(&secret, &text), expected);
    }

    #[test]
    fn what_has_nothing_of_it_stays_as_it_is(
        secret in "[!-~]{12,40}|[a-z]{12,40}", text in "[ -~]{0,200}|[a-z ]{0,200}|[0-9a-f]{0,200}|\\PC{0,100}",
        codings in prop::collection::vec(coding(), 0..=3),
    ) {
        let text = codings.iter().fold(text, |text, coding| coding(&text));
        prop_assert_eq!(clean(&secret, &text), None);
    }
}

#[test]
fn ten_echoes_are_found_and_a_public_prefix_is_none() {
    let secret = "sk_live_4eC39HqLyjWDarjtT1zdp7dc&/";
    let nested = |coding: fn(&str) -> String| coding(&coding(&coding(secret)));
    for echo in [
        secret[..secret.len() - 3].to_owned(),
        secret[3..].to_owned(),
        html(secret),
        CODINGS[8](secret),
        CODINGS[9](secret),
        CODINGS[12](secret),
        CODINGS[14](secret),
        CODINGS[15](secret),
        CODINGS[3](secret),
        nested(|text| text.replace('%', "%25").replace('&', "%26")),
        secret.to_lowercase(),
        lines(&format!("a request with {secret} in it, and more")),
        nested(|text| STANDARD.encode(text)),
        nested(quoted),
    ] {
        let clean = clean(secret, &format!("echo: {echo}."));
        assert!(
            clean.is_some_and(|clean| clean.contains(REDACTED)),
            "{echo}"
        );
    }
    for text in ["sk_live_", "the keys of sk_live_ and sk_live_ begin so"] {
        assert_eq!(clean(secret, text), None);
    }
}

#[test]
fn neither_form_of_the_secret_is_left() {
    let secret = r#"sec"ret\1234"#;
    let request = format!("{{\"merchant_secret\":{}}}", json::quoted(secret));
    let answer = format!(
        r#"{{"a":{},"b":["x\u0073ec\"ret\\1234"],{}:1,"request":{}}}"#,
        json::quoted(secret),
        json::quoted(secret),
        json::quoted(&request)
    );
    assert_eq!(
        clean_object(secret, &answer),
        (
            r#"{"a":"[redacted]","b":["x[redacted]"],"[redacted]":1,"request":"{\"merchant_secret\":\"[redacted]\"}"}"#.to_owned(),
            None
        )
    );
}

#[test]
fn no_name_occurs_twice_when_it_is_out() {
    let secret = "a-secret-of-18-byt";
    let answer = format!(
        r#"{{"{secret}":1,"a":[{{"[redacted]":2,"b":3,"{secret}":4}}],"{}":5}}"#,
        CODINGS[11](secret)
    );
    assert_eq!(clean_object(secret, &answer).0, r#"{"a":[{"b":3}]}"#);
}

#[test]
fn nothing_is_left_of_a_secret_that_begins_with_another_nor_where_two_forms_meet() {
    let secrets = ["sk_live_abcdef", "sk_live_abcdef_2026-xyz"]
        .map(|secret| Arc::new(SecretString::from(secret)));
    assert_eq!(
        Scrubber::new(&secrets).text("<sk_live_abcdef_2026-xyz>".to_owned()),
        "<[redacted]>"
    );
    assert_eq!(
        clean("25abcdef%", "25abcdef%25abcdef%").as_deref(),
        Some("[redacted]")
    );
    let secret = "begin:the-rest";
    let meeting = format!("{}{secret}!", STANDARD_NO_PAD.encode(format!("0{secret}0")));
    assert_eq!(
        clean(secret, &meeting).as_deref(),
        Some("M[redacted]MA[redacted]!")
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
        let bytes = latin(secret);
        let percent: String = bytes.iter().map(|byte| format!("%{byte:02X}")).collect();
        for text in [
            String::from_utf8_lossy(&bytes).into_owned(),
            percent,
            STANDARD.encode(&bytes),
            secret.to_uppercase(),
        ] {
            let clean = clean(secret, &format!("<{text}>")).unwrap();
            assert!(
                clean.starts_with("<[redacted]") && clean.len() < 16,
                "{clean}"
            );
        }
        assert_eq!(clean(secret, &"\u{fffd}".repeat(20)), None);
    }
}

#[test]
fn what_only_looks_like_it_stays() {
    assert!(
        clean("redacted", "redacted %72edacted").is_some(),
        "it ends"
    );
    assert_eq!(
        clean(
            "a_secret_of_1234",
            "100% of nothing: c3VjaCBhIHRleHQ a_secret_of"
        ),
        None
    );
}

#[test]
fn half_of_a_secret_in_a_row_is_taken_out() {
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
        assert_eq!(canary.text(text.to_owned()), clean, "{text}");
    }
    // Twelve at the least: of a short one only the whole counts.
    let short = scrubber("short-secret-1");
    assert_eq!(short.text("short-secre".to_owned()), "short-secre");
    assert_eq!(short.text("short-secret".to_owned()), "[redacted]");
    assert_eq!(scrubber("a-secret").text("a-secre".to_owned()), "a-secre");
    let accents = scrubber("\u{e9}\u{e8}\u{ea}\u{eb}-\u{e9}\u{e8}\u{ea}\u{eb}");
    let text = "\u{e9}\u{e8}\u{ea}\u{eb}-\u{e9}\u{e8}\u{ea}";
    assert_eq!(accents.text(text.to_owned()), "[redacted]");
}

#[test]
fn what_is_acted_on_is_changed_for_the_whole_secret_alone() {
    let secret = "canary-Q7w9E2r4T6y8-U1i3O5p0";
    let half = "canary-Q7w9E2r4";
    assert_eq!(
        clean_object(
            secret,
            &format!(r#"{{"code":"{half}","note":"{half}","more":{{"code":"{half}"}}}}"#)
        ),
        (
            format!(r#"{{"code":"{half}","note":"[redacted]","more":{{"code":"[redacted]"}}}}"#),
            None
        )
    );
    for name in STRICT {
        assert_eq!(
            clean_object(secret, &format!(r#"{{"{name}":"x{secret}"}}"#)),
            (format!(r#"{{"{name}":"x[redacted]"}}"#), Some(name))
        );
    }
}

#[test]
fn a_secret_that_is_held_no_more_is_looked_for_no_more() {
    let finders = Finders::default();
    let [old, new] =
        ["the-old-secret-1", "the-new-secret-2"].map(|secret| Arc::new(SecretString::from(secret)));
    let text = || "the-old-secret-1 the-new-secret-2".to_owned();
    for (secrets, expected) in [
        (vec![], "the-old-secret-1 the-new-secret-2"),
        (vec![old.clone()], "[redacted] the-new-secret-2"),
        (vec![new.clone(), old], "[redacted] [redacted]"),
        (vec![new], "the-old-secret-1 [redacted]"),
    ] {
        for _ in 0..2 {
            assert_eq!(finders.scrubber(&secrets).text(text()), expected);
        }
    }
}

#[test]
fn the_proof_at_the_start_holds_and_fails_where_a_coding_is_not_found() {
    assert_eq!(prove(), Ok(()));
    let missed = proof::prove(|secret, text| text.contains(secret));
    assert!(missed.is_err(), "{missed:?}");
}

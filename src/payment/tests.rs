//! The forms of codes, keys and amounts.

use super::*;

#[test]
fn amounts_are_plain_integers() {
    assert_eq!(
        Amount::parse("1000")
            .map(|amount| amount.to_string())
            .as_deref(),
        Some("1000")
    );
    for literal in [
        "-0",
        "-1",
        "1.0",
        "1e3",
        "true",
        "null",
        "18446744073709551616",
        "",
    ] {
        assert!(Amount::parse(literal).is_none(), "{literal}");
    }
}

#[test]
fn keys_are_read_in_quotes_and_without() {
    let read = |text: &str| {
        text.parse::<IdempotencyKey>()
            .ok()
            .map(|key| key.to_string())
    };
    assert_eq!(read("order-1"), read("\"order-1\""));
    assert_eq!(read(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
    assert_eq!(read(&"k".repeat(255)).map(|key| key.len()), Some(255));
    for text in [
        "",
        "\"\"",
        "\"open",
        "\"a\"b\"",
        r#""a\x""#,
        r#""a\""#,
        "\"a\";b=1",
        "é",
        "a\tb",
        &"k".repeat(256),
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn codes_cannot_leave_their_path_segment() {
    for text in [
        "",
        ".",
        "..",
        "a/b",
        "a%2fb",
        "a b",
        "a?b",
        "é",
        "a\n",
        &"a".repeat(257),
    ] {
        assert!(text.parse::<WatchCode>().is_err(), "{text}");
    }
    assert!("aZ09-._~".parse::<Code>().is_ok());
}

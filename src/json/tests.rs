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
    let read = parse_lenient(br#"{"a":1,"b":{"c":1,"c":2},"\u0061":2,"d":[{"e":1,"e":1}],"a":3}"#)
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

//! What a detail says of a bad start: the field, and what stood there.

use tillgate::sandbox::DEFAULT_SECRET;

use super::*;

/// The detail of the refusal of this body, as a reader of the JSON gets it.
async fn detail(sidecar: &Sidecar, body: &[u8], error: &str) -> String {
    let answer = sidecar.start(body.to_vec()).await;
    assert_eq!(answer.text("error"), error, "{answer:?}");
    answer.json()["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_detail_names_the_field_and_quotes_what_was_wrong() {
    let sidecar = Sidecar::with(&[
        ("start.max_amount", "5000"),
        ("redirect.allowed", r#"["https://shop.example"]"#),
    ]);
    for (body, error, says) in [
        (r#"{}"#, "invalid_amount", "amount is missing"),
        (r#"{"amount":null}"#, "invalid_amount", "amount is null"),
        (
            r#"{"amount":"1000"}"#,
            "invalid_amount",
            r#"amount is "1000""#,
        ),
        (r#"{"amount":10.5}"#, "invalid_amount", "amount is 10.5"),
        (r#"{"amount":1e3}"#, "invalid_amount", "amount is 1e3"),
        (r#"{"amount":-0}"#, "invalid_amount", "amount is -0"),
        (r#"{"amount":5001}"#, "invalid_amount", "amount is 5001"),
        (r#"{"amount":true}"#, "invalid_amount", "amount is true"),
        (r#"{"amount":[1]}"#, "invalid_amount", "amount is an array"),
        (r#"{"amount":{}}"#, "invalid_amount", "amount is an object"),
        (
            r#"{"amount":1,"ammount":2}"#,
            "unknown_field",
            r#"no field "ammount""#,
        ),
        (
            r#"{"amount":1,"redirect":7}"#,
            "redirect_not_allowed",
            "redirect is 7",
        ),
        (
            r#"{"amount":1,"redirect":"shop.example/a"}"#,
            "redirect_not_allowed",
            r#"redirect is "shop.example/a""#,
        ),
        (
            r#"{"amount":1,"redirect":"https://evil.example/a"}"#,
            "redirect_not_allowed",
            r#"redirect is "https://evil.example/a""#,
        ),
        (r#"{"amount": 1000,}"#, "invalid_json", "line 1 column 17"),
        ("{\"amount\":\n 1 2}", "invalid_json", "line 2 column 4"),
        ("{\"amount\":1", "invalid_json", "line 1 column 11"),
        (r#"{"amount":1,"amount":2}"#, "invalid_json", r#""amount""#),
        ("{\"amount\":1}x", "invalid_json", "line 1 column 13"),
    ] {
        let detail = detail(&sidecar, body.as_bytes(), error).await;
        assert!(detail.contains(says), "{body}: {detail}");
    }
    let not_text = detail(&sidecar, b"{\"amount\":\xff}", "invalid_json").await;
    assert!(not_text.contains("byte 10"), "{not_text}");
    assert_eq!(sidecar.gateway_starts(), 0);
}

#[tokio::test]
async fn what_a_detail_quotes_is_short_and_has_no_control_characters() {
    let sidecar = Sidecar::new();
    let long = "x".repeat(5000);
    for (body, error) in [
        (format!(r#"{{"amount":"{long}"}}"#), "invalid_amount"),
        (
            format!(r#"{{"amount":{}}}"#, "1".repeat(5000)),
            "invalid_amount",
        ),
        (format!(r#"{{"{long}":1}}"#), "unknown_field"),
        (format!(r#"{{"{long}":1,"{long}":1}}"#), "invalid_json"),
        (
            format!(r#"{{"amount":1,"redirect":"{long}"}}"#),
            "redirect_not_allowed",
        ),
    ] {
        let detail = detail(&sidecar, body.as_bytes(), error).await;
        assert!(detail.chars().count() < 300, "{error}: {detail}");
        assert!(detail.contains('\u{2026}'), "{error}: {detail}");
    }
    for odd in [
        r"\u0000",
        r"\r\n",
        r"\u001b[31m",
        r"\u007f",
        r"\u009b",
        r"\u202e",
        r"\u2028",
    ] {
        for (body, error) in [
            (format!(r#"{{"amount":"a{odd}b"}}"#), "invalid_amount"),
            (format!(r#"{{"a{odd}b":1}}"#), "unknown_field"),
            (
                format!(r#"{{"amount":1,"redirect":"a{odd}b"}}"#),
                "redirect_not_allowed",
            ),
        ] {
            let detail = detail(&sidecar, body.as_bytes(), error).await;
            let is_odd = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}');
            assert!(!detail.contains(is_odd), "{detail:?}");
            assert!(detail.contains("\"a\\"), "{detail}");
        }
    }
}

#[tokio::test]
async fn no_detail_repeats_the_secret() {
    let sidecar = Sidecar::new();
    let secret = DEFAULT_SECRET;
    // Cut where the quote ends, and as hex digits.
    let far = format!("{}{secret}", "-".repeat(60));
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    for value in [secret, &far, &hex] {
        for (body, error) in [
            (format!(r#"{{"amount":"{value}"}}"#), "invalid_amount"),
            (format!(r#"{{"{value}":1}}"#), "unknown_field"),
            (
                format!(r#"{{"Merchant_Secret":"{value}","amount":1}}"#),
                "unknown_field",
            ),
            (
                format!(r#"{{"merchant_secret":"{value}","amount":1}}"#),
                "secret_not_accepted",
            ),
            (format!(r#"{{"{value}":1,"{value}":1}}"#), "invalid_json"),
            (format!(r#"{{"merchant_secret":"{value}""#), "invalid_json"),
            (
                format!(r#"{{"amount":1,"redirect":"https://evil.example/?s={value}"}}"#),
                "redirect_not_allowed",
            ),
        ] {
            let detail = detail(&sidecar, body.as_bytes(), error).await;
            for part in [&secret[..6], &hex[..12]] {
                assert!(!detail.contains(part), "{body}: {detail}");
            }
        }
    }
}

#[tokio::test]
async fn a_detail_of_a_query_or_a_path_quotes_what_was_wrong_and_never_the_secret() {
    let sidecar = Sidecar::dev(&[]);
    let percent: String = DEFAULT_SECRET
        .bytes()
        .map(|byte| format!("%{byte:02x}"))
        .collect();
    for (path, says) in [
        ("/watch/a%20b", r#"It is "a%20b"."#.to_owned()),
        ("/watch/code?wait=2.5", r#"It is "2.5"."#.to_owned()),
        ("/payments?limit=ten", r#"It is "ten"."#.to_owned()),
        ("/payments?from=yesterday", r#"from is a time"#.to_owned()),
        (
            "/payments?from=yesterday",
            r#"It is "yesterday"."#.to_owned(),
        ),
        ("/payments?page=2", r#"It is "page"."#.to_owned()),
        ("/deliveries?after=x", r#"It is "x"."#.to_owned()),
        (
            &format!("/payments?status={DEFAULT_SECRET}"),
            r#"It is "[redacted]"."#.to_owned(),
        ),
        (
            &format!("/watch/code?wait={percent}"),
            r#"It is "[redacted]"."#.to_owned(),
        ),
        (
            &format!("/watch/%21{percent}"),
            r#"It is "%21[redacted]"."#.to_owned(),
        ),
        (
            &format!("/payments?status={}", "x".repeat(5000)),
            format!("It is \"{}\"\u{2026}.", "x".repeat(64)),
        ),
    ] {
        let answer = sidecar.api(crate::harness::get(path)).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(&says), "{path}: {detail}");
        assert!(!answer.body.contains(DEFAULT_SECRET), "{path}: {answer:?}");
    }
}

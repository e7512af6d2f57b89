//! Answers that refuse: the secret, the start, the pace.

use super::*;

#[tokio::test]
async fn a_gateway_refuses_the_secret_and_a_page_that_says_403_does_not() {
    let mut talk = Talk::new(&[]).await;
    let page = "<html><h1>403 Forbidden</h1>nginx</html>";
    for (name, bytes) in [
        ("401 as JSON", answer(401, r#"{"message":"m"}"#)),
        (
            "401 as a page",
            bare(401, "Content-Type: text/html\r\n", page),
        ),
        ("401 and nothing", bare(401, "", "")),
        ("403 as JSON", answer(403, r#"{"message":"m"}"#)),
        ("403 as an empty object", answer(403, "{}")),
        (
            "403 as JSON, badly written",
            json(403, b"\xef\xbb\xbf{\"message\":\"m\xfc\"}"),
        ),
        (
            "403 as JSON that is called something else",
            bare(403, "Content-Type: text/html\r\n", "{}"),
        ),
    ] {
        let started = talk.start(bytes.clone()).await;
        assert_eq!(
            told(&started),
            as_told(502, "gateway_refused_secret", "rejected"),
            "{name}: {started:?}"
        );
        let watched = talk.watch(bytes).await;
        assert_eq!(
            told(&watched),
            as_told(502, "gateway_refused_secret", ""),
            "{name}: {watched:?}"
        );
    }
    for (name, bytes) in [
        ("a page", bare(403, "Content-Type: text/html\r\n", page)),
        ("a page that is called JSON", answer(403, page)),
        ("a page without a type", bare(403, "", page)),
        ("nothing", bare(403, "", "")),
        (
            "a text",
            bare(403, "Content-Type: text/plain\r\n", "error code: 1020"),
        ),
        ("a list", answer(403, r#"[{"message":"m"}]"#)),
        ("a text as JSON", answer(403, r#""no""#)),
    ] {
        let started = talk.start(bytes.clone()).await;
        assert_eq!(
            told(&started),
            as_told(502, "gateway_bad_answer", "unknown"),
            "{name}: {started:?}"
        );
        let watched = talk.watch(bytes).await;
        assert_eq!(
            told(&watched),
            as_told(502, "gateway_bad_answer", ""),
            "{name}: {watched:?}"
        );
        for answer in [started, watched] {
            let detail = answer.text("detail");
            assert!(
                detail.contains("firewall or proxy in front of the gateway"),
                "{name}: {detail}"
            );
            assert_eq!(answer.json()["gateway_status"], 403, "{name}");
            assert!(!answer.body.contains("nginx"), "{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn what_the_gateway_says_of_a_refusal_is_found_wherever_it_stands() {
    let text = |status, body: &str| bare(status, "Content-Type: text/plain\r\n", body);
    let long = "a".repeat(300);
    let cases = [
        (
            "422 message",
            answer(422, r#"{"error":"no","message":"m"}"#),
            Some("m"),
        ),
        ("422 error", answer(422, r#"{"error":"m"}"#), Some("m")),
        (
            "422 detail",
            answer(422, r#"{"title":"no","detail":"m"}"#),
            Some("m"),
        ),
        (
            "422 one level down",
            answer(422, r#"{"error":{"code":7,"message":"m"}}"#),
            Some("m"),
        ),
        (
            "400 one level down in detail",
            answer(400, r#"{"detail":{"error":"m"}}"#),
            Some("m"),
        ),
        (
            "422 the first of errors",
            answer(
                422,
                r#"{"errors":[{"code":"7","detail":"m"},{"detail":"no"}]}"#,
            ),
            Some("m"),
        ),
        (
            "422 errors as texts",
            answer(422, r#"{"errors":["m","no"]}"#),
            Some("m"),
        ),
        (
            "422 errors by field",
            answer(422, r#"{"errors":{"amount":["m"]}}"#),
            Some("m"),
        ),
        (
            "422 errors by field, one each",
            answer(422, r#"{"errors":{"amount":"m"}}"#),
            Some("m"),
        ),
        ("400 a JSON text", answer(400, r#""m""#), Some("m")),
        ("400 text/plain", text(400, "m\r\n"), Some("m")),
        ("400 no type", bare(400, "", "m"), Some("m")),
        (
            "400 text/plain in Latin-1",
            bare(
                400,
                "Content-Type: text/plain; charset=iso-8859-1\r\n",
                b"Betrag ung\xfcltig",
            ),
            Some("Betrag ung\u{fffd}ltig"),
        ),
        (
            "422 control characters",
            answer(422, r#"{"message":"a\u0000b\u001b[1m\u009bc"}"#),
            Some("ab[1mc"),
        ),
        (
            "422 long",
            answer(422, &format!(r#"{{"errors":["{long}"]}}"#)),
            Some(&long[..200]),
        ),
        ("400 long text", text(400, &long), Some(&long[..200])),
        (
            "422 badly written",
            json(422, b"\xef\xbb\xbf{\"message\":\"no\",\"message\":\"m\"}"),
            Some("m"),
        ),
        ("422 an empty object", answer(422, "{}"), None),
        (
            "422 an empty message",
            answer(422, r#"{"message":" ","error":null,"errors":[]}"#),
            None,
        ),
        (
            "422 another kind of message",
            answer(422, r#"{"message":7,"error":{"message":{"message":"no"}}}"#),
            None,
        ),
        ("400 nothing", bare(400, "", ""), None),
        (
            "400 a page",
            bare(400, "Content-Type: text/html\r\n", "<p>no"),
            None,
        ),
        (
            "400 a page without a type",
            bare(400, "", "\n<!doctype html>no"),
            None,
        ),
        (
            "400 a text that is called a page",
            bare(400, "Content-Type: text/html\r\n", "no"),
            None,
        ),
    ];
    let talk = Talk::new(&[]).await;
    for (name, bytes, message) in cases {
        let answer = talk.start(bytes).await;
        assert_eq!(
            told(&answer),
            as_told(422, "gateway_rejected", "rejected"),
            "{name}: {answer:?}"
        );
        let problem = answer.json();
        assert_eq!(
            problem
                .get("gateway_message")
                .and_then(|said| said.as_str()),
            message,
            "{name}: {answer:?}"
        );
        // Nobody is sent to look for what is not there.
        assert_eq!(
            answer.text("detail").contains("gateway_message"),
            message.is_some(),
            "{name}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn the_patience_that_a_failing_gateway_asks_for_is_passed_on_within_a_bound() {
    let mut talk = Talk::new(&[]).await;
    let in_a_while = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(100);
    let in_a_while = in_a_while.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for (asked, least, most) in [
        ("7", 7, 7),
        ("0", 1, 1),
        ("300", 300, 300),
        ("86400", 300, 300),
        ("99999999999999999999", 300, 300),
        ("Fri, 01 Jan 2900 00:00:00 GMT", 300, 300),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 1, 1),
        // However slow this machine is.
        (&*in_a_while, 10, 100),
    ] {
        for (status, error) in [(503, "gateway_bad_answer"), (429, "gateway_busy")] {
            let bytes = answer_with(status, &format!("Retry-After: {asked}\r\n"), "{}");
            for answer in [talk.start(bytes.clone()).await, talk.watch(bytes).await] {
                assert_eq!(answer.text("error"), error, "{asked}: {answer:?}");
                let seconds: u64 = answer.header("retry-after").parse().expect("whole seconds");
                assert!(
                    (least..=most).contains(&seconds),
                    "{status} {asked}: {answer:?}"
                );
            }
        }
    }
    // What it does not ask for is not made up, and of other failures it means something else.
    for (status, header) in [
        (503, ""),
        (503, "Retry-After: soon\r\n"),
        (500, "Retry-After: 7\r\n"),
        (301, "Retry-After: 7\r\n"),
    ] {
        let bytes = answer_with(status, header, "{}");
        for answer in [talk.start(bytes.clone()).await, talk.watch(bytes).await] {
            assert_eq!(
                (answer.text("error"), answer.header("retry-after")),
                ("gateway_bad_answer", ""),
                "{status} {header}"
            );
        }
    }
}

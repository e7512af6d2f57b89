//! `POST /api/start_payment`: the guide's step 1, and what is refused before it.

use std::cell::RefCell;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tillgate::sandbox::{DEFAULT_SECRET, Options};
use tokio::time::sleep;

use crate::harness::{Answer, Sidecar, settles};

/// What the gateway got of this start, its secret redacted: the sandbox can be told to echo it.
async fn sent(sidecar: &Sidecar, body: &str) -> String {
    sidecar.faults(&["start:echo-secret"]);
    let answer = sidecar.start(body.to_owned()).await;
    assert_eq!(answer.status, 200, "{body}: {answer:?}");
    sidecar.faults(&[]);
    answer.json()["received"]
        .as_str()
        .expect("an echo")
        .to_owned()
}

/// Asserts that this was refused, with this word.
fn assert_refused(answer: &Answer, status: u16, word: &str, of: &str) {
    assert_eq!(
        (answer.status, answer.text("error")),
        (status, word),
        "{of}: {answer:?}"
    );
}

/// The refusals of bad bodies, and the nothing that the gateway heard of them.
async fn assert_all_refused(sidecar: &Sidecar, status: u16, word: &str, bodies: &[&[u8]]) {
    for body in bodies {
        let answer = sidecar.start(body.to_vec()).await;
        assert_refused(&answer, status, word, &String::from_utf8_lossy(body));
        assert_eq!(answer.text("outcome"), "not_sent");
    }
    assert_eq!(sidecar.gateway_starts(), 0, "{word}");
}

#[tokio::test]
async fn a_start_answers_what_the_gateway_said_and_where_the_payer_goes() {
    let sidecar = Sidecar::new();
    let answer = sidecar.start(r#"{"amount": 1000}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (code, watch_code) = (answer.text("code"), answer.text("watch_code"));
    let expected = format!(
        r#"{{"code":"{code}","message":"Payment started","watch_code":"{watch_code}","pay_url":"http://localhost:8081/pay/{code}"}}"#
    );
    assert_eq!(answer.body, expected);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(!answer.header("x-request-id").is_empty());
    assert_eq!(sidecar.gateway_starts(), 1);
    let watched = sidecar.watch(watch_code).await;
    assert_eq!(watched.text("status"), "created", "{watched:?}");
}

#[tokio::test]
async fn two_starts_are_two_payments() {
    let sidecar = Sidecar::new();
    let (first, second) = (sidecar.started().await, sidecar.started().await);
    assert_ne!(first.0, second.0);
    assert_ne!(first.1, second.1);
    assert_eq!(sidecar.gateway_starts(), 2);
}

#[tokio::test]
async fn fields_that_the_guide_does_not_know_reach_the_caller() {
    let sidecar = Sidecar::with(&[("gateway.max_response_bytes", "2097152")]);
    sidecar.faults(&["start:huge"]);
    let answer = sidecar.start(r#"{"amount": 1000}"#).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() > 1024 * 1024, "{}", answer.body.len());
    assert!(answer.text("padding").bytes().all(|byte| byte == b'x'));
    assert!(answer.text("pay_url").ends_with(answer.text("code")));
}

#[tokio::test]
async fn the_gateway_gets_the_secret_and_the_amount_and_nothing_else() {
    let sidecar = Sidecar::with(&[("redirect.allowed", r#"["https://shop.example"]"#)]);
    let bare = r#"{"merchant_secret":"[redacted]","amount":1000}"#;
    for body in [
        r#"{"amount": 1000}"#,
        " {\r\n\t\"amount\" : 1000 } \n",
        r#"{"\u0061mount":1000}"#,
        r#"{"redirect":"https://shop.example/thanks","amount":1000}"#,
        r#"{"amount":1000,"redirect":null}"#,
    ] {
        assert_eq!(sent(&sidecar, body).await, bare, "{body}");
    }
}

#[tokio::test]
async fn fields_that_the_operator_names_are_forwarded_digit_for_digit() {
    let sidecar = Sidecar::with(&[("start.forward_fields", r#"["note", "order"]"#)]);
    let body = r#"{"note": [1e2, 0.10, -0, 12345678901234567890123], "amount": 5, "order": {"b": null, "a": "\u00e9\""}}"#;
    let expected = r#"{"merchant_secret":"[redacted]","amount":5,"note":[1e2,0.10,-0,12345678901234567890123],"order":{"b":null,"a":"é\""}}"#;
    assert_eq!(sent(&sidecar, body).await, expected);
    let other = sidecar.start(r#"{"amount": 5, "notes": 1}"#).await;
    assert_refused(&other, 400, "unknown_field", "a field of another name");
    assert!(other.text("detail").contains("note, order"), "{other:?}");
    assert_eq!(sidecar.gateway_starts(), 1);
}

#[tokio::test]
async fn the_fields_that_tillgate_decides_about_cannot_be_forwarded() {
    for name in ["amount", "redirect", "merchant_secret"] {
        let settings = [("start.forward_fields", &*format!("[\"{name}\"]"))];
        let faults = tillgate::app::Sidecar::new(&settings, Options::default(), false)
            .err()
            .expect(name);
        assert!(
            faults
                .iter()
                .any(|fault| fault.contains("start.forward_fields")),
            "{faults:?}"
        );
    }
}

#[tokio::test]
async fn amounts_keep_their_last_digit_on_the_whole_way() {
    for amount in ["1", "1000", "9007199254740991"] {
        let sidecar = Sidecar::new();
        let body = format!("{{\"amount\":{amount}}}");
        assert_eq!(
            sent(&sidecar, &body).await,
            format!(r#"{{"merchant_secret":"[redacted]","amount":{amount}}}"#)
        );
        let started = sidecar.start(body).await;
        let watched = sidecar.watch(started.text("watch_code")).await;
        assert!(
            watched.body.contains(&format!(r#""amount":{amount},"#)),
            "{watched:?}"
        );
    }
}

#[tokio::test]
async fn the_bounds_of_an_amount_are_the_operators() {
    let sidecar = Sidecar::with(&[
        ("start.min_amount", "100"),
        ("start.max_amount", "9007199254740993"),
    ]);
    assert_all_refused(
        &sidecar,
        422,
        "invalid_amount",
        &[
            br#"{"amount":99}"#,
            br#"{"amount":1}"#,
            br#"{"amount":9007199254740994}"#,
        ],
    )
    .await;
    for amount in ["100", "9007199254740993"] {
        let expected = format!(r#"{{"merchant_secret":"[redacted]","amount":{amount}}}"#);
        assert_eq!(
            sent(&sidecar, &format!("{{\"amount\":{amount}}}")).await,
            expected
        );
    }
}

#[tokio::test]
async fn the_pay_url_brings_the_payer_back_where_the_start_says() {
    let sidecar = Sidecar::with(&[(
        "redirect.allowed",
        r#"["https://shop.example", "http://localhost:3000"]"#,
    )]);
    for (redirect, encoded) in [
        ("https://shop.example", "https%3A%2F%2Fshop.example%2F"),
        (
            "https://shop.example/thanks",
            "https%3A%2F%2Fshop.example%2Fthanks",
        ),
        (
            "https://shop.example/a?order=1&x=%20y+z#done",
            "https%3A%2F%2Fshop.example%2Fa%3Forder%3D1%26x%3D%2520y%2Bz%23done",
        ),
        (
            "HTTPS://SHOP.example:443/a/../b/./c",
            "https%3A%2F%2Fshop.example%2Fb%2Fc",
        ),
        (
            "https://shop.example/dankesch\u{f6}n",
            "https%3A%2F%2Fshop.example%2Fdankesch%25C3%25B6n",
        ),
        (
            "http://localhost:3000/back?~-._",
            "http%3A%2F%2Flocalhost%3A3000%2Fback%3F~-._",
        ),
    ] {
        let answer = sidecar
            .start(format!("{{\"amount\":1000,\"redirect\":\"{redirect}\"}}"))
            .await;
        assert_eq!(answer.status, 200, "{redirect}: {answer:?}");
        let expected = format!(
            "http://localhost:8081/pay/{}?redirect={encoded}",
            answer.text("code")
        );
        assert_eq!(answer.text("pay_url"), expected, "{redirect}");
    }
    for body in [r#"{"amount":1000}"#, r#"{"amount":1000,"redirect":null}"#] {
        let answer = sidecar.start(body).await;
        let expected = format!("http://localhost:8081/pay/{}", answer.text("code"));
        assert_eq!(answer.text("pay_url"), expected, "{body}");
    }
}

#[tokio::test]
async fn a_start_that_names_no_place_uses_the_default_and_the_default_allows_its_origin() {
    let sidecar = Sidecar::with(&[("redirect.default", "https://shop.example/thanks?from=pay")]);
    for body in [r#"{"amount":1000}"#, r#"{"amount":1000,"redirect":null}"#] {
        let answer = sidecar.start(body).await;
        let expected = "?redirect=https%3A%2F%2Fshop.example%2Fthanks%3Ffrom%3Dpay";
        assert!(answer.text("pay_url").ends_with(expected), "{answer:?}");
    }
    let named = sidecar
        .start(r#"{"amount":1000,"redirect":"https://shop.example/other"}"#)
        .await;
    assert!(
        named
            .text("pay_url")
            .ends_with("?redirect=https%3A%2F%2Fshop.example%2Fother"),
        "{named:?}"
    );
    let foreign = sidecar
        .start(r#"{"amount":1000,"redirect":"https://shop.example:444/thanks"}"#)
        .await;
    assert_refused(&foreign, 422, "redirect_not_allowed", "another port");
}

#[tokio::test]
async fn payers_are_sent_to_the_public_url_where_there_is_one() {
    for (public_url, base) in [
        ("https://pay.example", "https://pay.example"),
        ("https://pay.example/", "https://pay.example"),
        ("https://pay.example/base/", "https://pay.example/base"),
    ] {
        let sidecar = Sidecar::with(&[
            ("gateway.public_url", public_url),
            ("gateway.url", "http://localhost:8081/"),
        ]);
        let answer = sidecar.start(r#"{"amount":1000}"#).await;
        assert_eq!(
            answer.text("pay_url"),
            format!("{base}/pay/{}", answer.text("code"))
        );
    }
}

#[tokio::test]
async fn redirects_are_compared_by_origin_and_by_whole_segments() {
    let sidecar = Sidecar::with(&[
        (
            "redirect.allowed",
            r#"["https://shop.example/back", "https://other.example:8443"]"#,
        ),
        ("start.burst", "1000"),
    ]);
    for refused in [
        "https://shop.example/",
        "https://shop.example/backdoor",
        "https://shop.example/back/../admin",
        "https://shop.example/back/%2e%2e/admin",
        "https://shop.example/Back",
        "http://shop.example/back",
        "https://shop.example:8443/back",
        "https://shop.example.evil.example/back",
        "https://evil.example/?https://shop.example/back",
        "https://shop.example./back",
        "https://other.example/",
        "http://localhost/back",
        "https://shop.example@evil.example/back",
        "https://shop.example:pw@shop.example/back",
        "https://@shop.example/back",
        r"https://evil.example\\@shop.example/back",
        r"https:\\\\shop.example\\back",
        r"https://shop.example/back\n",
        r"https://shop.example/back\u0000",
        r"https://shop.example/back\u0085",
        r"https://shop.example/back\u2028",
        " https://shop.example/back",
        "https://shop.example/ba ck",
        "",
        "/back",
        "back",
        "//shop.example/back",
        "https:/shop.example/back",
        "https:///shop.example/back",
        "https:shop.example/back",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://shop.example/back",
        "https://",
    ] {
        let answer = sidecar
            .start(format!("{{\"amount\":1000,\"redirect\":\"{refused}\"}}"))
            .await;
        assert_refused(&answer, 422, "redirect_not_allowed", refused);
    }
    for no_text in ["1", "true", "[]", r#"["https://shop.example/back"]"#, "{}"] {
        let answer = sidecar
            .start(format!("{{\"amount\":1000,\"redirect\":{no_text}}}"))
            .await;
        assert_refused(&answer, 422, "redirect_not_allowed", no_text);
    }
    assert_eq!(sidecar.gateway_starts(), 0);
    for allowed in [
        "https://shop.example/back",
        "https://shop.example/back/",
        "https://shop.example/back/1/2?a=/../x",
        "https://shop.example/back?x=1",
        "https://shop.example/back#x",
        "https://shop.example/x/../back",
        r"https:\/\/shop.example\/back",
        "https://OTHER.example:8443/anything",
    ] {
        let answer = sidecar
            .start(format!("{{\"amount\":1000,\"redirect\":\"{allowed}\"}}"))
            .await;
        assert_eq!(answer.status, 200, "{allowed}: {answer:?}");
    }
}

#[tokio::test]
async fn without_an_allowed_redirect_none_is_taken() {
    let sidecar = Sidecar::new();
    for redirect in [
        "http://localhost/",
        "http://localhost:8081/",
        "https://shop.example",
    ] {
        let answer = sidecar
            .start(format!("{{\"amount\":1000,\"redirect\":\"{redirect}\"}}"))
            .await;
        assert_refused(&answer, 422, "redirect_not_allowed", redirect);
        assert!(
            answer.text("detail").contains("redirect.allowed"),
            "{answer:?}"
        );
    }
    assert_eq!(sidecar.gateway_starts(), 0);
}

#[tokio::test]
async fn a_body_that_is_not_one_strict_json_object_is_refused() {
    let sidecar = Sidecar::new();
    let deep = format!(
        "{{\"amount\":1000,\"x\":{}{}}}",
        "[".repeat(16),
        "]".repeat(16)
    );
    let very_deep = format!("{{\"amount\":1000,\"x\":{}", "[".repeat(8000));
    let bodies: &[&[u8]] = &[
        b"",
        b" \r\n\t",
        b"\xef\xbb\xbf{\"amount\":1000}",
        b"null",
        b"true",
        b"1000",
        b"\"amount\"",
        b"[]",
        br#"[{"amount":1000}]"#,
        b"{",
        br#"{"amount":1000"#,
        br#"{"amount":1000}}"#,
        br#"{"amount":1000} {}"#,
        br#"{"amount":1000},"#,
        b"{\"amount\":1000}\0",
        br#"{"amount":1000,}"#,
        br#"{'amount':1000}"#,
        br#"{amount:1000}"#,
        br#"{"amount":1000} // all of it"#,
        br#"{"amount":01000}"#,
        br#"{"amount":+1000}"#,
        br#"{"amount":.5}"#,
        br#"{"amount":1000.}"#,
        br#"{"amount":0x3e8}"#,
        br#"{"amount":NaN}"#,
        br#"{"amount":Infinity}"#,
        br#"{"amount":1000,"amount":1000}"#,
        br#"{"amount":1000,"\u0061mount":2000}"#,
        br#"{"amount":1000,"x":{"a":1,"\u0061":1}}"#,
        br#"{"amount":1000,"x":[{"a":1,"a":1}]}"#,
        b"{\"amount\":1000,\"x\":\"\xff\"}",
        b"{\"amount\":1000,\"x\":\"\xc0\xaf\"}",
        b"{\"amount\":1000,\"x\":\"a\nb\"}",
        br#"{"amount":1000,"x":"\ud800"}"#,
        br#"{"amount":1000,"x":"\x41"}"#,
        b"{\0\"\0a\0\"\0:\x001\0}\0",
        b"amount=1000",
        deep.as_bytes(),
        very_deep.as_bytes(),
    ];
    assert_all_refused(&sidecar, 400, "invalid_json", bodies).await;
    let just_deep_enough = format!(
        "{{\"amount\":1000,\"x\":{}{}}}",
        "[".repeat(15),
        "]".repeat(15)
    );
    assert_all_refused(
        &sidecar,
        400,
        "unknown_field",
        &[just_deep_enough.as_bytes()],
    )
    .await;
}

#[tokio::test]
async fn an_app_that_sends_a_secret_is_told_to_leave_it_out() {
    let sidecar = Sidecar::with(&[("start.forward_fields", r#"["note"]"#)]);
    let real = format!("{{\"merchant_secret\":\"{DEFAULT_SECRET}\",\"amount\":1000}}");
    let bodies: &[&[u8]] = &[
        br#"{"merchant_secret":"your_token_here","amount":1000}"#,
        br#"{"amount":1000,"merchant_secret":null}"#,
        br#"{"amount":1000,"merchant_secret":{}}"#,
        br#"{"amount":1000,"\u006derchant_secret":"x"}"#,
        br#"{"amount":1000,"merchant\u005Fsecret":"x"}"#,
        real.as_bytes(),
    ];
    assert_all_refused(&sidecar, 400, "secret_not_accepted", bodies).await;
}

#[tokio::test]
async fn a_field_that_nobody_asked_for_is_refused() {
    let sidecar = Sidecar::new();
    let bodies: &[&[u8]] = &[
        br#"{"amount":1000,"currency":"EUR"}"#,
        br#"{"amount":1000,"Amount":1000}"#,
        br#"{"amount":1000,"amount ":1000}"#,
        br#"{"amount":1000,"":null}"#,
        br#"{"amount":1000,"MERCHANT_SECRET":"x"}"#,
        br#"{"amount":1000,"redirect_url":"https://shop.example"}"#,
        br#"{"unknown":null}"#,
    ];
    assert_all_refused(&sidecar, 400, "unknown_field", bodies).await;
}

#[tokio::test]
async fn an_amount_is_an_integer_literal_within_bounds() {
    let sidecar = Sidecar::new();
    let bodies: &[&[u8]] = &[
        b"{}",
        br#"{"amount":null}"#,
        br#"{"amount":true}"#,
        br#"{"amount":"1000"}"#,
        br#"{"amount":""}"#,
        br#"{"amount":[1000]}"#,
        br#"{"amount":{"amount":1000}}"#,
        br#"{"amount":1000.0}"#,
        br#"{"amount":1000.5}"#,
        br#"{"amount":1e3}"#,
        br#"{"amount":1E3}"#,
        br#"{"amount":1000e0}"#,
        br#"{"amount":1e400}"#,
        br#"{"amount":0}"#,
        br#"{"amount":-0}"#,
        br#"{"amount":-1}"#,
        br#"{"amount":-1000}"#,
        br#"{"amount":9007199254740992}"#,
        br#"{"amount":18446744073709551616}"#,
        br#"{"amount":18446744073709552616}"#,
        br#"{"amount":100000000000000000000000000000000000000}"#,
        br#"{"redirect":null}"#,
    ];
    assert_all_refused(&sidecar, 422, "invalid_amount", bodies).await;
    let answer = sidecar.start("{}").await;
    assert!(
        answer.text("detail").contains("start.min_amount"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn of_several_faults_the_first_in_the_contracts_order_is_told() {
    let sidecar = Sidecar::new();
    for (status, word, body) in [
        (
            400,
            "invalid_json",
            r#"{"merchant_secret":"x","merchant_secret":"x","foo":1}"#,
        ),
        (
            400,
            "invalid_json",
            r#"{"merchant_secret":"x","foo":1,"amount":"x"} x"#,
        ),
        (
            400,
            "secret_not_accepted",
            r#"{"redirect":"x","amount":"x","foo":1,"merchant_secret":"x"}"#,
        ),
        (
            400,
            "unknown_field",
            r#"{"redirect":"x","amount":"x","foo":1}"#,
        ),
        (
            422,
            "invalid_amount",
            r#"{"redirect":"javascript:x","amount":"x"}"#,
        ),
        (
            422,
            "redirect_not_allowed",
            r#"{"redirect":"javascript:x","amount":1}"#,
        ),
    ] {
        assert_all_refused(&sidecar, status, word, &[body.as_bytes()]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_body_takes_nobodys_turn() {
    let sidecar = Sidecar::with(&[
        ("start.rate", "0.001"),
        ("start.burst", "1"),
        ("start.queue_for", "1ms"),
    ]);
    for body in [
        "",
        r#"{"merchant_secret":"x"}"#,
        r#"{"x":1}"#,
        "{}",
        r#"{"amount":1,"redirect":""}"#,
    ] {
        for _ in 0..5 {
            let answer = sidecar.start(body).await;
            assert!(matches!(answer.status, 400 | 422), "{body}: {answer:?}");
        }
    }
    sidecar.started().await;
    let over = sidecar.start(r#"{"amount":1000}"#).await;
    assert_refused(&over, 429, "rate_limited", "the second good one");
    assert_eq!(sidecar.gateway_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn over_the_burst_starts_queue_in_their_order_and_no_longer_than_they_may() {
    let sidecar = Sidecar::with(&[
        ("start.rate", "1"),
        ("start.burst", "2"),
        ("start.queue_for", "3500ms"),
    ]);
    let order = RefCell::new(Vec::new());
    let all = join_all((0..9).map(|i| {
        let (sidecar, order) = (&sidecar, &order);
        async move {
            let answer = sidecar.start(r#"{"amount":1000}"#).await;
            order.borrow_mut().push((i, answer.status));
            answer
        }
    }));
    let answers = all.await;
    // Two at once, and one a second for three and a half seconds.
    let started: Vec<_> = order
        .borrow()
        .iter()
        .filter(|(_, status)| *status == 200)
        .map(|(i, _)| *i)
        .collect();
    assert_eq!(started, [0, 1, 2, 3, 4]);
    assert_eq!(sidecar.gateway_starts(), 5);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_refused(answer, 429, "rate_limited", "over the queue");
        assert_eq!(answer.text("outcome"), "not_sent");
        let seconds: u64 = answer.header("retry-after").parse().expect("whole seconds");
        assert!(seconds >= 1);
    }
    assert!(sidecar.metric("tillgate_rate_limited_total").await >= 4);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_after_retry_after_gets_a_turn() {
    for rate in ["0.4", "3", "0.01"] {
        let sidecar = Sidecar::with(&[
            ("start.rate", rate),
            ("start.burst", "1"),
            ("start.queue_for", "100ms"),
        ]);
        sidecar.started().await;
        let refused = sidecar.start(r#"{"amount":1000}"#).await;
        assert_refused(&refused, 429, "rate_limited", rate);
        sleep(Duration::from_secs(
            refused
                .header("retry-after")
                .parse()
                .expect("whole seconds"),
        ))
        .await;
        sidecar.started().await;
        assert_eq!(sidecar.gateway_starts(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_a_start_over_the_burst_is_refused_at_once() {
    for (rate, retry_after) in [("0.4", "3"), ("1000", "1")] {
        let sidecar = Sidecar::with(&[
            ("start.rate", rate),
            ("start.burst", "2"),
            ("start.queue_for", "0s"),
        ]);
        sidecar.started().await;
        sidecar.started().await;
        let began = tokio::time::Instant::now();
        let refused = join_all((0..3).map(|_| sidecar.start(r#"{"amount":1000}"#))).await;
        assert!(began.elapsed() < Duration::from_millis(10));
        for refused in refused {
            assert_refused(&refused, 429, "rate_limited", rate);
            assert_eq!(refused.header("retry-after"), retry_after, "{rate}");
        }
        sleep(Duration::from_secs(3)).await;
        sidecar.started().await;
        assert_eq!(sidecar.gateway_starts(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn the_burst_fills_up_again() {
    let sidecar = Sidecar::with(&[
        ("start.rate", "2"),
        ("start.burst", "3"),
        ("start.queue_for", "1ms"),
    ]);
    for _ in 0..3 {
        for _ in 0..3 {
            sidecar.started().await;
        }
        assert_eq!(sidecar.start(r#"{"amount":1000}"#).await.status, 429);
        sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(sidecar.gateway_starts(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_hangs_up_causes_no_second_payment_and_loses_none() {
    let sidecar = Sidecar::new();
    sidecar.faults(&["start:delay=3s"]);
    let mut start = Box::pin(sidecar.start(r#"{"amount":1000}"#));
    assert!((&mut start).now_or_never().is_none());
    settles(|| sidecar.gateway_starts() == 1).await;
    drop(start);
    sidecar.idle().await;
    assert_eq!(sidecar.gateway_starts(), 1);
    assert_eq!(
        sidecar
            .metric("tillgate_starts_total{outcome=\"accepted\"}")
            .await,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_hangs_up_in_the_queue_still_has_the_payment_started() {
    let sidecar = Sidecar::with(&[("start.rate", "1"), ("start.burst", "1")]);
    sidecar.started().await;
    let mut start = Box::pin(sidecar.start(r#"{"amount":1000}"#));
    assert!((&mut start).now_or_never().is_none());
    drop(start);
    assert_eq!(sidecar.gateway_starts(), 1);
    sidecar.idle().await;
    assert_eq!(sidecar.gateway_starts(), 2);
    assert_eq!(
        sidecar
            .metric("tillgate_starts_total{outcome=\"accepted\"}")
            .await,
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_bytes_have_left_is_never_sent_again() {
    for fault in [
        "reset",
        "reset,delay=1s",
        "truncate",
        "hang",
        "delay=11s",
        "redirect",
        "huge",
        "not-json",
        "encoded",
        "missing-field",
        "bad-code",
        "status=500",
        "status=503,retry-after=1",
        "status=429,retry-after=1",
        "status=408",
        "status=401",
        "status=403",
        "status=400",
    ] {
        let sidecar = Sidecar::with(&[("gateway.retries", "5")]);
        sidecar.faults(&[&format!("start:{fault}")]);
        let answer = sidecar.start(r#"{"amount":1000}"#).await;
        assert!(answer.status >= 400, "{fault}: {answer:?}");
        assert!(
            matches!(answer.text("outcome"), "unknown" | "rejected"),
            "{fault}: {answer:?}"
        );
        sidecar.idle().await;
        assert_eq!(sidecar.gateway_starts(), 1, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_next_start_is_as_good_as_any() {
    let sidecar = Sidecar::new();
    sidecar.faults(&[
        "start:reset,count=1",
        "start:hang,count=1",
        "start:status=500,count=1",
    ]);
    for _ in 0..3 {
        assert!(sidecar.start(r#"{"amount":1000}"#).await.status >= 500);
    }
    sidecar.started().await;
    assert_eq!(sidecar.gateway_starts(), 4);
}

#[tokio::test]
async fn a_secret_that_the_gateway_refuses_is_the_operators_matter() {
    let gateway = Options {
        secret: "another_secret_than_ours".to_owned(),
        ..Options::default()
    };
    let sidecar = Sidecar::before(gateway, &[]);
    let answer = sidecar.start(r#"{"amount":1000}"#).await;
    assert_refused(&answer, 502, "gateway_refused_secret", "a wrong secret");
    assert_eq!(answer.text("outcome"), "rejected");
    assert_eq!(answer.text("gateway_message"), "Invalid merchant secret");
    assert!(
        answer.text("detail").contains("merchant.secret_file"),
        "{answer:?}"
    );
    assert_eq!(sidecar.gateway_starts(), 1);
}

//! `Idempotency-Key`: one key, one payment, one answer.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::{Method, Request};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::json;
use tillgate::sandbox::{DEFAULT_SECRET, Options};
use tokio::time::sleep;

use crate::harness::{Answer, ORDER, Program, Sidecar, Wire, call, calls, post, settles, until};
use crate::paused::MANY;

/// Starts as many as a test wants.
/// One start, and then none for a long time.
const ONE: [(&str, &str); 3] = [
    ("start.rate", "0.001"),
    ("start.burst", "1"),
    ("start.queue_for", "1ms"),
];

fn request(key: impl AsRef<[u8]>, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = post("/api/start_payment", body);
    request.headers_mut().insert(
        "idempotency-key",
        HeaderValue::from_bytes(key.as_ref()).unwrap(),
    );
    request
}

pub async fn start(sidecar: &Sidecar, key: impl AsRef<[u8]>, body: impl Into<Bytes>) -> Answer {
    sidecar.api(request(key, body)).await
}

fn is_replayed(answer: &Answer) -> bool {
    let replayed: Vec<_> = answer
        .headers
        .get_all("idempotency-replayed")
        .iter()
        .collect();
    assert!(replayed.is_empty() || replayed == ["true"], "{answer:?}");
    !replayed.is_empty()
}

/// Asserts that this is the first answer under its key.
#[track_caller]
fn assert_first(answer: &Answer) {
    assert_eq!(
        (answer.status, is_replayed(answer)),
        (200, false),
        "{answer:?}"
    );
}

/// Asserts that this is the same answer again.
#[track_caller]
fn assert_replay(answer: &Answer, first: &Answer) {
    assert_eq!(
        (answer.status, is_replayed(answer)),
        (200, true),
        "{answer:?}"
    );
    assert_eq!(answer.body, first.body);
    assert_eq!(answer.header("content-type"), first.header("content-type"));
    assert_eq!(answer.header("cache-control"), "no-store");
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, word: &str) {
    assert_eq!(
        (answer.status, answer.text("error")),
        (status, word),
        "{answer:?}"
    );
    assert!(!is_replayed(answer), "{answer:?}");
}

/// A start that was not sent, because the key stands for another one.
#[track_caller]
fn assert_mismatch(answer: &Answer) {
    assert_refused(answer, 422, "idempotency_mismatch");
    let problem = answer.json();
    assert_eq!(
        (&problem["outcome"], &problem["source"]),
        (&"not_sent".into(), &"sidecar".into()),
        "{answer:?}"
    );
    assert_eq!(problem["retryable"], false, "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn two_hundred_starts_at_once_with_one_key_are_one_payment() {
    let sidecar = Sidecar::with(&ONE);
    sidecar.faults(&["start:delay=3s"]);
    let answers = join_all((0..200).map(|_| start(&sidecar, "order-1", ORDER))).await;
    assert_eq!(sidecar.gateway_starts(), 1);
    let first: Vec<_> = answers
        .iter()
        .filter(|answer| !is_replayed(answer))
        .collect();
    assert_eq!(first.len(), 1);
    assert_first(first[0]);
    answers
        .iter()
        .filter(|answer| is_replayed(answer))
        .for_each(|answer| assert_replay(answer, first[0]));
    assert_replay(&start(&sidecar, "order-1", ORDER).await, first[0]);
    assert_eq!(sidecar.gateway_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn replays_take_no_turn_and_count_as_no_start() {
    let sidecar = Sidecar::with(&[("start.rate", "1"), ("start.burst", "1")]);
    let first = start(&sidecar, "order-1", ORDER).await;
    assert_first(&first);
    let began = tokio::time::Instant::now();
    for answer in join_all((0..5).map(|_| start(&sidecar, "order-1", ORDER))).await {
        assert_replay(&answer, &first);
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody queued");
    // The turn that comes after a second is still there for somebody else.
    sleep(Duration::from_secs(1)).await;
    let began = tokio::time::Instant::now();
    sidecar.started().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    let accepted = r#"tillgate_starts_total{outcome="accepted"}"#;
    assert_eq!(sidecar.metric(accepted).await, 2);
    assert_eq!(sidecar.metric("tillgate_rate_limited_total").await, 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_key_every_start_is_another_payment() {
    let sidecar = Sidecar::new();
    let first = start(&sidecar, "order-1", ORDER).await;
    let bare = sidecar.start(ORDER).await;
    assert_first(&bare);
    assert_ne!(bare.text("code"), first.text("code"));
    let other = start(&sidecar, "order-2", ORDER).await;
    assert_first(&other);
    assert_ne!(other.text("code"), first.text("code"));
    assert_eq!(sidecar.gateway_starts(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_same_key_with_another_request_is_a_mismatch_also_while_the_first_still_runs() {
    let first = r#"{"amount":1000,"redirect":"https://shop.example/a","note":{"x":[1,2]}}"#;
    let others = [
        r#"{"amount":1001,"redirect":"https://shop.example/a","note":{"x":[1,2]}}"#,
        r#"{"amount":1000,"redirect":"https://shop.example/a","note":{"x":[1,2]},"reference":"7"}"#,
        r#"{"amount":1000,"redirect":"https://shop.example/a","note":{"x":[2,1]}}"#,
        r#"{"amount":1000,"redirect":"https://shop.example/a","note":{"x":["1",2]}}"#,
        r#"{"amount":1000,"redirect":"https://shop.example/a","note":{"x":[1,2],"y":null}}"#,
        r#"{"amount":1000,"redirect":"https://shop.example/a","note":null}"#,
        r#"{"amount":1000,"redirect":"https://shop.example/a"}"#,
        r#"{"amount":1000,"redirect":"https://shop.example/a","order":{"x":[1,2]}}"#,
        r#"{"amount":1000,"redirect":"https://shop.example/a","note":{"x":[1,2]},"order":1}"#,
    ];
    let settings = [
        ("redirect.allowed", r#"["https://shop.example"]"#),
        ("start.forward_fields", r#"["note","order"]"#),
    ];
    let sidecar = Sidecar::with(&settings);
    sidecar.faults(&["start:delay=3s"]);
    let mut running = Box::pin(start(&sidecar, "order-1", first));
    assert!((&mut running).now_or_never().is_none());
    for other in others {
        let answer = start(&sidecar, "order-1", other)
            .now_or_never()
            .expect("at once");
        assert_mismatch(&answer);
    }
    let answer = running.await;
    assert_first(&answer);
    for other in others {
        assert_mismatch(&start(&sidecar, "order-1", other).await);
    }
    assert_eq!(sidecar.gateway_starts(), 1);
    // It took nothing from the one that is right.
    assert_replay(&start(&sidecar, "order-1", first).await, &answer);
    let refused = r#"tillgate_refused_total{error="idempotency_mismatch"}"#;
    assert_eq!(sidecar.metric(refused).await, 18);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_the_same_by_its_meaning_not_by_its_bytes() {
    let settings = [
        ("redirect.allowed", r#"["https://shop.example"]"#),
        ("start.forward_fields", r#"["note","order"]"#),
    ];
    let sidecar = Sidecar::with(&settings);
    let groups: [&[&str]; 3] = [
        &[
            r#"{"amount":1000,"redirect":"https://shop.example/a","note":{"x":1,"y":["é"]},"order":"A"}"#,
            r#"{"order":"A","note":{"y":["\u00e9"],"x":1},"redirect":"https://shop.example/a","amount":1000}"#,
            " {\r\n\t\"amount\" : 1000 , \"redirect\":\"https://shop.example/a\", \"note\":{ \"x\":1,\"y\":[ \"é\" ]},\"order\":\"\\u0041\"}\n",
            r#"{"\u0061mount":1000,"redirect":"https:\/\/shop.example\/a","note":{"x":1,"y":["é"]},"order":"A"}"#,
            r#"{"amount":1000,"redirect":"HTTPS://SHOP.example:443/a","note":{"x":1,"y":["é"]},"order":"A"}"#,
            r#"{"amount":1000,"redirect":"https://shop.example/b/../a","note":{"x":1,"y":["é"]},"order":"A"}"#,
            r#"{"amount":1000,"redirect":"https://shop.example/./a","note":{"x":1,"y":["é"]},"order":"A"}"#,
        ],
        &[
            r#"{"amount":7}"#,
            r#"{"amount":7,"redirect":null}"#,
            r#"{"redirect":null,"\u0061moun\u0074":7}"#,
        ],
        &[
            r#"{"amount":7,"redirect":"https://shop.example"}"#,
            r#"{"amount":7,"redirect":"https://shop.example/"}"#,
        ],
    ];
    for (i, group) in groups.into_iter().enumerate() {
        let key = format!("order-{i}");
        let first = start(&sidecar, &key, group[0]).await;
        assert_first(&first);
        for body in group {
            assert_replay(&start(&sidecar, &key, *body).await, &first);
        }
    }
    assert_eq!(sidecar.gateway_starts(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_default_redirect_that_is_named_is_the_same_as_one_that_is_not() {
    let sidecar = Sidecar::with(&[("redirect.default", "https://shop.example/thanks")]);
    let first = start(&sidecar, "order-1", ORDER).await;
    assert_first(&first);
    let named = r#"{"amount":1000,"redirect":"https://shop.example/thanks"}"#;
    assert_replay(&start(&sidecar, "order-1", named).await, &first);
}

/// The gateway never sees the redirect, so it makes no other payment: each caller is led back to its own page.
#[tokio::test(start_paused = true)]
async fn another_redirect_is_the_same_start_and_each_answer_leads_to_its_own() {
    let settings = [
        ("redirect.allowed", r#"["https://shop.example"]"#),
        ("redirect.default", "https://shop.example/thanks"),
    ];
    let sidecar = Sidecar::with(&settings);
    sidecar.faults(&["start:delay=3s"]);
    let redirects = ["https://shop.example/a", "https://shop.example/b?nonce=1"];
    let start = async |redirect: &str| {
        let body = json!({ "amount": 1000, "redirect": redirect }).to_string();
        start(&sidecar, "order-1", body).await
    };
    // While the first one runs, and afterwards.
    let (one, other) = tokio::join!(start(redirects[0]), start(redirects[1]));
    let again = start("https://shop.example/thanks").await;
    for (answer, redirect) in [
        (&one, "%2Fa"),
        (&other, "%2Fb%3Fnonce%3D1"),
        (&again, "%2Fthanks"),
    ] {
        let pay_url = answer.text("pay_url");
        assert!(
            pay_url.ends_with(&format!("redirect=https%3A%2F%2Fshop.example{redirect}")),
            "{pay_url}"
        );
        assert_eq!(answer.text("code"), one.text("code"));
    }
    assert!(is_replayed(&again));
    assert_eq!(sidecar.gateway_starts(), 1);
}

/// A key that a broken program makes would give one customer's page to the next.
#[tokio::test(start_paused = true)]
async fn a_key_that_a_broken_program_sends_is_refused() {
    let sidecar = Sidecar::with(&MANY);
    for key in [
        "undefined",
        "null",
        "None",
        "NaN",
        "[object Object]",
        "order-undefined",
        "order-null",
        "cart:None",
        "a/b.NaN",
        "shop_[object Object]",
        "checkout-",
        "order_",
        "a:",
        "my/cart.",
        "\"order-null\"",
    ] {
        let answer = start(&sidecar, key, ORDER).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (400, "invalid_idempotency_key"),
            "{key}"
        );
    }
    for key in [
        "V1StGXR8_Z5jdHi6B-",
        "order-7",
        "nullable",
        "undefined1",
        "null-7",
        "order-Undefined",
        "Checkout-",
        "order-1-",
        "a-rather-long-key-",
        "NULL",
    ] {
        assert_first(&start(&sidecar, key, ORDER).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_in_quotes_and_its_text_alone_are_the_same_key() {
    let sidecar = Sidecar::with(&MANY);
    for (i, (bare, quoted)) in [
        ("order-1", r#""order-1""#),
        (
            "8e03978e-40d5-43dd-bc93-6894a57f9324",
            r#""8e03978e-40d5-43dd-bc93-6894a57f9324""#,
        ),
        ("a b;c=d, e", r#""a b;c=d, e""#),
        (r#"a"b"#, r#""a\"b""#),
        (r"a\b", r#""a\\b""#),
        ("~", r#""~""#),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!("{{\"amount\":{}}}", i + 1);
        let first = start(&sidecar, bare, body.clone()).await;
        assert_first(&first);
        assert_replay(&start(&sidecar, quoted, body).await, &first);
        assert_mismatch(&start(&sidecar, quoted, ORDER).await);
    }
    // Anything else is another key.
    let mut codes = HashSet::new();
    for other in [
        "Order-2",
        "order-2",
        "order-2.",
        "ORDER-2",
        "order 2",
        "order-02",
        "'order-2'",
        "order%2D2",
    ] {
        let answer = start(&sidecar, other, ORDER).await;
        assert_first(&answer);
        assert!(codes.insert(answer.text("code").to_owned()), "{other}");
    }
}

#[test]
fn whatever_the_text_of_a_key_its_two_forms_are_one_and_two_texts_are_two() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let sidecar = runtime.block_on(async { Sidecar::with(&MANY) });
    let seen = RefCell::new(HashSet::new());
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // No quote in front, which would be the other form; no space at the ends, which no header has; a digit, so that it is
    // not what a broken program sends.
    let text = "[!#-~]([ -~]{0,252}[!-~])?0";
    let run = TestRunner::new(config).run(&text, |text| {
        let quoted = format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""));
        let (first, second) = runtime.block_on(async {
            (
                start(&sidecar, &quoted, ORDER).await,
                start(&sidecar, &text, ORDER).await,
            )
        });
        prop_assert_eq!((first.status, second.status), (200, 200));
        prop_assert_eq!(is_replayed(&first), !seen.borrow_mut().insert(text));
        prop_assert!(is_replayed(&second));
        prop_assert_eq!(first.body, second.body);
        Ok(())
    });
    run.unwrap();
    assert_eq!(sidecar.gateway_starts(), seen.borrow().len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_key_has_1_to_255_printable_ascii_characters_in_one_line() {
    let sidecar = Sidecar::with(&ONE);
    let long = "k".repeat(256);
    let long_quoted = format!("\"{long}\"");
    let bad: [&[u8]; 18] = [
        b"",
        b"\"\"",
        b"\"",
        b"\"open",
        b"\"a\"b\"",
        b"\"a\"b",
        b"\"a\";b=1",
        b"\"a\", \"b\"",
        b"\"a\\\"",
        b"\"a\\x\"",
        b"\"a\\",
        b"a\tb",
        b"\"a\tb\"",
        "é".as_bytes(),
        "\"é\"".as_bytes(),
        b"\xff",
        long.as_bytes(),
        long_quoted.as_bytes(),
    ];
    for key in bad {
        let answer = start(&sidecar, key, ORDER).await;
        assert_refused(&answer, 400, "invalid_idempotency_key");
        assert_eq!(answer.text("outcome"), "not_sent", "{answer:?}");
        assert!(answer.text("detail").contains("255"), "{answer:?}");
    }
    for (first, second) in [("a", "b"), ("a", "a"), ("a", ""), ("", "a"), ("\"a\"", "a")] {
        let mut request = request(first, ORDER);
        request
            .headers_mut()
            .append("idempotency-key", second.parse().unwrap());
        assert_refused(&sidecar.api(request).await, 400, "invalid_idempotency_key");
    }
    assert_eq!(sidecar.gateway_starts(), 0);
    assert_eq!(
        sidecar
            .metric("tillgate_starts_total{outcome=\"not_sent\"}")
            .await,
        0,
        "no turn was asked for"
    );
    // The one turn is still there.
    let key = "k".repeat(255);
    let first = start(&sidecar, &key, ORDER).await;
    assert_first(&first);
    assert_replay(&start(&sidecar, format!("\"{key}\""), ORDER).await, &first);
}

#[tokio::test(start_paused = true)]
async fn a_bad_body_under_a_good_key_leaves_the_key_free() {
    let sidecar = Sidecar::new();
    for (status, word, body) in [
        (400, "invalid_json", "{"),
        (
            400,
            "secret_not_accepted",
            r#"{"amount":1000,"merchant_secret":"x"}"#,
        ),
        (400, "unknown_field", r#"{"amount":1000,"x":1}"#),
        (422, "invalid_amount", r#"{"amount":0}"#),
        (
            422,
            "redirect_not_allowed",
            r#"{"amount":1000,"redirect":"https://evil.example"}"#,
        ),
    ] {
        assert_refused(&start(&sidecar, "order-1", body).await, status, word);
    }
    let first = start(&sidecar, "order-1", ORDER).await;
    assert_first(&first);
    // And a bad body is bad also where the key is known.
    assert_refused(&start(&sidecar, "order-1", "{").await, 400, "invalid_json");
    assert_replay(&start(&sidecar, "order-1", ORDER).await, &first);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_and_comes_back_gets_the_first_payment() {
    let sidecar = Sidecar::with(&ONE);
    sidecar.faults(&["start:delay=3s"]);
    // While it still runs.
    let mut running = Box::pin(start(&sidecar, "order-1", ORDER));
    assert!((&mut running).now_or_never().is_none());
    settles(|| sidecar.gateway_starts() == 1).await;
    drop(running);
    let mut again = Box::pin(start(&sidecar, "order-1", ORDER));
    assert!((&mut again).now_or_never().is_none(), "it joins");
    let joined = again.await;
    assert_eq!(
        (joined.status, is_replayed(&joined)),
        (200, true),
        "{joined:?}"
    );
    // And when it is over.
    assert_replay(&start(&sidecar, "order-1", ORDER).await, &joined);
    assert_eq!(sidecar.gateway_starts(), 1);

    let sidecar = Sidecar::with(&ONE);
    sidecar.faults(&["start:delay=3s"]);
    assert!(start(&sidecar, "order-1", ORDER).now_or_never().is_none());
    sidecar.idle().await;
    let late = start(&sidecar, "order-1", ORDER).await;
    assert_eq!((late.status, is_replayed(&late)), (200, true), "{late:?}");
    assert_eq!(sidecar.gateway_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_in_the_queue_keeps_the_place() {
    let sidecar = Sidecar::with(&[("start.rate", "1"), ("start.burst", "1")]);
    sidecar.started().await;
    assert!(start(&sidecar, "order-1", ORDER).now_or_never().is_none());
    let mut answers = join_all((0..3).map(|_| start(&sidecar, "order-1", ORDER))).await;
    let first = answers.pop().unwrap();
    answers
        .iter()
        .for_each(|answer| assert_replay(answer, &first));
    assert_eq!(sidecar.gateway_starts(), 2);
}

#[tokio::test(start_paused = true)]
async fn after_any_failure_of_the_gateway_the_key_is_free_and_who_joined_is_told_too() {
    for (fault, status, word, outcome) in [
        ("reset", 502, "gateway_bad_answer", "unknown"),
        ("truncate", 502, "gateway_bad_answer", "unknown"),
        ("hang", 504, "gateway_timeout", "unknown"),
        ("delay=11s", 504, "gateway_timeout", "unknown"),
        ("redirect", 502, "gateway_bad_answer", "unknown"),
        ("huge", 502, "gateway_bad_answer", "unknown"),
        ("not-json", 502, "gateway_bad_answer", "unknown"),
        ("encoded", 502, "gateway_bad_answer", "unknown"),
        ("missing-field", 502, "gateway_bad_answer", "unknown"),
        ("bad-code", 502, "gateway_bad_answer", "unknown"),
        ("status=500", 502, "gateway_bad_answer", "unknown"),
        (
            "status=503,retry-after=1",
            502,
            "gateway_bad_answer",
            "unknown",
        ),
        ("status=408", 502, "gateway_bad_answer", "unknown"),
        ("status=404", 502, "gateway_bad_answer", "unknown"),
        ("status=429,retry-after=1", 503, "gateway_busy", "rejected"),
        ("status=400", 422, "gateway_rejected", "rejected"),
        ("status=422", 422, "gateway_rejected", "rejected"),
        ("status=401", 502, "gateway_refused_secret", "rejected"),
        ("status=403", 502, "gateway_refused_secret", "rejected"),
    ] {
        let sidecar = Sidecar::new();
        let slowly = if fault.contains("delay") {
            ""
        } else {
            ",delay=1s"
        };
        sidecar.faults(&[&format!("start:{fault}{slowly},count=1")]);
        let failed = join_all((0..5).map(|_| start(&sidecar, "order-1", ORDER))).await;
        assert_eq!(sidecar.gateway_starts(), 1, "{fault}");
        for answer in &failed {
            assert_refused(answer, status, word);
            assert_eq!(answer.text("outcome"), outcome, "{fault}: {answer:?}");
        }
        let ids: HashSet<_> = failed
            .iter()
            .map(|answer| answer.header("x-request-id"))
            .collect();
        assert_eq!(ids.len(), 5, "each has an answer of its own");
        let next = start(&sidecar, "order-1", ORDER).await;
        assert_first(&next);
        assert_eq!(sidecar.gateway_starts(), 2, "{fault}");
        assert_replay(&start(&sidecar, "order-1", ORDER).await, &next);
        // A failure holds no request either: another one would have been as good.
        sidecar.faults(&[&format!("start:{fault},count=1")]);
        assert_refused(&start(&sidecar, "order-2", ORDER).await, status, word);
        assert_first(&start(&sidecar, "order-2", r#"{"amount":2}"#).await);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_of_our_own_the_key_is_free_too() {
    let sidecar = Sidecar::with(&[
        ("start.rate", "1"),
        ("start.burst", "1"),
        ("start.queue_for", "10ms"),
    ]);
    sidecar.started().await;
    for answer in join_all((0..4).map(|_| start(&sidecar, "order-1", ORDER))).await {
        assert_refused(&answer, 429, "rate_limited");
        assert_eq!(answer.text("outcome"), "not_sent");
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(sidecar.gateway_starts(), 1);
    sleep(Duration::from_secs(1)).await;
    let first = start(&sidecar, "order-1", ORDER).await;
    assert_first(&first);
    assert_replay(&start(&sidecar, "order-1", ORDER).await, &first);

    let gateway = Options {
        secret: "another_secret_than_ours".to_owned(),
        ..Options::default()
    };
    let sidecar = Sidecar::before(gateway, &[]);
    for tries in 1..=2 {
        assert_refused(
            &start(&sidecar, "order-1", ORDER).await,
            502,
            "gateway_refused_secret",
        );
        assert_eq!(sidecar.gateway_starts(), tries);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_for_its_time_and_no_longer_and_asking_does_not_prolong_it() {
    for ttl in [Duration::from_secs(24 * 3600), Duration::from_secs(60)] {
        let text = format!("{}s", ttl.as_secs());
        let sidecar = Sidecar::with(&[("start.idempotency_ttl", &text)]);
        let first = start(&sidecar, "order-1", ORDER).await;
        assert_first(&first);
        for _ in 0..9 {
            sleep(ttl / 10).await;
            assert_replay(&start(&sidecar, "order-1", ORDER).await, &first);
            assert_mismatch(&start(&sidecar, "order-1", r#"{"amount":1}"#).await);
        }
        sleep(ttl / 10 - Duration::from_millis(2)).await;
        assert_replay(&start(&sidecar, "order-1", ORDER).await, &first);
        sleep(Duration::from_millis(4)).await;
        // From here on it may stand for anything.
        let second = start(&sidecar, "order-1", r#"{"amount":1}"#).await;
        assert_first(&second);
        assert_ne!(second.text("code"), first.text("code"));
        // And for the whole time again, whatever the first one's.
        sleep(ttl - Duration::from_millis(10)).await;
        assert_replay(
            &start(&sidecar, "order-1", r#"{"amount":1}"#).await,
            &second,
        );
        assert_mismatch(&start(&sidecar, "order-1", ORDER).await);
        assert_eq!(sidecar.gateway_starts(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn replays_need_neither_the_gateway_nor_a_turn_nor_the_payment_in_memory() {
    let sidecar = Sidecar::with(&[
        ONE[0],
        ("start.burst", "3"),
        ONE[2],
        ("watch.max_tracked", "1"),
    ]);
    let first = start(&sidecar, "order-1", ORDER).await;
    assert_first(&first);
    // It is let go for these, and has been paid since.
    sidecar.pay(first.text("code"));
    sidecar.started().await;
    sidecar.started().await;
    assert_refused(&sidecar.start(ORDER).await, 429, "rate_limited");
    for fault in [
        "start:reset",
        "start:hang",
        "start:status=503",
        "start:status=401",
    ] {
        sidecar.faults(&[fault]);
        assert_replay(&start(&sidecar, "order-1", ORDER).await, &first);
    }
    assert_eq!(sidecar.gateway_starts(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_kept_as_it_was_whatever_the_gateway_put_into_it() {
    let sidecar = Sidecar::with(&[
        ("gateway.max_response_bytes", "2097152"),
        ("start.forward_fields", r#"["note"]"#),
    ]);
    for fault in ["start:huge", "start:echo-secret"] {
        sidecar.faults(&[fault]);
        let body = r#"{"amount":1000,"note":[1e2,0.10,-0,12345678901234567890123,"é\u0000"]}"#;
        let first = start(&sidecar, fault, body).await;
        assert_first(&first);
        assert!(!first.body.contains(DEFAULT_SECRET));
        sidecar.faults(&[]);
        assert_replay(&start(&sidecar, fault, body).await, &first);
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_with_a_key_that_is_under_way_survives_a_drain() {
    let sidecar = Sidecar::new();
    sidecar.faults(&["start:delay=3s"]);
    let mut running: Vec<_> = (0..3)
        .map(|_| Box::pin(start(&sidecar, "order-1", ORDER)))
        .collect();
    running
        .iter_mut()
        .for_each(|start| assert!(start.now_or_never().is_none()));
    settles(|| sidecar.gateway_starts() == 1).await;
    sidecar.drain();
    // Who comes now may ask the next process.
    assert_refused(&start(&sidecar, "order-1", ORDER).await, 503, "draining");
    let answers = join_all(running).await;
    assert_eq!(
        answers.iter().filter(|answer| is_replayed(answer)).count(),
        2
    );
    answers
        .iter()
        .for_each(|answer| assert_eq!((answer.status, &answer.body), (200, &answers[0].body)));
    assert_refused(&start(&sidecar, "order-1", ORDER).await, 503, "draining");
    assert_eq!(sidecar.gateway_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_many_keys_each_keeps_its_own_answer() {
    let sidecar = Sidecar::with(&MANY);
    sidecar.faults(&["start:delay=50ms,rate=0.5", "start:reset,rate=0.05"]);
    let ask = |i: usize| {
        start(
            &sidecar,
            format!("order-{i}"),
            format!("{{\"amount\":{}}}", i + 1),
        )
    };
    let mut first = Vec::new();
    for answers in [
        join_all((0..2000).map(ask)).await,
        join_all((0..2000).map(ask)).await,
    ] {
        first.push(answers);
    }
    let mut codes = HashSet::new();
    for i in 0..2000 {
        // What failed once or twice is asked for until it works.
        let answer = loop {
            let answer = ask(i).await;
            if answer.status == 200 {
                break answer;
            }
        };
        assert!(codes.insert(answer.text("code").to_owned()));
        for told in first
            .iter()
            .map(|answers| &answers[i])
            .filter(|told| told.status == 200)
        {
            assert_eq!(told.body, answer.body, "one key revealed two payments");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_callers_who_hang_up_and_change_their_minds_reveals_one_code_a_key() {
    let sidecar = Sidecar::with(&MANY);
    sidecar.faults(&[
        "start:status=500,delay=5ms,rate=0.3",
        "start:truncate,delay=30ms,rate=0.2",
        "start:delay=20ms",
    ]);
    let mut told: Vec<HashSet<String>> = vec![HashSet::new(); 20];
    for round in 0_u64..60 {
        let asked = (0..100_u64).map(|i| {
            let (key, patience) = (
                usize::try_from((i * 7 + round) % 20).unwrap(),
                Duration::from_millis(i * 13 % 60),
            );
            let sidecar = &sidecar;
            async move {
                let answer =
                    tokio::time::timeout(patience, start(sidecar, format!("key-{key}"), ORDER))
                        .await;
                (key, answer)
            }
        });
        for (key, answer) in join_all(asked).await {
            if let Some(answer) = answer.ok().filter(|answer| answer.status == 200) {
                told[key].insert(answer.text("code").to_owned());
            }
        }
    }
    assert!(told.iter().all(|codes| codes.len() == 1), "{told:?}");
}

#[tokio::test]
async fn over_a_socket_a_key_is_one_line_without_control_bytes() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let head =
        "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let ask = async |lines: &[u8]| {
        let mut wire = Wire::open(api).await;
        let end = format!("Content-Length: {}\r\n\r\n{ORDER}", ORDER.len());
        wire.send([head.as_bytes(), lines, end.as_bytes()].concat())
            .await;
        wire.answer().await
    };
    for lines in [
        &b"Idempotency-Key: a\r\nIdempotency-Key: a\r\n"[..],
        b"Idempotency-Key: a\r\nidempotency-key: b\r\n",
        b"Idempotency-Key:\r\n",
        b"Idempotency-Key:   \t \r\n",
        b"Idempotency-Key: a\tb\r\n",
        b"Idempotency-Key: \xc3\xa9\r\n",
        b"Idempotency-Key: \"a\r\n",
    ] {
        assert_refused(&ask(lines).await, 400, "invalid_idempotency_key");
    }
    for lines in [
        &b"Idempotency-Key: a\x00b\r\n"[..],
        b"Idempotency-Key: a\x01\r\n",
        b"Idempotency-Key: a\x7f\r\n",
    ] {
        let answer = ask(lines).await;
        assert_eq!(
            answer.status,
            400,
            "{}: {answer:?}",
            String::from_utf8_lossy(lines)
        );
    }
    assert_eq!(calls(&gateway).await.0, 0);
    let first = ask(b"Idempotency-Key:  order-1 \r\n").await;
    assert_first(&first);
    assert_replay(&ask(b"IDEMPOTENCY-KEY:\"order-1\"\r\n").await, &first);
    assert_eq!(calls(&gateway).await.0, 1);
}

#[tokio::test]
async fn without_a_secret_the_key_stays_free_and_its_text_is_in_no_log() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    let (sidecar, api, admin) = Program::sidecar(
        &gateway,
        &[
            ("merchant.secret_file", file.to_str().unwrap()),
            ("log.level", "debug"),
            ("listen.drain_timeout", "2s"),
        ],
    )
    .await;
    let ask = async || {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", "customer-4711-order-9"),
        ];
        call(api, Method::POST, "/api/start_payment", &headers, ORDER).await
    };
    for _ in 0..2 {
        assert_refused(&ask().await, 503, "secret_unavailable");
    }
    fs::write(&file, DEFAULT_SECRET).unwrap();
    sidecar.signal("HUP");
    let first = until("a start", async || {
        Some(ask().await).filter(|answer| answer.status == 200)
    })
    .await;
    assert_first(&first);
    assert_replay(&ask().await, &first);
    assert_eq!(calls(&gateway).await.0, 1);
    for path in ["/metrics", "/status", "/"] {
        assert!(
            !crate::harness::get_at(admin, path)
                .await
                .body
                .contains("customer-4711"),
            "{path}"
        );
    }
    sidecar.signal("TERM");
    let (code, _, log) = sidecar.end().await;
    assert!(code == 0 && !log.contains("customer-4711"), "{log}");
}

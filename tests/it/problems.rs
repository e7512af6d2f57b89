//! Errors: every row of the contract's table that a caller can bring about, and the door.

mod details;
mod door;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request};

use crate::harness::{Answer, Sidecar, get, post};

/// What the contract promises of one error.
#[derive(Clone, Copy)]
struct Expected {
    status: u16,
    error: &'static str,
    source: &'static str,
    outcome: Option<&'static str>,
    retryable: bool,
}

/// An error of the sidecar's own that was no start.
const fn own(status: u16, error: &'static str) -> Expected {
    Expected {
        status,
        error,
        source: "sidecar",
        outcome: None,
        retryable: false,
    }
}

/// What every problem has, whatever it is.
fn assert_problem(answer: &Answer, of: &str, expected: Expected) {
    let json = answer.json();
    assert_eq!(
        (answer.status, answer.text("error")),
        (expected.status, expected.error),
        "{of}: {answer:?}"
    );
    assert_eq!(json["status"], expected.status, "{of}");
    assert_eq!(
        json["type"],
        format!("urn:tillgate:error:{}", expected.error),
        "{of}"
    );
    assert_in_order(answer, of);
    assert_eq!(json["source"], expected.source, "{of}");
    assert_eq!(json["retryable"], expected.retryable, "{of}");
    assert_eq!(
        json.get("outcome").and_then(|outcome| outcome.as_str()),
        expected.outcome,
        "{of}"
    );
    assert!(
        !answer.text("title").is_empty() && !answer.text("detail").is_empty(),
        "{of}"
    );
    assert!(!answer.header("x-request-id").is_empty(), "{of}");
    assert_eq!(json["request_id"], answer.header("x-request-id"), "{of}");
    assert_eq!(
        answer.header("content-type"),
        "application/problem+json",
        "{of}"
    );
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{of}");
    assert_eq!(answer.header("cache-control"), "no-store", "{of}");
    assert!(
        answer
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("access-control-")),
        "{of}: {answer:?}"
    );
    if expected.outcome == Some("unknown") {
        assert!(
            answer.text("detail").contains("starting again is safe"),
            "{of}: {answer:?}"
        );
    }
}

/// What a reader wants to know first stands first.
fn assert_in_order(answer: &Answer, of: &str) {
    const ORDER: [&str; 11] = [
        "error",
        "detail",
        "status",
        "type",
        "title",
        "source",
        "retryable",
        "request_id",
        "outcome",
        "gateway_status",
        "gateway_message",
    ];
    let at = ORDER.map(|name| {
        answer.body.find(&format!(
            "{}\"{name}\":",
            if name == "error" { '{' } else { ',' }
        ))
    });
    let at: Vec<_> = at.into_iter().flatten().collect();
    assert_eq!(
        at.len(),
        answer.json().as_object().unwrap().len(),
        "{of}: {answer:?}"
    );
    assert!(at.is_sorted(), "{of}: {answer:?}");
}

/// What the gateway said is told, where it said anything.
fn assert_said(answer: &Answer, of: &str, status: Option<u64>, message: Option<&str>) {
    let json = answer.json();
    assert_eq!(
        json.get("gateway_status")
            .and_then(|status| status.as_u64()),
        status,
        "{of}: {answer:?}"
    );
    assert_eq!(
        json.get("gateway_message")
            .and_then(|message| message.as_str()),
        message,
        "{of}: {answer:?}"
    );
}

const TOLD_TO_FAIL: Option<&str> = Some("The sandbox was told to fail");

fn with(mut request: Request<Full<Bytes>>, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    for (name, _) in headers {
        request.headers_mut().remove(*name);
    }
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request
            .headers_mut()
            .append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request
}

fn good_start() -> Request<Full<Bytes>> {
    post("/api/start_payment", r#"{"amount":1000}"#)
}

#[tokio::test(start_paused = true)]
async fn whatever_the_gateway_does_to_a_start_has_its_row_in_the_table() {
    let bad = Expected {
        status: 502,
        error: "gateway_bad_answer",
        source: "gateway",
        outcome: Some("unknown"),
        retryable: true,
    };
    let rejected = Expected {
        status: 422,
        error: "gateway_rejected",
        outcome: Some("rejected"),
        retryable: false,
        ..bad
    };
    let refused = Expected {
        error: "gateway_refused_secret",
        status: 502,
        ..rejected
    };
    let busy = Expected {
        status: 503,
        error: "gateway_busy",
        retryable: true,
        ..rejected
    };
    let timeout = Expected {
        status: 504,
        error: "gateway_timeout",
        ..bad
    };
    let started = Some("Payment started");
    let rows = [
        ("status=400", rejected, Some(400), TOLD_TO_FAIL),
        ("status=422", rejected, Some(422), TOLD_TO_FAIL),
        ("status=401", refused, Some(401), TOLD_TO_FAIL),
        ("status=403", refused, Some(403), TOLD_TO_FAIL),
        ("status=429", busy, Some(429), TOLD_TO_FAIL),
        ("status=429,retry-after=7", busy, Some(429), TOLD_TO_FAIL),
        ("status=402", bad, Some(402), TOLD_TO_FAIL),
        ("status=404", bad, Some(404), TOLD_TO_FAIL),
        ("status=405", bad, Some(405), TOLD_TO_FAIL),
        ("status=409", bad, Some(409), TOLD_TO_FAIL),
        ("status=301", bad, Some(301), TOLD_TO_FAIL),
        ("status=304", bad, Some(304), TOLD_TO_FAIL),
        ("status=202", bad, Some(202), TOLD_TO_FAIL),
        ("status=201", bad, Some(201), TOLD_TO_FAIL),
        ("status=500", bad, Some(500), TOLD_TO_FAIL),
        ("status=503,retry-after=7", bad, Some(503), TOLD_TO_FAIL),
        ("status=599", bad, Some(599), TOLD_TO_FAIL),
        ("redirect", bad, Some(307), Some("Moved")),
        ("reset", bad, None, None),
        ("truncate", bad, Some(200), None),
        ("huge", bad, Some(200), None),
        ("encoded", bad, Some(200), None),
        ("not-json", bad, Some(200), None),
        ("missing-field", bad, Some(200), started),
        ("bad-code", bad, Some(200), started),
        ("hang", timeout, None, None),
        ("delay=10001ms", timeout, None, None),
    ];
    for (fault, expected, status, message) in rows {
        let sidecar = Sidecar::new();
        sidecar.faults(&[&format!("start:{fault}")]);
        let answer = sidecar.start(r#"{"amount":1000}"#).await;
        assert_problem(&answer, fault, expected);
        assert_said(&answer, fault, status, message);
        assert_eq!(sidecar.gateway_starts(), 1, "{fault}");
        if status.is_some_and(|status| matches!(status, 300..400 | 402 | 404 | 405 | 409)) {
            assert!(
                answer.text("detail").contains("gateway.url"),
                "{fault}: {answer:?}"
            );
        }
        if expected.error == "gateway_busy" {
            let seconds: u64 = answer.header("retry-after").parse().expect("whole seconds");
            assert!((1..=300).contains(&seconds), "{fault}: {answer:?}");
        }
        let refused = format!("tillgate_refused_total{{error=\"{}\"}}", expected.error);
        assert!(sidecar.metric(&refused).await > 0, "{fault}");
        let ended = format!(
            "tillgate_starts_total{{outcome=\"{}\"}}",
            expected.outcome.unwrap()
        );
        assert!(sidecar.metric(&ended).await > 0, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_the_gateway_does_to_a_watch_has_its_row_in_the_table() {
    let bad = Expected {
        status: 502,
        error: "gateway_bad_answer",
        source: "gateway",
        outcome: None,
        retryable: true,
    };
    let refused = Expected {
        error: "gateway_refused_secret",
        retryable: false,
        ..bad
    };
    let busy = Expected {
        status: 503,
        error: "gateway_busy",
        ..bad
    };
    let timeout = Expected {
        status: 504,
        error: "gateway_timeout",
        ..bad
    };
    let rows = [
        ("status=400", bad, Some(400), TOLD_TO_FAIL, 1),
        ("status=422", bad, Some(422), TOLD_TO_FAIL, 1),
        ("status=404", bad, Some(404), TOLD_TO_FAIL, 1),
        ("status=405", bad, Some(405), TOLD_TO_FAIL, 1),
        ("status=401", refused, Some(401), TOLD_TO_FAIL, 1),
        ("status=403", refused, Some(403), TOLD_TO_FAIL, 1),
        ("status=429", busy, Some(429), TOLD_TO_FAIL, 1),
        ("status=429,retry-after=7", busy, Some(429), TOLD_TO_FAIL, 1),
        ("status=302", bad, Some(302), TOLD_TO_FAIL, 1),
        ("status=202", bad, Some(202), TOLD_TO_FAIL, 1),
        ("status=500", bad, Some(500), TOLD_TO_FAIL, 1),
        ("status=503,retry-after=7", bad, Some(503), TOLD_TO_FAIL, 1),
        ("redirect", bad, Some(307), Some("Moved"), 1),
        // gateway.retries is 2, and asking changes nothing.
        ("reset", bad, None, None, 3),
        ("truncate", bad, Some(200), None, 3),
        ("huge", bad, Some(200), None, 1),
        ("encoded", bad, Some(200), None, 1),
        ("not-json", bad, Some(200), None, 1),
        ("missing-field", bad, Some(200), None, 1),
        ("hang", timeout, None, None, 1),
        ("delay=10001ms", timeout, None, None, 1),
    ];
    for (fault, expected, status, message, calls) in rows {
        let sidecar = Sidecar::new();
        let (_, code) = sidecar.started().await;
        sidecar.faults(&[&format!("watch:{fault}")]);
        let answer = sidecar.watch(&code).await;
        assert_problem(&answer, fault, expected);
        assert_said(&answer, fault, status, message);
        assert_eq!(sidecar.gateway_watches(), calls, "{fault}");
        // Of a code that nobody heard of a status means the same, but for the one that says so.
        if fault.starts_with("status=") && fault != "status=404" {
            let answer = sidecar.watch("unheard-of").await;
            assert_problem(&answer, fault, expected);
            assert_said(&answer, fault, status, message);
        }
        if expected.error == "gateway_busy" {
            let seconds: u64 = answer.header("retry-after").parse().expect("whole seconds");
            assert!((1..=300).contains(&seconds), "{fault}: {answer:?}");
        }
        let refused = format!("tillgate_refused_total{{error=\"{}\"}}", expected.error);
        assert!(sidecar.metric(&refused).await > 0, "{fault}");
    }
}

#[tokio::test]
async fn a_code_that_nobody_heard_of_is_not_found() {
    let sidecar = Sidecar::new();
    let answer = sidecar.watch("nobody-has-this-one").await;
    let expected = Expected {
        source: "gateway",
        ..own(404, "unknown_watch_code")
    };
    assert_problem(&answer, "an unheard-of code", expected);
    assert_said(
        &answer,
        "an unheard-of code",
        Some(404),
        Some("Unknown watch code"),
    );
}

#[tokio::test(start_paused = true)]
async fn a_busy_or_failing_gateway_says_how_long_but_no_longer_than_five_minutes() {
    for (fault, seconds) in [
        ("status=429", "1"),
        ("status=429,retry-after=1", "1"),
        ("status=429,retry-after=7", "7"),
        ("status=429,retry-after=300", "300"),
        ("status=429,retry-after=301", "300"),
        ("status=429,retry-after=18446744073709551615", "300"),
        ("status=503", ""),
        ("status=503,retry-after=7", "7"),
        ("status=503,retry-after=301", "300"),
    ] {
        let error = if fault.starts_with("status=429") {
            "gateway_busy"
        } else {
            "gateway_bad_answer"
        };
        let sidecar = Sidecar::new();
        let (_, code) = sidecar.started().await;
        sidecar.faults(&[&format!("start:{fault}"), &format!("watch:{fault}")]);
        for answer in [
            sidecar.start(r#"{"amount":1000}"#).await,
            sidecar.watch(&code).await,
        ] {
            assert_eq!(
                (answer.text("error"), answer.header("retry-after")),
                (error, seconds),
                "{fault}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_sidecar_refuses_is_not_sent_and_says_when_to_come_back() {
    let sidecar = Sidecar::with(&[
        ("start.rate", "0.5"),
        ("start.burst", "1"),
        ("start.queue_for", "1ms"),
    ]);
    sidecar.started().await;
    let answer = sidecar.start(r#"{"amount":1000}"#).await;
    let expected = Expected {
        outcome: Some("not_sent"),
        retryable: true,
        ..own(429, "rate_limited")
    };
    assert_problem(&answer, "over the rate", expected);
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(sidecar.gateway_starts(), 1);

    let bad_input = [
        ("", 400, "invalid_json"),
        (r#"{"merchant_secret":"x"}"#, 400, "secret_not_accepted"),
        (r#"{"x":1}"#, 400, "unknown_field"),
        ("{}", 422, "invalid_amount"),
        (
            r#"{"amount":1,"redirect":"x"}"#,
            422,
            "redirect_not_allowed",
        ),
    ];
    for (body, status, error) in bad_input {
        let expected = Expected {
            outcome: Some("not_sent"),
            ..own(status, error)
        };
        assert_problem(&sidecar.start(body).await, body, expected);
    }
    assert_problem(
        &sidecar.watch("a%62").await,
        "a percent sign",
        own(400, "invalid_watch_code"),
    );
    assert_eq!(
        (sidecar.gateway_starts(), sidecar.gateway_watches()),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_without_a_turn_is_told_to_come_back() {
    let sidecar = Sidecar::with(&[("watch.poll_rate", "1"), ("gateway.timeout", "5s")]);
    let codes: Vec<_> = (0..6).map(|i| format!("unheard-of-{i}")).collect();
    let answers =
        futures_util::future::join_all(codes.iter().map(|code| sidecar.watch(code))).await;
    let (turned_away, asked): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 503);
    assert_eq!((asked.len(), turned_away.len()), (3, 3));
    for answer in turned_away {
        assert_problem(
            answer,
            "no turn",
            Expected {
                retryable: true,
                ..own(503, "overloaded")
            },
        );
        let seconds: u64 = answer.header("retry-after").parse().expect("whole seconds");
        assert!(seconds >= 1);
    }
    assert_eq!(sidecar.gateway_watches(), 3);
}

#[tokio::test]
async fn where_there_is_nothing_it_says_so() {
    let sidecar = Sidecar::new();
    for path in [
        "/",
        "/api",
        "/api/start_payment/",
        "/API/start_payment",
        "/api//start_payment",
        "/watch",
        "/metrics",
    ] {
        assert_problem(&sidecar.api(get(path)).await, path, own(404, "not_found"));
        assert_problem(
            &sidecar.api(post(path, "{}")).await,
            path,
            own(404, "not_found"),
        );
    }
    let pay_page = sidecar.api(get("/pay/pay_123?redirect=x")).await;
    assert_problem(&pay_page, "the pay page", own(404, "not_found"));
    assert!(pay_page.text("detail").contains("pay_url"), "{pay_page:?}");
    assert_eq!(
        (sidecar.gateway_starts(), sidecar.gateway_watches()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_head_is_that_of_a_get() {
    let sidecar = Sidecar::dev(&[("watch.fresh_for", "10s")]);
    let (_, code) = sidecar.started().await;
    let known = sidecar.watch(&code).await.header("etag").to_owned();
    let head = |path: &str, headers: &[(&str, &str)]| {
        let mut request = with(get(path), headers);
        *request.method_mut() = Method::HEAD;
        sidecar.api(request)
    };
    let watch = format!("/watch/{code}");
    let waits = format!("{watch}?wait=25");
    for path in [&watch, &waits, "/payments", "/deliveries", "/openapi.json"] {
        let began = tokio::time::Instant::now();
        let (head, get) = (
            head(path, &[]).await,
            sidecar.api(get(path.split('?').next().unwrap())).await,
        );
        assert!(began.elapsed().as_secs() < 1, "{path}: it never waits");
        assert_eq!((head.status, get.status), (200, 200), "{path}: {head:?}");
        for name in [
            "content-type",
            "etag",
            "age",
            "cache-control",
            "cache-status",
        ] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
    let unchanged = head(&waits, &[("if-none-match", &known)]).await;
    assert_eq!(unchanged.status, 304, "{unchanged:?}");
    for (path, status) in [
        ("/watch/..", 400),
        ("/watch/abc?wait=x", 400),
        ("/watch/unheard-of", 404),
        ("/payments?limit=x", 400),
        ("/pay/abc", 404),
        ("/nowhere", 404),
    ] {
        assert_eq!(head(path, &[]).await.status, status, "{path}");
    }
    // A stream has no head without it, and a start does something.
    for (path, headers, allow) in [
        ("/events", &[][..], "GET"),
        (&watch, &[("accept", "text/event-stream")], "GET"),
        ("/api/start_payment", &[], "POST"),
    ] {
        let refused = head(path, headers).await;
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, allow),
            "{path}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn another_method_is_told_the_right_one() {
    let sidecar = Sidecar::new();
    for (path, methods, allow) in [
        (
            "/api/start_payment",
            [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS],
            "POST",
        ),
        (
            "/watch/abc",
            [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS],
            "GET",
        ),
    ] {
        for method in methods {
            let mut request = get(path);
            *request.method_mut() = method.clone();
            let answer = sidecar.api(request).await;
            assert_eq!(
                (answer.status, answer.text("error")),
                (405, "method_not_allowed"),
                "{method} {path}"
            );
            assert!(
                answer
                    .header("allow")
                    .split(", ")
                    .any(|allowed| allowed == allow),
                "{method} {path}: {answer:?}"
            );
            assert!(
                !answer.header("allow").contains(method.as_str()),
                "{method} {path}: {answer:?}"
            );
        }
    }
    assert_eq!(
        (sidecar.gateway_starts(), sidecar.gateway_watches()),
        (0, 0)
    );
}

#[tokio::test]
async fn a_start_is_sent_as_plain_json() {
    let sidecar = Sidecar::new();
    let json = ("content-type", "application/json");
    let variants: [&[(&str, &str)]; 11] = [
        &[("content-type", "")],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "application/json-patch+json")],
        &[("content-type", "application/problem+json")],
        &[("content-type", "text/json; a=application/json")],
        &[("content-type", "application/jsonp")],
        &[("content-type", "application/json, text/plain")],
        &[json, json],
        &[json, ("content-encoding", "gzip")],
        &[json, ("content-encoding", "identity")],
    ];
    let expected = Expected {
        outcome: Some("not_sent"),
        ..own(415, "unsupported_media_type")
    };
    for headers in variants {
        let answer = sidecar.api(with(good_start(), headers)).await;
        assert_problem(&answer, &format!("{headers:?}"), expected);
        assert!(
            answer
                .text("detail")
                .contains("Content-Type: application/json"),
            "{answer:?}"
        );
    }
    let mut bare = good_start();
    bare.headers_mut().remove("content-type");
    assert_problem(&sidecar.api(bare).await, "no type at all", expected);
    assert_eq!(sidecar.gateway_starts(), 0);
    for value in [
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "Application/JSON",
        "application/json ; a=b",
    ] {
        let answer = sidecar
            .api(with(good_start(), &[("content-type", value)]))
            .await;
        assert_eq!(answer.status, 200, "{value}: {answer:?}");
    }
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_operator_says_and_no_larger() {
    for (setting, limit) in [(None, 16384), (Some("64"), 64)] {
        let settings: Vec<_> = setting
            .map(|limit| ("listen.max_body_bytes", limit))
            .into_iter()
            .collect();
        let sidecar = Sidecar::with(&settings);
        let body = |length: usize| format!("{{\"amount\":1000{}}}", " ".repeat(length - 15));
        assert_eq!(body(limit).len(), limit);
        let expected = Expected {
            outcome: Some("not_sent"),
            ..own(413, "body_too_large")
        };
        for length in [limit + 1, limit * 10] {
            let answer = sidecar.start(body(length)).await;
            assert_problem(&answer, &length.to_string(), expected);
            assert!(
                answer.text("detail").contains("listen.max_body_bytes"),
                "{answer:?}"
            );
        }
        assert_eq!(sidecar.gateway_starts(), 0);
        assert_eq!(sidecar.start(body(limit)).await.status, 200);
    }
}

#[tokio::test]
async fn a_request_keeps_its_id_if_that_can_stand_in_a_log() {
    let sidecar = Sidecar::with(&[("start.burst", "100")]);
    let longest = "a".repeat(128);
    for id in ["x", "0", "order-17_a.b", "A-Z.a-z_0-9", &longest] {
        for request in [good_start(), get("/watch/nobody-knows"), get("/nowhere")] {
            let answer = sidecar.api(with(request, &[("x-request-id", id)])).await;
            assert_eq!(answer.header("x-request-id"), id);
            if answer.status != 200 {
                assert_eq!(answer.text("request_id"), id);
            }
        }
    }
    let (too_long, mut seen) = ("a".repeat(129), std::collections::HashSet::new());
    for id in ["", "a b", "a/b", "a\"b", "a,b", "a;b", "{}", "é", &too_long] {
        let answer = sidecar
            .api(with(get("/nowhere"), &[("x-request-id", id)]))
            .await;
        let new = answer.header("x-request-id");
        assert_ne!(new, id);
        let well_formed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        assert!(
            (1..=128).contains(&new.len()) && new.bytes().all(well_formed),
            "{new}"
        );
        assert_eq!(answer.text("request_id"), new);
        assert!(seen.insert(new.to_owned()), "{new} came twice");
    }
}

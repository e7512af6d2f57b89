//! The secret never comes out: a sweep over everything that the program says.

use hyper::HeaderMap;
use serde_json::Value;
use tillgate::sandbox::{DEFAULT_SECRET, Options};

use crate::harness::{Answer, Sidecar};

/// The same secret as an encoder that takes no chances writes it.
const PERCENT_ENCODED: &str = "sandbox%5Fsecret%5Fnot%5Fworth%5Fstealing";
/// RFC 4648, section 4; in both alphabets the same.
const BASE64: &str = "c2FuZGJveF9zZWNyZXRfbm90X3dvcnRoX3N0ZWFsaW5n";

/// Whether the secret stands anywhere in this answer.
fn is_told(answer: &Answer) -> bool {
    let head = answer.headers.iter().any(|(name, value)| {
        name.as_str().contains(DEFAULT_SECRET)
            || String::from_utf8_lossy(value.as_bytes()).contains(DEFAULT_SECRET)
    });
    // Read and written again, whatever was escaped is not any more.
    let unescaped = serde_json::from_str::<Value>(&answer.body)
        .map(|value| value.to_string())
        .unwrap_or_default();
    head || [&answer.body, &unescaped]
        .into_iter()
        .any(|text| text.contains(DEFAULT_SECRET))
}

#[test]
fn the_sweep_finds_a_planted_secret() {
    let answer = |body: &str, header: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("x-note", header.parse().unwrap());
        Answer {
            status: 200,
            headers,
            body: body.to_owned(),
        }
    };
    let escaped = format!("\\u0073{}", &DEFAULT_SECRET[1..]);
    assert!(is_told(&answer(&format!("x{DEFAULT_SECRET}x"), "")));
    assert!(is_told(&answer(&format!("{{\"a\":[\"{escaped}\"]}}"), "")));
    assert!(is_told(&answer(&format!("{{\"{escaped}\":1}}"), "")));
    assert!(is_told(&answer("", &format!("x{DEFAULT_SECRET}"))));
    assert!(!is_told(&answer(
        "{\"a\":\"[redacted]\"}",
        "sandbox_secret"
    )));
}

/// Everything that the operator can read.
async fn operators_pages(sidecar: &Sidecar) -> Vec<Answer> {
    let openmetrics = sidecar
        .admin_with(
            "/metrics",
            "accept",
            "application/openmetrics-text; version=1.0.0",
        )
        .await;
    let mut pages = vec![openmetrics];
    for path in [
        "/metrics",
        "/status",
        "/readyz?verbose",
        "/readyz",
        "/livez",
        "/",
        "/nowhere",
    ] {
        pages.push(sidecar.admin(path).await);
    }
    assert!(
        pages[0].body.ends_with("# EOF\n") && pages[1].body.contains("tillgate_build_info"),
        "{pages:?}"
    );
    assert!(
        pages.iter().take(5).all(|page| page.status == 200),
        "{pages:?}"
    );
    pages
}

const STATUSES: [u16; 13] = [
    200, 201, 204, 302, 400, 401, 403, 404, 422, 429, 500, 502, 503,
];

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_no_answer_has_the_secret_in_it() {
    let sidecar = Sidecar::with(&[
        ("start.burst", "1000"),
        ("start.forward_fields", r#"["note"]"#),
        ("gateway.max_response_bytes", "2097152"),
    ]);
    let both = [
        "reset",
        "truncate",
        "hang",
        "redirect",
        "echo-secret",
        "huge",
        "not-json",
        "encoded",
        "missing-field",
    ];
    let statuses: Vec<_> = STATUSES
        .iter()
        .map(|status| format!("status={status}"))
        .collect();
    let mut faults: Vec<String> = Vec::new();
    for kind in both.into_iter().chain(statuses.iter().map(String::as_str)) {
        faults.extend([format!("start:{kind}"), format!("watch:{kind}")]);
    }
    faults.extend(
        [
            "start:bad-code",
            "watch:reopen",
            "watch:unknown-status",
            "watch:wrong-amount",
        ]
        .map(str::to_owned),
    );

    let note = format!(
        r#"{{"amount":1000,"note":"{DEFAULT_SECRET} \u0073{}"}}"#,
        &DEFAULT_SECRET[1..]
    );
    let mut answers = Vec::new();
    for fault in &faults {
        sidecar.faults(&[]);
        let (_, code) = sidecar.started().await;
        sidecar.faults(&[fault]);
        answers.push(sidecar.start(r#"{"amount":1000}"#).await);
        answers.push(sidecar.start(note.clone()).await);
        answers.push(sidecar.watch(&code).await);
        // Stale and remembered ones too.
        answers.push(sidecar.watch_with(&code, "cache-control", "no-cache").await);
        answers.push(sidecar.watch(&code).await);
    }
    answers.extend(operators_pages(&sidecar).await);
    for answer in &answers {
        assert!(!is_told(answer), "{answer:?}");
    }
    // The sandbox did say it.
    assert!(answers.iter().any(|answer| {
        answer
            .body
            .contains(r#""note":"Asked on behalf of [redacted]""#)
    }));
    assert!(answers.iter().any(|answer| {
        answer
            .body
            .contains(r#"\"merchant_secret\":\"[redacted]\""#)
    }));
    assert!(sidecar.metric("tillgate_secret_echo_total").await > 0);
}

#[tokio::test]
async fn what_a_caller_says_is_not_repeated_to_it() {
    let sidecar = Sidecar::with(&[("redirect.allowed", r#"["https://shop.example"]"#)]);
    let s = DEFAULT_SECRET;
    let mut answers = Vec::new();
    for body in [
        format!(r#"{{"merchant_secret":"{s}","amount":1000}}"#),
        format!(r#"{{"amount":1000,"{s}":1}}"#),
        format!(r#"{{"amount":"{s}"}}"#),
        format!(r#"{{"amount":1000,"redirect":"https://evil.example/{s}"}}"#),
        format!(r#"{{"amount":1000,"redirect":"{s}"}}"#),
        format!(r#"{{"amount":1000,"{s}":1,"{s}":2}}"#),
        format!(r#"{{"merchant_secret":"{s}""#),
        s.to_owned(),
    ] {
        answers.push(sidecar.start(body).await);
    }
    answers.push(sidecar.watch(s).await);
    answers.push(sidecar.watch(&format!("{s}%20")).await);
    answers.push(sidecar.admin(&format!("/{s}")).await);
    for answer in &answers {
        assert!(answer.status >= 400, "{answer:?}");
        assert!(!is_told(answer), "{answer:?}");
    }
    answers.clear();
    answers.extend(operators_pages(&sidecar).await);
    assert!(!answers.iter().any(is_told), "{answers:?}");
}

#[tokio::test]
async fn a_gateway_with_another_secret_does_not_make_ours_known() {
    let gateway = Options {
        secret: "another_secret_than_ours".to_owned(),
        ..Options::default()
    };
    let sidecar = Sidecar::before(gateway, &[]);
    let plain = sidecar.start(r#"{"amount":1000}"#).await;
    sidecar.faults(&["start:echo-secret"]);
    let echoed = sidecar.start(r#"{"amount":1000}"#).await;
    for answer in [&plain, &echoed] {
        assert_eq!(answer.text("error"), "gateway_refused_secret");
        assert!(!is_told(answer), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_answer_that_had_the_secret_in_it_is_counted_once() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    let echoes = async || sidecar.metric("tillgate_secret_echo_total").await;
    assert_eq!(echoes().await, 0);
    sidecar.faults(&["start:echo-secret", "watch:echo-secret"]);
    let started = sidecar.start(r#"{"amount":1000}"#).await;
    assert_eq!(started.status, 200, "{started:?}");
    assert_eq!(echoes().await, 1);
    let watched = sidecar.watch(&code).await;
    assert_eq!(watched.text("note"), "Asked on behalf of [redacted]");
    assert_eq!(echoes().await, 2);
    // From memory: the gateway said nothing.
    assert_eq!(sidecar.watch(&code).await.body, watched.body);
    assert_eq!(echoes().await, 2);
    sidecar.faults(&[]);
    sidecar.started().await;
    assert_eq!(echoes().await, 2);
}

#[tokio::test]
async fn a_secret_that_a_caller_wrote_in_escapes_is_taken_out() {
    let answer = echoed(&format!(r"\u0073{}", &DEFAULT_SECRET[1..])).await;
    assert!(!answer.contains(&DEFAULT_SECRET[1..]), "{answer}");
}

#[tokio::test]
async fn a_percent_encoded_secret_is_taken_out() {
    for form in [PERCENT_ENCODED.to_owned(), PERCENT_ENCODED.to_lowercase()] {
        let answer = echoed(&form).await;
        assert!(!answer.contains(&form), "{answer}");
    }
}

#[tokio::test]
async fn a_secret_in_base64_is_taken_out() {
    let answer = echoed(BASE64).await;
    assert!(!answer.contains(BASE64), "{answer}");
}

/// What a caller is told when the gateway echoes a start with this text in it, which stands between a JSON text's
/// quotes.
async fn echoed(text: &str) -> String {
    let sidecar = Sidecar::with(&[("start.forward_fields", r#"["note"]"#)]);
    sidecar.faults(&["start:echo-secret"]);
    let answer = sidecar
        .start(format!(r#"{{"amount":1000,"note":"before {text} after"}}"#))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let received = answer.json()["received"]
        .as_str()
        .expect("an echo")
        .to_owned();
    assert!(
        received.contains("before ") && received.contains(" after"),
        "{received}"
    );
    received
}

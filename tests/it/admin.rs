//! The operator's listener: probes, metrics, status; no payment and no secret in any of them.

mod metrics;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::harness::{
    Answer, ORDER, Program, Sidecar, Wire, call, get_at, set_faults, settles, start_at, until,
};

const PAGES: [&str; 5] = ["/", "/livez", "/readyz", "/metrics", "/status"];
const OPENMETRICS: &str =
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";

/// A sidecar that has started, watched and failed; the codes of its payments.
async fn busy() -> (Program, Program, SocketAddr, SocketAddr, Vec<String>) {
    let (sandbox, gateway) = Program::sandbox(&[]).await;
    let (sidecar, api, admin) = Program::sidecar(&gateway, &[("watch.fresh_for", "10s")]).await;
    let mut codes = Vec::new();
    for _ in 0..2 {
        let started = start_at(api, ORDER).await;
        assert_eq!(started.status, 200, "{started:?}");
        codes.extend(["code", "watch_code"].map(|name| started.text(name).to_owned()));
        for _ in 0..2 {
            assert_eq!(
                get_at(api, &format!("/watch/{}", started.text("watch_code")))
                    .await
                    .status,
                200
            );
        }
    }
    assert_eq!(
        get_at(api, "/watch/unheard-of-watch-code").await.status,
        404
    );
    codes.push("unheard-of-watch-code".to_owned());
    set_faults(&gateway, &["start:status=500"]).await;
    assert_eq!(start_at(api, ORDER).await.status, 502);
    assert_eq!(start_at(api, r#"{"amount": 0}"#).await.status, 422);
    assert_eq!(get_at(api, "/nowhere").await.status, 404);
    (sandbox, sidecar, api, admin, codes)
}

#[tokio::test]
async fn the_probes_answer() {
    let (_sandbox, _sidecar, _, admin, _) = busy().await;
    for path in PAGES {
        let answer = get_at(admin, path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert!(!answer.body.is_empty(), "{path}");
    }
    let verbose = get_at(admin, "/readyz?verbose").await;
    for check in ["secret", "draining"] {
        assert!(
            verbose.body.contains(&format!("[+]{check}")),
            "{}",
            verbose.body
        );
    }
    assert!(!get_at(admin, "/readyz").await.body.contains("[+]"));
    assert_eq!(get_at(admin, "/nowhere").await.status, 404);
}

#[tokio::test]
async fn the_checks_are_listed_however_the_query_is_written() {
    let (_sandbox, _sidecar, _, admin, _) = busy().await;
    for (query, lists) in [
        ("verbose=", true),
        ("verbose=1&verbose=2", true),
        ("other&&verbose", true),
        ("%76erbose", true),
        ("verbose+", false),
        ("verbose%20=1", false),
        ("other=verbose", false),
        ("VERBOSE", false),
    ] {
        let answer = get_at(admin, &format!("/readyz?{query}")).await;
        assert_eq!(answer.status, 200, "{query}");
        assert_eq!(answer.body.contains("[+]secret"), lists, "{query}");
    }
}

#[tokio::test]
async fn head_is_get_without_a_body_and_other_methods_are_405() {
    let (_sandbox, _sidecar, _, admin, _) = busy().await;
    for path in PAGES {
        let answer = call(admin, Method::HEAD, path, &[], "").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
        let kind = get_at(admin, path).await;
        assert_eq!(
            answer.header("content-type"),
            kind.header("content-type"),
            "{path}"
        );
        for method in [
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::PATCH,
        ] {
            let answer = call(admin, method.clone(), path, &[], "").await;
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, "GET, HEAD"),
                "{method} {path}"
            );
        }
    }
    // Raw, to see that a HEAD has no body on the wire either.
    let mut wire = Wire::open(admin).await;
    wire.send("HEAD /livez HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await;
    let mut stream = wire.into_stream();
    let mut bytes = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes)
        .await
        .unwrap();
    assert!(
        bytes.ends_with(b"\r\n\r\n"),
        "{}",
        String::from_utf8_lossy(&bytes)
    );
}

#[tokio::test]
async fn foreign_hosts_and_pages_of_other_sites_are_refused() {
    let (_sandbox, _sidecar, _, admin, _) = busy().await;
    for path in PAGES {
        for (headers, status) in [
            (&[("host", "shop.example")][..], 403),
            (&[("host", "localhost.shop.example")], 403),
            (&[("host", "127.0.0.1.shop.example:8701")], 403),
            (&[("origin", "https://shop.example")], 403),
            (&[("origin", "null")], 403),
            (&[("sec-fetch-site", "cross-site")], 403),
            (&[("sec-fetch-site", "same-site")], 403),
            (&[("host", "LOCALHOST:8701")], 200),
            (&[("host", "[::1]:8701")], 200),
            (&[("sec-fetch-site", "none")], 200),
            (&[("sec-fetch-site", "same-origin")], 200),
        ] {
            let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n");
            if !headers.iter().any(|(name, _)| *name == "host") {
                request.push_str("Host: localhost\r\n");
            }
            for (name, value) in headers {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
            let mut wire = Wire::open(admin).await;
            wire.send(request + "\r\n").await;
            let answer = wire.answer().await;
            assert_eq!(answer.status, status, "{path} {headers:?}");
            assert_eq!(answer.header("access-control-allow-origin"), "");
            assert!(status == 200 || !answer.body.contains("tillgate_"));
        }
    }
}

#[tokio::test]
async fn a_load_balancer_probes_by_http_1_0_without_a_host() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, admin) = Program::sidecar(&gateway, &[]).await;
    for (address, request, status) in [
        (admin, "GET /readyz HTTP/1.0\r\n\r\n", 200),
        (admin, "HEAD /livez HTTP/1.0\r\nUser-Agent: lb\r\n\r\n", 200),
        (
            admin,
            "GET /readyz HTTP/1.0\r\nHost: shop.example\r\n\r\n",
            403,
        ),
        (admin, "GET /readyz HTTP/1.0\r\nHost:\r\n\r\n", 400),
        (admin, "GET /readyz HTTP/1.0\r\nOrigin: null\r\n\r\n", 403),
        (admin, "GET /readyz HTTP/1.1\r\n\r\n", 400),
        (api, "GET /watch/x HTTP/1.0\r\n\r\n", 400),
    ] {
        let mut wire = Wire::open(address).await;
        wire.send(request).await;
        let mut answer = String::new();
        let mut stream = wire.into_stream();
        stream.read_to_string(&mut answer).await.unwrap();
        let expected = format!(" {status} ");
        assert!(answer[8..].starts_with(&expected), "{request:?}: {answer}");
    }
}

#[tokio::test]
async fn neither_listener_has_the_paths_of_the_other() {
    let (_sandbox, _sidecar, api, admin, codes) = busy().await;
    for path in [
        "/api/start_payment".to_owned(),
        format!("/watch/{}", codes[1]),
        "/openapi.json".to_owned(),
    ] {
        assert_eq!(get_at(admin, &path).await.status, 404, "{path}");
    }
    assert_eq!(start_at(admin, ORDER).await.status, 405);
    for path in PAGES {
        assert_eq!(get_at(api, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn no_page_has_a_whole_code_of_a_payment() {
    let (_sandbox, _sidecar, _, admin, codes) = busy().await;
    for path in ["/livez", "/readyz?verbose", "/metrics", "/status", "/"] {
        for accept in ["*/*", OPENMETRICS] {
            let answer = call(admin, Method::GET, path, &[("accept", accept)], "").await;
            for code in &codes {
                assert!(!answer.body.contains(code), "{path} has {code}");
                let bare = code.trim_start_matches("pay_").trim_start_matches("watch_");
                assert!(!answer.body.contains(bare), "{path} has {bare}");
            }
            assert!(
                !answer.body.contains(tillgate::sandbox::DEFAULT_SECRET),
                "{path}"
            );
        }
    }
}

/// The cell behind this heading of a row, on the page.
fn row<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, cells) = page
        .split_once(&format!("<th scope=\"row\">{heading}</th>"))
        .unwrap_or_else(|| panic!("no {heading}: {page}"));
    let cells = cells.split("</tr>").next().unwrap();
    cells.trim_end_matches("</td>").rsplit('>').next().unwrap()
}

/// The large number below this title, on the page, and the note below that.
fn figure<'a>(page: &'a str, title: &str) -> (&'a str, String) {
    let (_, rest) = page
        .split_once(&format!("<h3>{title}</h3>"))
        .unwrap_or_else(|| panic!("no {title}: {page}"));
    let mut paragraphs = rest
        .split("</p>")
        .map(|paragraph| paragraph.split_once("\">").unwrap().1);
    let (value, note) = (paragraphs.next().unwrap(), paragraphs.next().unwrap());
    let words = note.split('<').map(|part| part.rsplit('>').next().unwrap());
    (value, words.collect())
}

#[tokio::test(start_paused = true)]
async fn status_and_the_page_tell_what_happened() {
    let sidecar = Sidecar::with(&[("watch.fresh_for", "10s")]);
    let mut watch_codes = Vec::new();
    for _ in 0..3 {
        let (code, watch_code) = sidecar.started().await;
        if watch_codes.is_empty() {
            sidecar.pay(&code);
        }
        assert_eq!(sidecar.watch(&watch_code).await.status, 200);
        watch_codes.push(watch_code);
    }
    assert_eq!(sidecar.watch(&watch_codes[0]).await.status, 200);
    assert_eq!(sidecar.start(r#"{"amount": 0}"#).await.status, 422);
    sidecar.faults(&["start:status=500"]);
    assert_eq!(sidecar.start(ORDER).await.status, 502);
    sidecar.runs_for(Duration::from_secs(700)).await;

    let answer = sidecar.admin("/status").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let status = answer.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["ready"], &status["uptime_seconds"]),
        (&json!(true), &json!(700))
    );
    let payments = &status["payments"];
    assert_eq!(payments["open"], 2);
    let groups: Vec<_> = payments["open_by_age"].as_array().unwrap().iter().collect();
    let ages: Vec<_> = groups
        .iter()
        .map(|group| group["under_seconds"].as_u64())
        .collect();
    assert_eq!(
        ages,
        [
            Some(60),
            Some(600),
            Some(3600),
            Some(21_600),
            Some(86_400),
            None
        ]
    );
    let counts: Vec<_> = groups
        .iter()
        .map(|group| group["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [0, 0, 2, 0, 0, 0]);
    assert!((payments["oldest_open_seconds"].as_f64().unwrap() - 700.0).abs() < 1.0);
    assert_eq!(
        payments["tracked_by_status"],
        json!({ "created": 2, "completed": 1, "other": 0 })
    );
    assert_eq!(
        status["polls"],
        json!({ "made": 3, "saved": 1, "saved_share": 0.25 })
    );
    let outcomes = json!({ "accepted": 3, "rejected": 0, "not_sent": 0, "unknown": 1 });
    assert_eq!(
        status["starts"],
        json!({ "by_outcome": outcomes, "rate_limited": 0, "codes_reused": 0 })
    );
    assert_eq!(status["webhooks"], json!(null));
    assert_eq!(
        status["refused"],
        json!({ "invalid_amount": 1, "gateway_bad_answer": 1 })
    );
    assert_eq!(
        status["gateway"]["start"]["by_outcome"],
        json!({ "ok": 3, "bad_answer": 1 })
    );
    assert_eq!(status["gateway"]["watch"]["by_outcome"], json!({ "ok": 3 }));
    assert_eq!(status["gateway"]["watch"]["mean_seconds"], 0.0);
    assert!(status["gateway"]["watch"]["p95_seconds"].as_f64().unwrap() <= 0.001);
    assert_eq!(status["gateway"]["last_error"], "bad_answer");
    assert!(
        status["secret"]["loaded_at"]
            .as_str()
            .unwrap()
            .starts_with("20")
    );
    assert_eq!(status["last_hour"]["starts"], 4);
    assert_eq!(status["last_hour"]["gateway_calls"], 7);
    assert_eq!(status["metrics"]["tillgate_polls_saved_total"], 1);

    let page = sidecar.admin("/").await.body;
    assert_eq!(
        figure(&page, "Starts"),
        ("4", "busiest minute 4".to_owned())
    );
    assert_eq!(
        figure(&page, "Polls"),
        ("25% saved", "3 made 1 saved".to_owned())
    );
    assert_eq!(
        figure(&page, "Gateway latency"),
        (
            "0.0 ms",
            "mean of 7 calls · slowest minute 0.0 ms".to_owned()
        )
    );
    assert_eq!(
        figure(&page, "Open payments"),
        ("2", "oldest 11 min".to_owned())
    );
    assert_eq!(
        figure(&page, "Callers who wait"),
        ("0", "long poll 0 · stream 0 · events 0".to_owned())
    );
    assert_eq!(
        figure(&page, "Refusals and errors"),
        ("2", "worst minute 2".to_owned())
    );
    for (heading, cell) in [
        ("under 1 min", "0"),
        ("10 min to 1 h", "2"),
        ("completed", "1"),
        ("accepted", "3"),
        ("unknown", "1"),
        ("share saved", "25%"),
        ("<code>invalid_amount</code>", "1"),
    ] {
        assert_eq!(row(&page, heading), cell, "{heading}");
    }
    for part in [
        "<title>Ready · tillgate</title>",
        "last error bad_answer, 11 min ago",
        "11 min</p>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }

    // What was more than an hour ago is no longer of the last hour.
    sidecar.runs_for(Duration::from_secs(3600)).await;
    let status = sidecar.admin("/status").await.json();
    assert_eq!(
        (
            &status["last_hour"]["starts"],
            &status["starts"]["by_outcome"]["accepted"]
        ),
        (&json!(0), &json!(3))
    );
    assert_eq!(status["last_hour"]["gateway_mean_seconds"], Value::Null);
    assert_eq!(
        figure(&sidecar.admin("/").await.body, "Starts"),
        ("0", "none in this hour".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_null_and_the_page_says_so() {
    let sidecar = Sidecar::new();
    let status = sidecar.admin("/status").await.json();
    let gateway = &status["gateway"];
    for unknown in [
        &status["payments"]["oldest_open_seconds"],
        &status["polls"]["saved_share"],
        &gateway["last_good_answer_at"],
        &gateway["last_good_answer_age_seconds"],
        &gateway["last_error"],
        &gateway["last_error_at"],
        &gateway["last_error_age_seconds"],
        &gateway["start"]["mean_seconds"],
        &gateway["watch"]["p50_seconds"],
        &status["last_hour"]["gateway_mean_seconds"],
    ] {
        assert_eq!(unknown, &Value::Null, "{status}");
    }
    assert_eq!(
        (&status["refused"], &status["payments"]["open"]),
        (&json!({}), &json!(0))
    );
    let page = sidecar.admin("/").await.body;
    assert!(
        page.contains("Not asked yet") && !page.contains("NaN") && !page.contains("inf\""),
        "{page}"
    );
    assert_eq!(
        figure(&page, "Gateway latency"),
        ("–", "no calls in this hour".to_owned())
    );
    assert_eq!(
        figure(&page, "Open payments"),
        ("0", "none at this moment".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn the_page_tells_who_waits() {
    let sidecar = Sidecar::dev(&[]);
    let (_, watch_code) = sidecar.started().await;
    let streams = [
        sidecar.stream(&format!("/watch/{watch_code}"), None).await,
        sidecar.stream("/events", None).await,
        sidecar.stream("/events", None).await,
    ];
    let waiters = sidecar.admin("/status").await.json()["waiters"].take();
    assert_eq!(waiters, json!({ "long_poll": 0, "stream": 1, "events": 2 }));
    let page = sidecar.admin("/").await.body;
    assert_eq!(
        figure(&page, "Callers who wait"),
        ("3", "long poll 0 · stream 1 · events 2".to_owned())
    );
    drop(streams);
    settles(|| sidecar.followed() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn the_gateway_is_judged_by_its_last_answer() {
    let sidecar = Sidecar::new();
    let gateway = async || sidecar.admin("/status").await.json()["gateway"].take();
    let page_says = async |word: &str| {
        sidecar
            .admin("/")
            .await
            .body
            .contains(&format!(">{word}</p>"))
    };
    // A no to one payment is an answer.
    sidecar.faults(&["start:status=422"]);
    assert_eq!(sidecar.start(ORDER).await.status, 422);
    assert_eq!(
        (
            &gateway().await["last_good_answer_age_seconds"],
            &gateway().await["last_error"]
        ),
        (&json!(0.0), &Value::Null)
    );
    assert!(page_says("Answering").await);

    tokio::time::advance(Duration::from_secs(5)).await;
    sidecar.faults(&["start:status=401"]);
    assert_eq!(sidecar.start(ORDER).await.status, 502);
    tokio::time::advance(Duration::from_secs(5)).await;
    let failing = gateway().await;
    assert_eq!(failing["last_error"], "refused_secret");
    assert_eq!(
        (
            &failing["last_error_age_seconds"],
            &failing["last_good_answer_age_seconds"]
        ),
        (&json!(5.0), &json!(10.0))
    );
    assert!(page_says("Failing").await);

    sidecar.faults(&[]);
    sidecar.started().await;
    assert_eq!(
        (&gateway().await["last_error"], page_says("Answering").await),
        (&json!("refused_secret"), true)
    );
}

#[tokio::test(start_paused = true)]
async fn the_page_has_its_own_style_and_nothing_else() {
    let sidecar = Sidecar::new();
    sidecar.started().await;
    let answer = sidecar.admin("/").await;
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    let (before, rest) = answer.body.split_once("<style>").unwrap();
    let (style, after) = rest.split_once("</style>").unwrap();
    let hash = STANDARD.encode(Sha256::digest(style));
    let policy = answer.header("content-security-policy");
    let mut directives: Vec<_> = policy.split("; ").collect();
    directives.sort_unstable();
    let own_style = format!("style-src 'sha256-{hash}'");
    assert_eq!(
        directives,
        [
            "base-uri 'none'",
            "default-src 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "img-src data:",
            &own_style
        ]
    );
    let markup = [before, after].concat().to_lowercase();
    for word in [
        "<style",
        "<script",
        "<form",
        "<button",
        "<input",
        "<iframe",
        "style=",
        "src=",
        "javascript:",
        "@import",
    ] {
        assert!(!markup.contains(word), "{word}");
    }
    assert!(!style.contains("url(") && !style.contains("@import"));
    assert!(
        !markup
            .split_ascii_whitespace()
            .any(|word| word.starts_with("on") && word.contains('=')),
        "no handlers"
    );
    // The name of SVG is no address that is ever asked for.
    let addresses = markup.replace("http://www.w3.org/2000/svg", "");
    assert!(!addresses.contains("//"), "nothing from elsewhere");
    // Not in the markup, where nobody could stop it.
    assert!(!markup.contains("http-equiv"));
    assert_eq!(answer.header("refresh"), "5");
    assert!(markup.contains(r#"<a href="/?refresh=off">stop</a>"#));
    let still = sidecar.admin("/?refresh=off").await;
    assert_eq!(
        (still.status, still.headers.contains_key("refresh")),
        (200, false)
    );
}

#[tokio::test]
async fn a_malformed_request_is_refused_and_closed_here_too() {
    let (_sandbox, _sidecar, _, admin, _) = busy().await;
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        (
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            400,
        ),
        (format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(9_000)), 414),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nExpect: else\r\n\r\n".to_owned(), 417),
    ] {
        let mut wire = Wire::open(admin).await;
        wire.send(format!("{request}GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let answers: Vec<Answer> = wire.answers().await;
        // Which word it is told in is the API's concern; here it is refused, once.
        assert_eq!(answers.len(), 1, "{request:.60}: {answers:?}");
        assert!([400, status].contains(&answers[0].status), "{request:.60}: {answers:?}");
    }
}

#[tokio::test]
async fn the_admin_listener_still_answers_when_the_api_is_full() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, admin) =
        Program::sidecar(&gateway, &[("listen.max_connections", "1")]).await;
    let mut only = Wire::open(api).await;
    only.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(only.answer().await.status, 404);
    until("a refusal", async || {
        (get_at(api, "/nowhere").await.status == 503).then_some(())
    })
    .await;
    for path in PAGES {
        assert_eq!(get_at(admin, path).await.status, 200, "{path}");
    }
    assert!(
        get_at(admin, "/metrics")
            .await
            .body
            .contains("tillgate_refused_total{error=\"overloaded\"}")
    );
}

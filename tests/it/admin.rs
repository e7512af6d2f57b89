//! The operator's listener: probes, metrics, status; no payment and no secret in any of them.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

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
async fn what_is_counted_is_there_before_it_first_happens() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let settings = [
        ("webhook.url", "http://127.0.0.1:1/"),
        ("webhook.secret_file", keys.to_str().unwrap()),
    ];
    let (_sidecar, _, admin) = Program::sidecar("http://127.0.0.1:1", &settings).await;
    let tries = json!({ "delivered": 0, "retry": 0, "given_up": 0, "gone": 0 });
    assert_eq!(
        get_at(admin, "/status").await.json()["webhooks"],
        json!({ "pending": 0, "tries": tries })
    );
    assert!(
        get_at(admin, "/")
            .await
            .body
            .contains("waiting to be taken")
    );
    let metrics = get_at(admin, "/metrics").await.body;
    for (name, label, values) in [
        (
            "starts_total",
            "outcome",
            ["accepted", "rejected", "not_sent", "unknown"].as_slice(),
        ),
        ("waiters", "kind", &["long_poll", "stream", "events"]),
        ("payments_tracked", "status", &["created", "completed"]),
        (
            "webhook_deliveries_total",
            "outcome",
            &["delivered", "retry", "given_up", "gone"],
        ),
    ] {
        for value in values {
            let line = format!("tillgate_{name}{{{label}=\"{value}\"}} 0");
            assert!(
                metrics.lines().any(|other| other == line),
                "no {line} in {metrics}"
            );
        }
    }
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

/// One sample line: name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads a sample strictly: `name{label="value",…} number`.
fn sample(line: &str) -> Sample {
    let (series, value) = line
        .rsplit_once(' ')
        .unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (
            name,
            labels
                .strip_suffix('}')
                .unwrap_or_else(|| panic!("no end of labels: {line}")),
        ),
    };
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    assert!(is_name(name), "{line}");
    let labels = labels
        .split("\",")
        .map(|label| label.trim_end_matches('"'))
        .filter(|label| !label.is_empty());
    let labels: Vec<_> = labels
        .map(|label| {
            let (name, value) = label
                .split_once("=\"")
                .unwrap_or_else(|| panic!("no label: {line}"));
            assert!(
                is_name(name) && !value.contains(['"', '\\', '\n']),
                "{line}"
            );
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let value = match value {
        "+Inf" => f64::INFINITY,
        number => number
            .parse()
            .unwrap_or_else(|error| panic!("{error}: {line}")),
    };
    (name.to_owned(), labels, value)
}

/// Reads an exposition strictly; gives types by family, and the samples.
fn exposition(text: &str, open: bool) -> (HashMap<String, String>, Vec<Sample>) {
    assert!(text.ends_with('\n'));
    let (mut types, mut helped, mut samples) = (HashMap::new(), HashSet::new(), Vec::new());
    let lines: Vec<_> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        if open && i + 1 == lines.len() {
            assert_eq!(*line, "# EOF");
        } else if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name, rest) = (
                words.next().unwrap(),
                words.next().expect(line),
                words.next().expect(line),
            );
            assert!(name.starts_with("tillgate_"), "{line}");
            match word {
                "HELP" => assert!(helped.insert(name) && !rest.is_empty(), "{line}"),
                "TYPE" => {
                    let known =
                        ["counter", "gauge", "histogram"].contains(&rest) || open && rest == "info";
                    assert!(known, "{line}");
                    assert!(
                        types.insert(name.to_owned(), rest.to_owned()).is_none(),
                        "a second type: {line}"
                    );
                }
                "UNIT" => assert!(open && name.ends_with(&format!("_{rest}")), "{line}"),
                _ => panic!("neither HELP nor TYPE: {line}"),
            }
        } else {
            let sample = sample(line);
            let families: Vec<_> = types
                .keys()
                .filter(|family| of_family(&sample.0, family, &types[*family], open))
                .collect();
            assert_eq!(
                families.len(),
                1,
                "of one family that was typed before: {line}"
            );
            samples.push(sample);
        }
    }
    let series: HashSet<_> = samples
        .iter()
        .map(|(name, labels, _)| (name, labels))
        .collect();
    assert_eq!(series.len(), samples.len(), "no series twice");
    assert_eq!(
        types.keys().map(String::as_str).collect::<HashSet<_>>(),
        helped,
        "each family has its help"
    );
    (types, samples)
}

fn of_family(name: &str, family: &str, kind: &str, open: bool) -> bool {
    let Some(suffix) = name.strip_prefix(family) else {
        return false;
    };
    match (kind, open) {
        ("histogram", _) => matches!(suffix, "_bucket" | "_sum" | "_count"),
        ("counter", true) => matches!(suffix, "_total" | "_created"),
        ("info", true) => suffix == "_info",
        // In the older text a counter's type stands under the whole name.
        _ => suffix.is_empty(),
    }
}

#[tokio::test]
async fn metrics_are_well_formed_in_both_formats_and_say_the_same() {
    let (_sandbox, _sidecar, _, admin, _) = busy().await;
    let old = get_at(admin, "/metrics").await;
    assert!(
        old.header("content-type")
            .starts_with("text/plain; version=0.0.4"),
        "{}",
        old.header("content-type")
    );
    let new = call(
        admin,
        Method::GET,
        "/metrics",
        &[("accept", OPENMETRICS)],
        "",
    )
    .await;
    assert!(
        new.header("content-type")
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    let (types, samples) = exposition(&old.body, false);
    let (open_types, open_samples) = exposition(&new.body, true);
    assert_eq!(types.len(), open_types.len());
    let names = |samples: &[Sample]| {
        samples
            .iter()
            .map(|(name, ..)| name.clone())
            .collect::<HashSet<_>>()
    };
    assert_eq!(names(&samples), names(&open_samples));
    for (name, kind) in &types {
        assert_eq!(
            kind == "counter",
            name.ends_with("_total"),
            "{name} is a {kind}"
        );
    }
    // Buckets only grow, and the last one is the count.
    let of_start: Vec<_> = samples
        .iter()
        .filter(|(name, ..)| name == "tillgate_start_duration_seconds_bucket")
        .collect();
    assert!(of_start.windows(2).all(|pair| pair[0].2 <= pair[1].2));
    assert_eq!(
        of_start.last().unwrap().1,
        [("le".to_owned(), "+Inf".to_owned())]
    );
    let count = samples
        .iter()
        .find(|(name, ..)| name == "tillgate_start_duration_seconds_count")
        .unwrap();
    assert!((of_start.last().unwrap().2 - count.2).abs() < 0.5);
}

#[tokio::test]
async fn the_metrics_that_are_fixed_are_there_and_count() {
    let (_sandbox, _sidecar, _, admin, _) = busy().await;
    let (_, samples) = exposition(&get_at(admin, "/metrics").await.body, false);
    let value = |name: &str, label: &str| {
        let found = samples.iter().find(|(known, labels, _)| {
            known == name && (label.is_empty() || labels.iter().any(|(_, value)| value == label))
        });
        let (.., value) = found.unwrap_or_else(|| panic!("no {name} {label}"));
        value.to_string().parse::<u64>().expect("a count")
    };
    for (name, label, expected) in [
        ("tillgate_build_info", "", 1),
        ("tillgate_starts_total", "accepted", 2),
        ("tillgate_starts_total", "unknown", 1),
        ("tillgate_start_duration_seconds_count", "", 3),
        ("tillgate_gateway_requests_total", "ok", 2),
        (
            "tillgate_gateway_request_duration_seconds_count",
            "start",
            3,
        ),
        (
            "tillgate_gateway_request_duration_seconds_count",
            "watch",
            3,
        ),
        ("tillgate_polls_saved_total", "", 2),
        ("tillgate_rate_limited_total", "", 0),
        ("tillgate_refused_total", "invalid_amount", 1),
        ("tillgate_refused_total", "not_found", 1),
        ("tillgate_refused_total", "gateway_bad_answer", 1),
        ("tillgate_refused_total", "unknown_watch_code", 1),
        ("tillgate_secret_reload_failures_total", "", 0),
        ("tillgate_secret_echo_total", "", 0),
    ] {
        assert_eq!(value(name, label), expected, "{name} {label}");
    }
    assert!(value("tillgate_secret_loaded_timestamp_seconds", "") > 1_000_000_000);
    let tracked: f64 = samples
        .iter()
        .filter(|(name, ..)| name == "tillgate_payments_tracked")
        .map(|(.., value)| value)
        .sum();
    assert_eq!(tracked.to_string(), "2", "payments are tracked");
}

#[tokio::test]
async fn no_label_comes_from_a_caller() {
    let (_sandbox, _sidecar, api, admin, _) = busy().await;
    let count = async || {
        exposition(&get_at(admin, "/metrics").await.body, false)
            .1
            .len()
    };
    let before = count().await;
    for i in 0..50 {
        let path = format!("/nowhere-{i}");
        assert_eq!(
            call(
                api,
                Method::from_bytes(format!("M{i}").as_bytes()).unwrap(),
                &path,
                &[],
                ""
            )
            .await
            .status,
            404
        );
    }
    assert_eq!(count().await, before, "no new series");
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
        json!({ "by_outcome": outcomes, "rate_limited": 0 })
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
    assert!(markup.contains(r#"<meta http-equiv="refresh" content="5">"#));
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

//! A request is one story in the log: each line that it causes has the id that its caller got.

use std::net::SocketAddr;

use hyper::Method;
use serde_json::Value;

use crate::harness::{Answer, Program, Wire, call, get_at, metric_at, set_faults};

const ORDER: &str = r#"{"amount": 1000}"#;

/// Starts a payment under this id, and under a key if there is one.
async fn start(api: SocketAddr, id: &str, key: Option<&str>) -> Answer {
    let mut headers = vec![("content-type", "application/json"), ("x-request-id", id)];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    call(api, Method::POST, "/api/start_payment", &headers, ORDER).await
}

/// Everything that the program has logged, to its end.
async fn whole_log(sidecar: Program) -> Vec<String> {
    sidecar.signal("TERM");
    let first = sidecar.log.clone();
    let (_, _, err) = sidecar.end().await;
    first
        .into_iter()
        .chain(err.lines().map(ToOwned::to_owned))
        .collect()
}

/// The messages of the lines that have this id, in their order.
fn messages(log: &[String], id: &str) -> Vec<String> {
    let lines = log.iter().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    lines
        .filter(|line| line["request_id"] == id)
        .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn the_lines_of_a_start_have_the_id_that_its_caller_got() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let headers = [("content-type", "application/json")];
    let unnamed = call(api, Method::POST, "/api/start_payment", &headers, ORDER).await;
    let given = unnamed.header("x-request-id").to_owned();
    for id in ["first", "again"] {
        assert_eq!(start(api, id, Some("one-key")).await.status, 200);
    }
    let log = whole_log(sidecar).await;
    for id in [given.as_str(), "first"] {
        assert_eq!(messages(&log, id), ["payment started", "request"], "{id}");
    }
    // What it was answered with was started for another request.
    assert_eq!(messages(&log, "again"), ["request"]);
}

#[tokio::test]
async fn a_start_that_two_requests_ask_for_is_logged_under_one_of_them() {
    let (_sandbox, gateway) = Program::sandbox(&["--fault", "start:delay=500ms"]).await;
    let (sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let (one, other) = tokio::join!(
        start(api, "one", Some("one-key")),
        start(api, "other", Some("one-key"))
    );
    assert_eq!((one.status, other.status), (200, 200));
    let log = whole_log(sidecar).await;
    let started: Vec<_> = ["one", "other"]
        .into_iter()
        .filter(|id| messages(&log, id).contains(&"payment started".to_owned()))
        .collect();
    assert_eq!(started.len(), 1, "{log:#?}");
}

#[tokio::test]
async fn the_warnings_about_a_gateway_have_the_id_of_the_request_that_met_it() {
    // The first line of the program is one of its room `app`.
    const WARNINGS: (&str, &str) = ("log.level", "warn,tillgate::app=info");
    const STALE: &str =
        "no new answer about a payment: the last known one is served while it is young enough";
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (sidecar, api, _) = Program::sidecar(&gateway, &[WARNINGS]).await;
    let started = start(api, "quiet", None).await;
    let watch = format!("/watch/{}", started.text("watch_code"));
    let asked = async |id: &str| {
        let headers = [("x-request-id", id), ("cache-control", "no-cache")];
        let answer = call(api, Method::GET, &watch, &headers, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    asked("good").await;
    set_faults(&gateway, &["watch:status=500", "start:echo-secret"]).await;
    asked("failing").await;
    start(api, "echoed", None).await;
    let log = whole_log(sidecar).await;
    // Whatever else is said of the gateway then: nothing of it is said without the id.
    let warnings: Vec<_> = log
        .iter()
        .filter(|line| line.contains(r#""level":"WARN""#))
        .cloned()
        .collect();
    assert!(
        messages(&log, "failing").contains(&STALE.to_owned()),
        "{log:#?}"
    );
    assert_eq!(
        messages(&warnings, "failing").len(),
        warnings.len(),
        "{log:#?}"
    );
    assert_eq!(
        messages(&log, "echoed"),
        ["the gateway echoed the merchant secret; it was taken out of the answer"]
    );
    for id in ["quiet", "good"] {
        assert!(messages(&log, id).is_empty(), "{id}");
    }
}

#[tokio::test]
async fn a_reader_that_stops_holds_nobody_up_and_misses_requests_before_errors() {
    /// More than can wait, in the pipe and before it.
    const FLOOD: usize = 5000;
    const SECOND: usize = 1000;
    const ERRORS: usize = 12;
    let (_sandbox, gateway) = Program::sandbox(&["--fault", "start:echo-secret"]).await;
    let settings = [("start.burst", "100")];
    let (mut sidecar, api, admin) = Program::sidecar(&gateway, &settings).await;
    let flood = async |requests: usize| {
        let callers = (0..4).map(|_| async {
            let mut wire = Wire::open(api).await;
            for _ in 0..requests / 4 {
                wire.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    .await;
                assert_eq!(wire.answer().await.status, 404);
            }
        });
        futures_util::future::join_all(callers).await;
    };
    let lost = async || metric_at(admin, "tillgate_log_lines_lost_total").await;
    assert_eq!(lost().await, 0);
    flood(FLOOD).await;
    let at_first = lost().await;
    assert!(at_first > 0, "the reader has stopped");
    for n in 0..ERRORS {
        start(api, &format!("echoed-{n}"), None).await;
    }
    flood(SECOND).await;
    let lost = lost().await;
    assert!(lost >= at_first + SECOND as u64, "{lost}");
    let status = get_at(admin, "/status").await.json();
    assert_eq!(status["metrics"]["tillgate_log_lines_lost_total"], lost);

    // It reads on: what is there is in order, and what is not was counted.
    let waited = start(api, "the-last", None).await;
    assert_eq!(waited.status, 200);
    sidecar.log_line("the-last").await;
    let log = whole_log(sidecar).await;
    for n in 0..ERRORS {
        let messages = messages(&log, &format!("echoed-{n}"));
        let echoed = |message: &String| message.starts_with("the gateway echoed");
        assert!(messages.iter().any(echoed), "{n}: {messages:?}");
        assert!(
            messages.contains(&"payment started".to_owned()),
            "{n}: {messages:?}"
        );
    }
    let requests = log.iter().filter(|line| line.contains("not_found")).count() as u64;
    let all = (FLOOD + SECOND) as u64;
    // The lines of the starts are requests, too.
    assert!(
        all.abs_diff(requests + lost) <= 2 * ERRORS as u64,
        "{requests} and {lost}"
    );
}

#[tokio::test]
async fn the_log_has_no_whole_code() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (sidecar, api, _) = Program::sidecar(&gateway, &[("log.level", "trace")]).await;
    let started = start(api, "started", None).await;
    let [code, watch_code] = ["code", "watch_code"].map(|name| started.text(name).to_owned());
    let watched = call(api, Method::GET, &format!("/watch/{watch_code}"), &[], "").await;
    assert_eq!(watched.status, 200);
    let log = whole_log(sidecar).await;
    let line = log
        .iter()
        .find(|line| line.contains("payment started"))
        .unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["code"], format!("{}…", &code[..8]));
    let all = log.join("\n");
    assert!(!all.contains(&code) && !all.contains(&watch_code), "{all}");
}

#[tokio::test]
async fn a_log_of_text_has_the_id_too() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let settings = [("log.format", "text")];
    let mut sidecar = Program::launch(&[], &gateway, &settings);
    let line = sidecar.log_line("tillgate is running").await;
    let address = line
        .split_once("listen=\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(address, _)| address.parse().unwrap())
        .unwrap_or_else(|| panic!("no address in {line}"));
    assert_eq!(start(address, "of-text", None).await.status, 200);
    let log = whole_log(sidecar).await;
    for message in [" payment started ", " request "] {
        let is_it = |line: &&String| line.contains(message) && line.contains("of-text");
        assert_eq!(log.iter().filter(is_it).count(), 1, "{message}: {log:#?}");
    }
}

//! Everything that can be filled is filled at once: memory stays under its bound, and so it does when a full store is
//! opened again.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use futures_util::future::join_all;
use serde_json::Value;

use crate::harness::{Program, Wire, get_at, metric_at};
use crate::receiver::{Mood, Receiver};
use crate::scripted::{Act, Gateway, answer};

const KEY: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const AUTHORIZED: &str = "Host: localhost\r\nAuthorization: Bearer a-token\r\n";
/// As long as each may be, or nearly.
const LONG: usize = 240;
const CONNECTIONS: usize = 64;
/// What the program takes at rest, of its bound. A program that is built for tests takes more, and that does not count.
const AT_REST: u64 = 10 << 20;

/// Gives each start codes of its own. Every second payment is paid; the merchant has a long name.
async fn gateway() -> Gateway {
    let merchant = "M".repeat(1000);
    let act = move |number: usize, request: &str| {
        let body = if request.starts_with("POST") {
            let long = "c".repeat(LONG);
            format!(r#"{{"code":"p{number}{long}","watch_code":"w{number}{long}"}}"#)
        } else {
            let path = request.split(' ').nth(1).unwrap_or_default();
            let digits = path.trim_matches(|c: char| !c.is_ascii_digit());
            let (status, at) = match digits.ends_with(['0', '2', '4', '6', '8']) {
                true => ("completed", r#""2030-01-01 00:00:00""#),
                false => ("created", "null"),
            };
            format!(
                r#"{{"status":"{status}","amount":1000,"merchant":"{merchant}","created_at":"2030-01-01 00:00:00","completed_at":{at}}}"#
            )
        };
        Act::Say(answer(200, &body))
    };
    Gateway::new(act).await
}

/// The head and the body of a start that has a long key and a long reference.
fn start(caller: usize, number: usize) -> String {
    let long = "k".repeat(LONG - 120);
    let body = format!(
        r#"{{"amount":1000,"reference":"r-{caller}-{number}-{}"}}"#,
        &long[..100]
    );
    format!(
        "POST /api/start_payment HTTP/1.1\r\n{AUTHORIZED}Content-Type: application/json\r\nIdempotency-Key: k-{caller}-{number}-{long}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Starts payments until there is no more room; returns the code of the first.
async fn fill(api: SocketAddr, caller: usize) -> String {
    let (mut wire, mut first) = (Wire::open(api).await, None);
    for number in 0.. {
        wire.send(start(caller, number)).await;
        let answer = wire.answer().await;
        if answer.status != 200 {
            assert_eq!(answer.text("error"), "overloaded", "{answer:?}");
            break;
        }
        first.get_or_insert_with(|| answer.text("code").to_owned());
    }
    first.expect("room for one")
}

/// Callers of each kind, who keep their connections, and read nothing.
async fn crowd(api: SocketAddr) -> Vec<Wire> {
    let mut all = Vec::new();
    for i in 0..CONNECTIONS - 8 {
        let mut wire = Wire::open(api).await;
        wire.send(match i % 4 {
            0 => format!("GET /events HTTP/1.1\r\n{AUTHORIZED}\r\n"),
            1 => format!("GET /watch/heard{i}1?wait=50 HTTP/1.1\r\n{AUTHORIZED}If-None-Match: *\r\n\r\n"),
            2 => format!(
                "POST /api/start_payment HTTP/1.1\r\n{AUTHORIZED}Content-Type: application/json\r\nContent-Length: 16384\r\n\r\n{}",
                " ".repeat(16_383)
            ),
            _ => format!("GET /payments?limit=1000 HTTP/1.1\r\n{AUTHORIZED}\r\n"),
        })
        .await;
        all.push(wire);
    }
    all
}

/// The bound of its memory, and its most memory so far, in bytes.
async fn memory(sidecar: &Program, admin: SocketAddr) -> (u64, u64) {
    let status: Value = get_at(admin, "/status").await.json();
    let memory = &status["memory"];
    let peak = sidecar.peak_kib().expect("Linux says so") * 1024;
    assert!(
        memory["resident_bytes"].as_u64().unwrap() <= peak,
        "{memory}"
    );
    (memory["bound_bytes"].as_u64().unwrap(), peak)
}

/// It is full. What the app is owed messages about came on top: that may not go.
async fn is_full(admin: SocketAddr) {
    let bytes = metric_at(admin, "tillgate_store_bytes").await;
    let limit = metric_at(admin, "tillgate_store_bytes_limit").await;
    assert!(
        bytes > limit - limit / 8 && bytes < limit + limit / 4,
        "{bytes} of {limit}"
    );
}

async fn launch(directory: &Path, gateway: &str, app: &str) -> (Program, SocketAddr, SocketAddr) {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let connections = CONNECTIONS.to_string();
    let settings = [
        ("store.url", &*format!("file:{}", path("store"))),
        ("store.max_bytes", "4MiB"),
        ("listen.token_file", &path("tokens")),
        ("listen.max_connections", &connections),
        ("webhook.url", app),
        ("webhook.secret_file", &path("keys")),
        ("start.rate", "100000"),
        ("start.burst", "100000"),
        ("watch.poll_rate", "100"),
    ];
    Program::sidecar(gateway, &settings).await
}

#[tokio::test]
async fn full_of_everything_it_stays_under_the_bound_and_so_it_does_when_it_opens_again() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("tokens", "a-token"), ("keys", KEY)] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let (gateway, app) = (gateway().await, Receiver::new(|_| Mood::Refuse).await);
    let launch = async || launch(directory.path(), &gateway.url(), &app.url()).await;
    let (sidecar, api, admin) = launch().await;
    let (_, at_rest) = memory(&sidecar, admin).await;
    let codes = join_all((0..6).map(|caller| fill(api, caller))).await;
    for i in 0..200 {
        // Codes that were not started here; what is known of them goes first.
        let path = format!("/watch/heard-{i}-{}1", "h".repeat(LONG));
        let mut wire = Wire::open(api).await;
        wire.send(format!("GET {path} HTTP/1.1\r\n{AUTHORIZED}\r\n"))
            .await;
        assert_eq!(wire.answer().await.status, 200);
    }
    let crowd = crowd(api).await;
    is_full(admin).await;
    assert!(metric_at(admin, "tillgate_webhooks_pending").await > 0);
    let (bound, peak) = memory(&sidecar, admin).await;
    // 40 MiB, 64 KiB for each call, 4 MiB, 48 KiB for each connection.
    assert_eq!(
        bound,
        (40 << 20) + (64 + 100) * (64 << 10) + (4 << 20) + 64 * (48 << 10)
    );
    let fits = |peak: u64| peak - at_rest + AT_REST <= bound;
    assert!(fits(peak), "{peak} of {bound}, and {at_rest} at rest");
    drop(crowd);
    sidecar.kill().await;

    let (sidecar, api, admin) = launch().await;
    is_full(admin).await;
    let (_, peak) = memory(&sidecar, admin).await;
    assert!(fits(peak), "{peak} of {bound}, and {at_rest} at rest");
    for (caller, code) in codes.iter().enumerate() {
        let mut wire = Wire::open(api).await;
        wire.send(start(caller, 0)).await;
        assert_eq!(wire.answer().await.text("code"), code);
    }
}

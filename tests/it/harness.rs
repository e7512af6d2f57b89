//! What the tests drive: the whole program in this process ([`Sidecar`]), or the built one ([`Program`]).

mod answer;
mod http;
mod program;
mod sidecar;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use hyper::Method;

pub use self::answer::{Answer, Block, Stream};
pub use self::http::{
    Wire, call, call_unix, exchange, get, get_at, get_stream, metric_at, post, start_at,
    try_stream_at, watch_anew,
};
pub use self::program::{Client, Program, run, variables_of};
pub use self::sidecar::Sidecar;

/// Longest that any condition is waited for: only ever reached by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// The body of a start that is as good as any other.
pub const ORDER: &str = r#"{"amount": 1000}"#;
/// The URL of a gateway for tests that ask none: the discard port, where nothing listens.
pub const NOBODY: &str = "http://127.0.0.1:9";

/// Lets go on what can go on without time passing, until this holds.
pub async fn settles(mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came to that");
}

/// Waits until this gives something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// A port that nobody has, for who must have the same twice. Not from the range that the system gives out: another
/// test would have it in between.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests of another run take theirs elsewhere.
    let first = u16::try_from(std::process::id() % 1000).unwrap() * 10;
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A port that nobody can listen on as long as the socket lives, and nobody does.
pub fn closed_port() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let url = format!(
        "http://{}",
        socket.local_addr().unwrap().as_socket().unwrap()
    );
    (socket, url)
}

/// The address in the URL of a sandbox.
pub fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// The payer pays at that sandbox.
pub async fn pay_at(sandbox: &str, code: &str) {
    let path = format!("/_sandbox/payments/{code}/complete");
    let paid = call(address_of(sandbox), Method::POST, &path, &[], "").await;
    assert!(paid.status < 300, "{paid:?}");
}

/// How many starts and watches have reached that sandbox.
pub async fn calls(sandbox: &str) -> (u64, u64) {
    let calls = get_at(address_of(sandbox), "/_sandbox/calls").await.json();
    (
        calls["start"].as_u64().unwrap(),
        calls["watch"].as_u64().unwrap(),
    )
}

/// Sets what goes wrong at that sandbox from here on.
pub async fn set_faults(sandbox: &str, faults: &[&str]) {
    let body = serde_json::json!({ "faults": faults }).to_string();
    let answer = call(
        address_of(sandbox),
        Method::POST,
        "/_sandbox/faults",
        &[],
        &body,
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Whether a program that a test needs is there; if not, the test says so and is left out, unless everything must run.
pub fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    });
    found || skip(&format!("{program} is not installed"))
}

/// Says why a test is left out, and gives `false`; fails instead where everything must run.
pub fn skip(why: &str) -> bool {
    let all = std::env::var_os("TILLGATE_TEST_ALL").is_some_and(|all| all == "1");
    assert!(!all, "{why}, and TILLGATE_TEST_ALL=1");
    // Not by `eprintln`, which is only shown when a test fails.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    false
}

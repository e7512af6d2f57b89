//! What it costs when many wait, and how long it takes until the last of them hears.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::load::{self, Payment};
use crate::process::{self, Sidecar};
use crate::{SETTLE, median, table};

const CONNECTIONS: usize = 10_000;
/// What else needs a file descriptor, in this process or in the sidecar.
const OTHER_FILES: usize = 200;
const AIM: &str = "<= 9.0 KiB";

/// Those of the latency.
const WAITERS: usize = 1000;
const ROUNDS: usize = 5;

/// How a connection waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    LongPoll,
    /// A long-poll after another request on the same connection.
    LongPollAgain,
    Stream,
}

impl Way {
    /// As the metrics call it.
    fn kind(self) -> &'static str {
        match self {
            Self::LongPoll | Self::LongPollAgain => "long_poll",
            Self::Stream => "stream",
        }
    }

    fn request(self, payment: &Payment, tag: &str) -> Vec<u8> {
        let path = format!("/watch/{}", payment.watch_code);
        match self {
            Self::LongPoll | Self::LongPollAgain => load::get_with(
                &format!("{path}?wait=60"),
                &format!("If-None-Match: {tag}\r\n"),
            ),
            Self::Stream => load::get_with(&path, "Accept: text/event-stream\r\n"),
        }
    }
}

/// Memory of each who waits.
pub(crate) async fn measure(pinned: bool) {
    let count = CONNECTIONS.min(process::open_files().saturating_sub(OTHER_FILES));
    table::head(&format!("{count} connections wait"));
    if count < CONNECTIONS {
        println!("(ulimit -n allows no more: {CONNECTIONS} are meant)");
    }
    for (way, what) in [
        (Way::LongPoll, "memory of each: long-poll"),
        (
            Way::LongPollAgain,
            "memory of each: long-poll, connection used before",
        ),
        (Way::Stream, "memory of each: stream"),
    ] {
        for (payments, on) in [(1, "one payment"), (count, "a payment each")] {
            let bytes = memory(way, payments, count, pinned).await;
            let kibibytes = format!("{}.{} KiB", bytes / 1024, bytes % 1024 * 10 / 1024);
            table::row(&format!("{what}, {on}"), &kibibytes, AIM);
        }
    }
}

async fn memory(way: Way, payments: usize, count: usize, pinned: bool) -> u64 {
    let (sandbox, gateway) = process::sandbox();
    // Every payment is asked for beforehand, so the budget is large; what was learned then is fresh until the end.
    let settings = [
        ("LOG__LEVEL", "error"),
        ("LISTEN__MAX_CONNECTIONS", "20000"),
        ("WATCH__POLL_RATE", "10000"),
        ("WATCH__FRESH_FOR", "10m"),
    ];
    let sidecar = process::sidecar(gateway, &settings, pinned);
    let payments = load::fill(sidecar.api, payments).await;
    let tags = load::tags(sidecar.api, &payments).await;
    // With that budget a living gateway would be asked thousands of times a second.
    drop(sandbox);
    tokio::time::sleep(SETTLE).await;
    let before = sidecar.process.memory();
    let mut connections = Vec::new();
    for (payment, tag) in payments.iter().zip(&tags).cycle().take(count) {
        let mut stream = load::connect(sidecar.api).await;
        if way == Way::LongPollAgain {
            load::ask(
                &mut stream,
                &load::get(&format!("/watch/{}", payment.watch_code)),
                |_| {},
            )
            .await;
        }
        stream
            .write_all(&way.request(payment, tag))
            .await
            .expect("it reads");
        connections.push(stream);
    }
    all_wait(&sidecar, way, count).await;
    table::each(before, sidecar.process.memory(), count)
}

async fn all_wait(sidecar: &Sidecar, way: Way, count: usize) {
    let began = Instant::now();
    while load::waiters(sidecar.admin, way.kind()) < count {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "not all of them wait"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(SETTLE).await;
}

/// How long it takes until a change is told to all who wait for it.
pub(crate) async fn latency(pinned: bool) {
    table::head(&format!(
        "one payment is paid, {WAITERS} long-polls wait (median of {ROUNDS})"
    ));
    let (_sandbox, gateway) = process::sandbox();
    let sidecar = process::sidecar(gateway, &[("LOG__LEVEL", "warn")], pinned);
    let (mut firsts, mut spreads) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (first, spread) = round(&sidecar, gateway).await;
        firsts.push(first);
        spreads.push(spread);
    }
    let milliseconds = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
    // The background polls what is waited for every two seconds.
    table::row(
        "from the payment to the first answer",
        &milliseconds(median(firsts)),
        "<= 2000 ms",
    );
    table::row(
        "from the first answer to the last",
        &milliseconds(median(spreads)),
        "<= 50 ms",
    );
}

/// From the payment to the first answer, and from there to the last.
async fn round(sidecar: &Sidecar, gateway: SocketAddr) -> (Duration, Duration) {
    let payment = load::started(sidecar.api).await;
    let tags = load::tags(sidecar.api, std::slice::from_ref(&payment)).await;
    let request = Way::LongPoll.request(&payment, &tags[0]);
    let mut answers = JoinSet::new();
    for _ in 0..WAITERS {
        let (mut stream, request) = (load::connect(sidecar.api).await, request.clone());
        answers.spawn(async move {
            load::ask(&mut stream, &request, |_| {}).await;
            Instant::now()
        });
    }
    all_wait(sidecar, Way::LongPoll, WAITERS).await;
    load::complete(gateway, &payment).await;
    let paid = Instant::now();
    let times = answers.join_all().await;
    let first = times.iter().min().expect("there are some");
    let last = times.iter().max().expect("there are some");
    (*first - paid, *last - *first)
}

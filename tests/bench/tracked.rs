//! What it costs to keep many payments.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::{self, Sidecar};
use crate::{SETTLE, load, table};

const PAYMENTS: usize = 100_000;
/// Before the first look at the memory: what the first few cost is not the price of one more.
const WARM_UP: usize = 1000;
const IDLE: Duration = Duration::from_secs(10);
/// Until all are on the agenda for a new reader of /events: a thousand come with each turn that the budget has.
const ADOPTED: Duration = Duration::from_secs(6);
const ROOM: &str = "150000";
const AIM: &str = "<= 600 bytes";

/// Memory and time of a core, for 100,000 payments.
pub(crate) async fn measure(pinned: bool) {
    table::head("100,000 payments kept");
    let token_file = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench-token");
    std::fs::write(token_file, load::TOKEN).expect("a place for it");
    let settings = |poll_rate| {
        [
            ("LOG__LEVEL", "warn"),
            ("LISTEN__TOKEN_FILE", token_file),
            ("WATCH__MAX_TRACKED", ROOM),
            ("WATCH__POLL_RATE", poll_rate),
        ]
    };
    let memory = |what: &str, before: u64, sidecar: &Sidecar| {
        row_of_memory(
            what,
            table::each(before, sidecar.process.memory(), PAYMENTS),
        );
    };

    // Each is asked for once in a short time, so the budget is large.
    let (sandbox, gateway) = process::sandbox();
    let sidecar = process::sidecar(gateway, &settings("10000"), pinned);
    let (before, payments) = fill(&sidecar).await;
    memory("memory of each: started", before, &sidecar);
    cpu("time of a core: nobody waits", &sidecar).await;
    load::tags(sidecar.api, &payments).await;
    tokio::time::sleep(SETTLE).await;
    memory(
        "memory of each: started, and asked for once",
        before,
        &sidecar,
    );
    // With that budget a living gateway would be asked thousands of times a second.
    drop(sandbox);
    let _reader = events(sidecar.api).await;
    memory(
        "memory of each: the same, and followed for /events",
        before,
        &sidecar,
    );
    drop(sidecar);

    let (_sandbox, gateway) = process::sandbox();
    let sidecar = process::sidecar(gateway, &settings("20"), pinned);
    fill(&sidecar).await;
    let _reader = events(sidecar.api).await;
    tokio::time::sleep(ADOPTED).await;
    cpu(
        "time of a core: one reads /events, 20 polls a second",
        &sidecar,
    )
    .await;
}

/// The payments, and the memory before they were there.
async fn fill(sidecar: &Sidecar) -> (u64, Vec<load::Payment>) {
    load::fill(sidecar.api, WARM_UP).await;
    tokio::time::sleep(SETTLE).await;
    let before = sidecar.process.memory();
    let payments = load::fill(sidecar.api, PAYMENTS).await;
    tokio::time::sleep(SETTLE).await;
    (before, payments)
}

/// A reader of /events that has been told of all of them.
async fn events(address: SocketAddr) -> TcpStream {
    let mut stream = load::connect(address).await;
    stream
        .write_all(&load::get("/events"))
        .await
        .expect("it reads");
    let mut told = 0;
    let (mut buffer, mut filled) = (vec![0; 64 * 1024], 0);
    while told < PAYMENTS + WARM_UP {
        let n = stream
            .read(&mut buffer[filled..])
            .await
            .expect("it answers");
        assert!(n > 0, "the stream ended");
        let end = filled + n;
        told += buffer[..end]
            .windows(6)
            .filter(|bytes| bytes == b"\ndata:")
            .count();
        // A mark may be cut in two.
        filled = end.min(5);
        buffer.copy_within(end - filled..end, 0);
    }
    tokio::time::sleep(SETTLE).await;
    stream
}

fn row_of_memory(what: &str, bytes: u64) {
    table::row(what, &format!("{bytes} bytes"), AIM);
}

async fn cpu(what: &str, sidecar: &Sidecar) {
    let before = sidecar.process.cpu_time();
    tokio::time::sleep(IDLE).await;
    let share = sidecar
        .process
        .cpu_time()
        .saturating_sub(before)
        .as_secs_f64()
        / IDLE.as_secs_f64();
    table::row(what, &format!("{:.2} %", share * 100.0), "< 1 %");
}

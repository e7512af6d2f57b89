//! What it costs when somebody means harm: connections that never come to an end, and callers who are slow on purpose.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::process::{self, Sidecar};
use crate::{SETTLE, load, table};

const CONNECTIONS: usize = 4000;
/// What else needs a file descriptor, in this process or in the sidecar.
const OTHER_FILES: usize = 200;
/// How long starts are measured while nobody means harm.
const SIEGE: Duration = Duration::from_secs(3);
/// Who is still there then stays.
const GIVE_UP: Duration = Duration::from_secs(60);

/// The settings of a sidecar that has patience with everybody, so that its memory can be looked at.
const PATIENT: [(&str, &str); 5] = [
    ("LOG__LEVEL", "error"),
    ("LISTEN__MAX_CONNECTIONS", "20000"),
    ("LISTEN__HEADER_TIMEOUT", "10m"),
    ("LISTEN__BODY_TIMEOUT", "10m"),
    ("LISTEN__IDLE_TIMEOUT", "10m"),
];

/// Memory of each connection that is not done, and of each byte that it sent.
pub(crate) async fn memory(pinned: bool) {
    let count = CONNECTIONS.min(process::open_files().saturating_sub(OTHER_FILES));
    table::head(&format!("{count} connections that never come to an end"));
    let post =
        "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let kib = |n: usize, of: &str| of.repeat(n * 1024 / of.len());
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let cases = [
        ("not a byte", String::new()),
        ("half a request line", "GET /wat".to_owned()),
        (
            "half a head, 200 bytes",
            format!(
                "GET /watch/x HTTP/1.1\r\nHost: localhost\r\nX: {}",
                "x".repeat(156)
            ),
        ),
        (
            "half a head, 15 KiB of one field",
            format!(
                "GET /watch/x HTTP/1.1\r\nHost: localhost\r\nX: {}",
                kib(15, "x")
            ),
        ),
        (
            "half a head, 99 fields",
            format!(
                "GET /watch/x HTTP/1.1\r\nHost: localhost\r\n{}",
                "X: y\r\n".repeat(98)
            ),
        ),
        (
            "half a body, 1 byte",
            format!("{post}Content-Length: 16000\r\n\r\n "),
        ),
        (
            "half a body, 15 KiB",
            format!("{post}Content-Length: 16000\r\n\r\n{}", kib(15, " ")),
        ),
        (
            "half a body, 15 KiB in chunks of a byte",
            format!("{chunked}{}", kib(15, "1\r\n \r\n")),
        ),
    ];
    for (what, bytes) in cases {
        let (_sandbox, gateway) = process::sandbox();
        let sidecar = process::sidecar(gateway, &PATIENT, pinned);
        // What the first few cost is not the price of one more.
        drop(open(sidecar.api, 50, b"GET / HTTP/1.1\r\n").await);
        tokio::time::sleep(SETTLE).await;
        let before = sidecar.process.memory();
        let held = open(sidecar.api, count, bytes.as_bytes()).await;
        let each = table::each(before, settled(&sidecar).await, held.len());
        let kibibytes = format!("{}.{} KiB", each / 1024, each % 1024 * 10 / 1024);
        // What bare hyper takes for one that has sent next to nothing.
        let aim = if bytes.len() > 1024 { "" } else { "< 12.7 KiB" };
        table::row(&format!("memory of each: {what}"), &kibibytes, aim);
        if bytes.len() > 1024 {
            let tenths = each * 10 / bytes.len() as u64;
            table::row(
                "  of each byte that was sent",
                &format!("{}.{} bytes", tenths / 10, tenths % 10),
                "< 10 bytes",
            );
        }
    }
}

/// How long a start takes while 500 are slow with a head, 300 with a body and 300 read nothing, and when those are gone;
/// all limits are the defaults.
pub(crate) async fn siege(pinned: bool) {
    table::head("a start while 1,100 callers are slow on purpose");
    let (_sandbox, gateway) = process::sandbox();
    let sidecar = process::sidecar(gateway, &[("LOG__LEVEL", "error")], pinned);
    let files = sidecar.process.open_files();
    let quiet = starts(&sidecar, async || tokio::time::sleep(SIEGE).await).await;
    let mut slow = open(
        sidecar.api,
        500,
        b"GET /watch/x HTTP/1.1\r\nHost: localhost\r\n",
    )
    .await;
    let head =
        "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    slow.extend(
        open(
            sidecar.api,
            300,
            format!("{head}Content-Length: 16000\r\n\r\n").as_bytes(),
        )
        .await,
    );
    for i in 0..300 {
        // Half of them ask for the largest answer that there is, half for one of the smallest.
        let requests = load::get(["/openapi.json", "/nowhere"][i % 2]).repeat(100);
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(2048).expect("a size");
        let stream = socket.connect(sidecar.api).await.expect("it listens");
        stream.writable().await.expect("it reads");
        let _ = stream.try_write(&requests);
        slow.push(stream);
    }
    let began = Instant::now();
    let siege = starts(&sidecar, async || {
        while sidecar.process.open_files() > files + 8 && began.elapsed() < GIVE_UP {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let siege = siege.await;
    let gone = began.elapsed();
    drop(slow);
    for (what, mut times) in [("nobody is slow", quiet), ("1,100 are slow", siege)] {
        times.sort();
        let at = |share: usize| {
            format!(
                "{:.1} ms",
                times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3
            )
        };
        table::row(
            &format!("{what}: half of {} starts", times.len()),
            &at(50),
            "",
        );
        table::row(&format!("{what}: the slowest"), &at(100), "< 100 ms");
    }
    table::row(
        "all of them gone after",
        &format!("{:.1} s", gone.as_secs_f64()),
        "< 12 s",
    );
}

/// Starts one after the other, a hundred a second at most, until that is over.
async fn starts(sidecar: &Sidecar, until: impl AsyncFnOnce()) -> Vec<Duration> {
    let mut stream = load::connect(sidecar.api).await;
    let mut times = Vec::new();
    let start = async {
        loop {
            let asked = Instant::now();
            load::ask(&mut stream, &load::start(), |_| {}).await;
            times.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = start => {}
        () = until() => {}
    }
    times
}

/// Its memory when it has read all that came, however busy the machine is.
async fn settled(sidecar: &Sidecar) -> u64 {
    let (mut before, mut quiet) = (0, 0);
    while quiet < 3 {
        tokio::time::sleep(SETTLE).await;
        let now = sidecar.process.memory();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    before
}

async fn open(address: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = load::connect(address).await;
        stream.write_all(bytes).await.expect("it reads");
        held.push(stream);
    }
    held
}

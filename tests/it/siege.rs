//! Very many who are slow on purpose, all at once: they are gone by their deadlines, and nobody else notices them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::harness::{Program, Wire, get_at, skip, until};

const HEADS: usize = 500;
const BODIES: usize = 300;
const READERS: usize = 300;
/// What else this process and the sidecar have open.
const OTHER_FILES: usize = 400;
/// More than once or twice this is in no buffer of a connection that nobody reads from.
const WORDY: usize = 60_000;

/// Makes room for so many sockets in this process, and in those that it starts.
fn open_files(number: usize) -> bool {
    let id = std::process::id().to_string();
    let (all, soft) = (format!("--nofile={number}:"), || {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .unwrap();
        line.split_whitespace()
            .next()
            .unwrap()
            .parse::<usize>()
            .unwrap_or(usize::MAX)
    });
    if soft() < number {
        let _ = std::process::Command::new("prlimit")
            .args(["--pid", &id, &all])
            .status();
    }
    soft() >= number || skip(&format!("fewer than {number} files may be open"))
}

/// A connection that takes in next to nothing.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(address).await.expect("it listens")
}

/// A gateway that has much to say about every payment.
async fn wordy_gateway() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for i in 0_u32.. {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let mut request = Vec::new();
            while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n")
                && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0)
            {}
            let is_start = request.starts_with(b"POST");
            while is_start
                && !request.ends_with(b"}")
                && stream.read_buf(&mut request).await.is_ok_and(|n| n > 0)
            {}
            let body = if is_start {
                format!(r#"{{"code":"pay-{i}","watch_code":"watch-{i}","message":"ok"}}"#)
            } else {
                format!(
                    r#"{{"status":"completed","amount":1,"words":"{}"}}"#,
                    "x".repeat(WORDY)
                )
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
    });
    url
}

async fn start(wire: &mut Wire) {
    let head =
        "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    wire.send(format!(
        "{head}\r\nContent-Length: 15\r\n\r\n{{\"amount\":1000}}"
    ))
    .await;
    let answer = wire.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn eleven_hundred_slow_callers_are_gone_by_their_deadlines_and_hold_nobody_up() {
    if !open_files(HEADS + BODIES + READERS + OTHER_FILES) {
        return;
    }
    let gateway = wordy_gateway().await;
    let settings = [
        ("listen.max_connections", "1200"),
        // As those who do not read have, and longer than it takes to open all of them on a busy machine.
        ("listen.header_timeout", "10s"),
        ("listen.body_timeout", "10s"),
        ("listen.idle_timeout", "600s"),
        ("start.burst", "10000"),
    ];
    let (sidecar, api, admin) = Program::sidecar(&gateway, &settings).await;
    // From here on it is final, and comes from memory.
    let watch = "GET /watch/wordy HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut starter = Wire::open(api).await;
    starter.send(watch).await;
    assert_eq!(starter.answer().await.text("status"), "completed");
    let quiet = sidecar.open_files();
    // Where the machine is slow, the first are gone again before the last are accepted.
    let mut most = quiet;

    let mut dripping = Vec::new();
    for i in 0..HEADS {
        let mut stream = TcpStream::connect(api).await.unwrap();
        // Some say nothing, some never come to the end.
        let part = ["", "G", "GET /watch/x HTTP/1.1\r\nHost: localhost\r\n"][i % 3];
        stream.write_all(part.as_bytes()).await.unwrap();
        if i % 3 == 2 {
            dripping.push((stream, "X: 1\r\n"));
        } else {
            dripping.push((stream, ""));
        }
        most = most.max(sidecar.open_files());
    }
    for i in 0..BODIES {
        let mut stream = TcpStream::connect(api).await.unwrap();
        let head = "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        let (framing, drip) = [
            ("Content-Length: 16000\r\n\r\n", " "),
            ("Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"),
        ][i % 2];
        stream
            .write_all(format!("{head}{framing}").as_bytes())
            .await
            .unwrap();
        dripping.push((stream, drip));
        most = most.max(sidecar.open_files());
    }
    // A few answers that no buffer can hold, and many that are in the system's buffers before anybody notices.
    let small = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut deaf = Vec::new();
    for i in 0..READERS {
        let mut stream = narrow(api).await;
        stream
            .write_all([watch, small, watch][i % 3].repeat(40).as_bytes())
            .await
            .unwrap();
        deaf.push(stream);
        most = most.max(sidecar.open_files());
    }

    let began = Instant::now();
    let drip = async {
        loop {
            for (stream, drip) in &mut dripping {
                // Those whose time is over are told so, or cut off.
                let _ = stream.try_write(drip.as_bytes());
            }
            for stream in deaf.iter().skip(2).step_by(3) {
                // It helps nobody to read a byte now and then.
                let _ = stream.try_read(&mut [0]);
            }
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    };
    let look = async {
        // The last deadline is the ten seconds of those who do not read. Without deadlines they would stay for ten
        // minutes, or for ever.
        while sidecar.open_files() > quiet + 2 {
            assert!(
                began.elapsed() < Duration::from_secs(40),
                "{} are still there",
                sidecar.open_files() - quiet
            );
            most = most.max(sidecar.open_files());
            start(&mut starter).await;
            for probe in ["/livez", "/readyz"] {
                assert_eq!(get_at(admin, probe).await.status, 200, "{probe}");
            }
        }
    };
    tokio::select! {
        () = drip => unreachable!("it goes on"),
        () = look => {}
    }
    assert!(most > quiet + READERS, "only {most} files were open");
    drop((dripping, deaf));
    start(&mut Wire::open(api).await).await;
}

#[tokio::test]
async fn who_asks_again_and_again_and_never_reads_does_not_keep_its_place() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[("listen.max_connections", "3")]).await;
    let get = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let post = "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let bad = "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 99999999\r\n\r\n";
    let mut deaf = Vec::new();
    for requests in [
        get.repeat(200),
        post.repeat(200),
        format!("{}{bad}", get.repeat(200)),
    ] {
        let mut stream = narrow(api).await;
        // Answered once, so that it surely has a place.
        stream.write_all(get.as_bytes()).await.unwrap();
        stream.readable().await.unwrap();
        deaf.push(tokio::spawn(async move {
            while stream.write_all(requests.as_bytes()).await.is_ok() {}
        }));
    }
    assert_eq!(
        get_at(api, "/nowhere").await.status,
        503,
        "there is no place left"
    );
    // Until the system's own buffers are full nobody can know that they do not read.
    let ended = async {
        for deaf in deaf {
            deaf.await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .expect("all of them are cut off in time");
    until("the places are free", async || {
        (get_at(api, "/nowhere").await.status == 404).then_some(())
    })
    .await;
}

#[tokio::test]
async fn probes_are_answered_even_when_others_hold_every_place_of_the_admin_listener() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, _, admin) = Program::sidecar(&gateway, &[]).await;
    let mut held = Vec::new();
    // Kept alive after an answer, each may be silent for two minutes.
    loop {
        let mut wire = Wire::open(admin).await;
        wire.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        if wire.answer().await.status == 503 {
            break;
        }
        held.push(wire);
        assert!(held.len() < 2000, "there is no end of places");
    }
    for (path, body) in [
        ("/livez", "ok\n"),
        ("/readyz", "ok\n"),
        ("/readyz?verbose", "[+]secret ok\n"),
        ("/readyz/secret", "ok\n"),
    ] {
        let answer = get_at(admin, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.body.contains(body), "{path}: {answer:?}");
    }
    let mut foreign = Wire::open(admin).await;
    foreign
        .send("GET /readyz HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        .await;
    let refused = foreign.answer().await;
    assert_eq!(refused.status, 403, "the same rules hold: {refused:?}");
    foreign.closed().await;
    for path in ["/metrics", "/status", "/", "/livez/x"] {
        assert_eq!(get_at(admin, path).await.status, 503, "{path}");
    }
}

/// What those send who never come to the end of a head.
const PARTS: [&str; 3] = ["", "G", "GET /livez HTTP/1.1\r\nHost: localhost\r\n"];

async fn silent(address: SocketAddr, number: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for i in 0..number {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // Those before it may have had to make way already.
        let _ = stream.write_all(PARTS[i % PARTS.len()].as_bytes()).await;
        silent.push(stream);
    }
    silent
}

#[tokio::test]
async fn nine_hundred_silent_connections_to_the_admin_listener_end_no_probe() {
    if !open_files(900 + OTHER_FILES) {
        return;
    }
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (sidecar, _, admin) = Program::sidecar(&gateway, &[]).await;
    let quiet = sidecar.open_files();
    let _silent = silent(admin, 900).await;
    for path in ["/livez", "/readyz", "/readyz/store"].repeat(7) {
        assert_eq!(get_at(admin, path).await.status, 200, "{path}");
    }
    until("a page that is no probe", async || {
        (get_at(admin, "/metrics").await.status == 200).then_some(())
    })
    .await;
    // None of them is kept beyond the places that there are.
    until("the others are closed", async || {
        (sidecar.open_files() <= quiet + 64 + 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn silent_connections_make_way_for_callers() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let settings = [
        ("listen.max_connections", "5"),
        ("listen.header_timeout", "10m"),
        ("listen.idle_timeout", "10m"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway, &settings).await;
    let mut caller = Wire::open(api).await;
    start(&mut caller).await;
    let _silent = silent(api, 100).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        let got_in = async || {
            let mut wire = Wire::open(api).await;
            wire.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            (wire.answer().await.status == 404).then_some(wire)
        };
        others.push(until("a place", got_in).await);
    }
    start(&mut caller).await;
    // Who has said something keeps its place.
    assert_eq!(get_at(api, "/nowhere").await.status, 503);
}

//! The door on raw bytes: what the listener does with requests that no client library would send, and when.

mod malformed;

use std::net::SocketAddr;

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use self::malformed::malformed;
use crate::harness::{Answer, ORDER, Program, Wire, calls, get_at, has, skip, start_at, until};

/// What follows every bad request in the same write: it must never be taken for a request.
const GOOD: &str = "GET /watch/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
const POST: &str = "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n";

/// What a refusal says: its status and word. An answer without a body is hyper's own.
pub type Refusal = (u16, &'static str);
const BAD: Refusal = (400, "bad_request");
const TOO_LARGE: Refusal = (431, "headers_too_large");
const TOO_LONG: Refusal = (414, "uri_too_long");
const EXPECTATION: Refusal = (417, "expectation_failed");

/// A GET with these header lines.
fn with_headers(lines: &str) -> Vec<u8> {
    format!("GET /watch/x HTTP/1.1\r\n{lines}\r\n\r\n").into_bytes()
}

/// A GET of this target.
fn with_target(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A start with these further header lines, and this after the head.
fn with_body(lines: &str, body: &str) -> Vec<u8> {
    format!("{POST}{lines}\r\n\r\n{body}").into_bytes()
}

/// Writes all while it reads all: a refusal may come before the request has been read. An error here is the test's
/// finding, not its end.
pub async fn exchange(api: SocketAddr, bytes: Vec<u8>) -> Result<Vec<Answer>, String> {
    let mut stream = TcpStream::connect(api).await.expect("it listens");
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let both = async { tokio::join!(write.write_all(&bytes), read.read_to_end(&mut received)) };
    let both = tokio::time::timeout(std::time::Duration::from_secs(10), both).await;
    let (_, end) = both.map_err(|_| "the connection stays open".to_owned())?;
    end.map_err(|error| format!("no orderly end: {error}"))?;
    Answer::all(&received)
}

fn is_one_refusal(answers: &[Answer], (status, word): Refusal) -> Result<(), String> {
    let [answer] = answers else {
        return Err(format!("{} answers: {answers:?}", answers.len()));
    };
    let bare = status == 400 && answer.status == 400 && answer.body.is_empty();
    let told = answer.status == status && answer.body.contains(&format!(r#""error":"{word}""#));
    if bare || told {
        Ok(())
    } else {
        Err(format!("not {status} {word}: {answer:?}"))
    }
}

impl Wire {
    async fn asked(mut self, request: &str) -> Answer {
        self.send(request).await;
        self.answer().await
    }
}

/// A sidecar, and the watch code of a payment behind it.
async fn with_payment(
    settings: &[(&str, &str)],
) -> (Program, Program, String, SocketAddr, SocketAddr, String) {
    let (sandbox, gateway) = Program::sandbox(&[]).await;
    let (sidecar, api, admin) = Program::sidecar(&gateway, settings).await;
    let started = start_at(api, ORDER).await;
    assert_eq!(started.status, 200, "{started:?}");
    let watch_code = started.text("watch_code").to_owned();
    (sandbox, sidecar, gateway, api, admin, watch_code)
}

#[tokio::test]
async fn odd_requests_that_are_well_formed_are_answered_and_the_connection_goes_on() {
    let (_sandbox, _sidecar, _, api, _, code) = with_payment(&[]).await;
    let length = ORDER.len();
    let hundred: String = (0..99).map(|i| format!("X-{i}: {i}\r\n")).collect();
    let get = |lines: &str| format!("GET /watch/{code} HTTP/1.1\r\n{lines}\r\n");
    let cases = [
        (
            "Java's offer of h2c",
            format!(
                "POST /api/start_payment HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: {length}\r\n\
                 Host: localhost\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nUpgrade: h2c\r\n\
                 User-Agent: Java-http-client/17\r\nContent-Type: application/json\r\n\r\n{ORDER}"
            ),
        ),
        (
            "chunks",
            format!(
                "{POST}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\nF\r\n{}\r\n0\r\n\r\n",
                &ORDER[1..]
            ),
        ),
        (
            "CHUNKED",
            format!("{POST}Transfer-Encoding: CHUNKED\r\n\r\n10\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk extension",
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n10;a=b\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "zeros before a chunk's size",
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n0010\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "a charset",
            format!(
                "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json; charset=utf-8\r\n\
                 Content-Length: {length}\r\n\r\n{ORDER}"
            ),
        ),
        (
            "Expect with the body at once",
            format!("{POST}Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n{ORDER}"),
        ),
        (
            "the host in capitals with a port",
            get("Host: LOCALHOST:1234\r\n"),
        ),
        ("an IPv4 host", get("Host: 127.0.0.1\r\n")),
        ("an IPv6 host with a port", get("Host: [::1]:8700\r\n")),
        ("a host with an empty port", get("Host: localhost:\r\n")),
        ("no space after the colon", get("Host:localhost\r\n")),
        ("tabs around a value", get("Host:\tlocalhost\t\r\n")),
        (
            "Sec-Fetch-Mode alone, as Node sends it",
            get("Host: localhost\r\nSec-Fetch-Mode: cors\r\n"),
        ),
        (
            "Sec-Fetch-Site none",
            get("Host: localhost\r\nSec-Fetch-Site: none\r\n"),
        ),
        ("100 fields", get(&format!("Host: localhost\r\n{hundred}"))),
        (
            "an empty line before the request",
            format!("\r\n{}", get("Host: localhost\r\n")),
        ),
        (
            "a length of 0 on a GET",
            get("Host: localhost\r\nContent-Length: 0\r\n"),
        ),
        (
            "a body on a GET",
            get("Host: localhost\r\nContent-Length: 5\r\n") + "hello",
        ),
        (
            "a value in Latin-1",
            get("Host: localhost\r\nX-Name: \u{e9}\r\n"),
        ),
        (
            "a long query",
            format!(
                "GET /watch/{code}?{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                "x".repeat(8000)
            ),
        ),
    ];
    let mut wire = Wire::open(api).await;
    for (name, request) in &cases {
        wire.send(request).await;
        let mut answer = wire.answer().await;
        if answer.status == 100 {
            answer = wire.answer().await;
        }
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
    // The same connection all the way; and now two requests in one write.
    let two = get("Host: localhost\r\nX-Request-Id: one\r\n")
        + &get("Host: localhost\r\nX-Request-Id: two\r\n");
    wire.send(&two).await;
    for id in ["one", "two"] {
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.header("x-request-id")),
            (200, id),
            "{answer:?}"
        );
    }
    // A request that comes in single bytes.
    for byte in get("Host: localhost\r\nConnection: close\r\n").bytes() {
        wire.send([byte]).await;
    }
    assert_eq!(wire.answer().await.status, 200);
    wire.closed().await;
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let (_sandbox, _sidecar, _, api, _, code) = with_payment(&[]).await;
    let mut wire = Wire::open(api).await;
    wire.send(format!(
        "GET /watch/{code} HTTP/1.0\r\nHost: localhost\r\n\r\n{GOOD}"
    ))
    .await;
    assert_eq!(wire.answer().await.status, 200);
    wire.closed().await;
}

#[tokio::test]
async fn a_caller_who_waits_for_100_continue_gets_it_only_where_the_body_is_wanted() {
    let (_sandbox, _sidecar, _, api, _, _) = with_payment(&[]).await;
    let expects = format!(
        "Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        ORDER.len()
    );
    let mut wire = Wire::open(api).await;
    wire.send(format!("{POST}{expects}")).await;
    assert_eq!(wire.answer().await.status, 100);
    wire.send(ORDER).await;
    assert_eq!(wire.answer().await.status, 200);
    // Refused from its head alone: the refusal comes in the place of the 100.
    wire.send(format!(
        "POST /nowhere HTTP/1.1\r\nHost: localhost\r\n{expects}"
    ))
    .await;
    assert_eq!(wire.answer().await.status, 404);
    wire.closed().await;
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let (_sandbox, _sidecar, _, api, _, _) = with_payment(&[("listen.header_timeout", "1s")]).await;
    let answers = Wire::open(api).await.answers().await;
    assert!(
        answers.iter().all(|answer| answer.status == 408) && answers.len() < 2,
        "{answers:?}"
    );
}

#[tokio::test]
async fn half_a_head_gets_408_however_slowly_it_still_comes() {
    let (_sandbox, _sidecar, _, api, _, _) = with_payment(&[("listen.header_timeout", "1s")]).await;
    let mut wire = Wire::open(api).await;
    wire.send("GET /watch/x HTTP/1.1\r\nHost: loc").await;
    let answer = wire.answer().await;
    assert_eq!(
        (answer.status, answer.text("error")),
        (408, "request_timeout")
    );
    wire.closed().await;

    // A byte now and then does not start the time anew.
    let mut stream = TcpStream::connect(api).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let drip = async {
        write
            .write_all(b"GET /watch/x HTTP/1.1\r\nHost: localhost\r\n")
            .await
            .unwrap();
        while write.write_all(b"X-A: 1\r\n").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = drip => panic!("the connection was cut before an answer could be read"),
        read = tokio::time::timeout(std::time::Duration::from_secs(15), read.read_to_end(&mut received)) => {
            read.expect("an end in time").expect("an orderly end");
        }
    }
    let answers = Answer::all(&received).unwrap();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(
        (answers[0].status, answers[0].text("error")),
        (408, "request_timeout")
    );
}

#[tokio::test]
async fn the_second_head_of_a_connection_has_its_time_limit_too() {
    let (_sandbox, _sidecar, _, api, _, code) =
        with_payment(&[("listen.header_timeout", "1s")]).await;
    let mut wire = Wire::open(api).await;
    wire.send(format!(
        "GET /watch/{code} HTTP/1.1\r\nHost: localhost\r\n\r\nGET /wat"
    ))
    .await;
    assert_eq!(wire.answer().await.status, 200);
    let answer = wire.answer().await;
    assert_eq!(
        (answer.status, answer.text("error")),
        (408, "request_timeout")
    );
    wire.closed().await;
}

#[tokio::test]
async fn half_a_body_gets_408_and_starts_nothing() {
    let (_sandbox, _sidecar, gateway, api, _, _) =
        with_payment(&[("listen.body_timeout", "300ms")]).await;
    for (lines, part) in [
        ("Content-Length: 16", r#"{"amount""#),
        ("Content-Length: 16", ""),
        ("Transfer-Encoding: chunked", "10\r\n{\"amo"),
        ("Transfer-Encoding: chunked", "10\r\n{\"amount\": 1000}\r\n"),
        ("Transfer-Encoding: chunked", "1"),
    ] {
        let mut wire = Wire::open(api).await;
        wire.send(format!("{POST}{lines}\r\n\r\n{part}")).await;
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.text("error"), answer.text("outcome")),
            (408, "request_timeout", "not_sent")
        );
        wire.closed().await;
    }
    assert_eq!(calls(&gateway).await.0, 1, "only the first, whole one");
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_starts_nothing() {
    let (_sandbox, _sidecar, gateway, api, _, _) = with_payment(&[]).await;
    for lines in ["Content-Length: 17", "Transfer-Encoding: chunked"] {
        let mut wire = Wire::open(api).await;
        wire.send(format!(
            "{POST}{lines}\r\n\r\n{}",
            if lines.contains("17") {
                ORDER
            } else {
                "10\r\n{\"amount\": 1000}"
            }
        ))
        .await;
        let mut stream = wire.into_stream();
        stream.shutdown().await.unwrap();
        let mut received = Vec::new();
        // A caller who ended may be told why, or just be let go.
        let _ = stream.read_to_end(&mut received).await;
        let answers = Answer::all(&received).unwrap();
        assert!(
            answers.iter().all(|answer| answer.status == 400),
            "{answers:?}"
        );
    }
    assert_eq!(calls(&gateway).await.0, 1, "only the first, whole one");
}

#[tokio::test]
async fn an_idle_kept_alive_connection_is_closed_without_a_byte() {
    let (_sandbox, _sidecar, _, api, _, code) =
        with_payment(&[("listen.idle_timeout", "300ms")]).await;
    let mut wire = Wire::open(api).await;
    wire.send(format!(
        "GET /watch/{code} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.answer().await.status, 200);
    wire.closed().await;
}

#[tokio::test]
async fn a_request_that_takes_longer_than_the_idle_timeout_is_still_answered() {
    let settings = [
        ("listen.idle_timeout", "1s"),
        ("listen.header_timeout", "1s"),
        ("listen.body_timeout", "1s"),
    ];
    let (_sandbox, gateway) = Program::sandbox(&["--fault", "start:delay=3s"]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &settings).await;
    let mut wire = Wire::open(api).await;
    wire.send(format!(
        "{POST}Content-Length: {}\r\n\r\n{ORDER}",
        ORDER.len()
    ))
    .await;
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn who_speaks_tls_is_told_at_once_that_the_port_does_not() {
    let (_sandbox, sidecar, _, api, admin, _) = with_payment(&[]).await;
    for (address, json) in [(api, true), (admin, false)] {
        // The beginning of a hello, of which the rest never comes: there is nothing to wait for.
        for hello in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"\x16",
        ] {
            let mut wire = Wire::open(address).await;
            let began = std::time::Instant::now();
            wire.send(hello).await;
            let answer = wire.answer().await;
            assert!(began.elapsed().as_millis() < 1000, "{:?}", began.elapsed());
            assert_eq!(answer.status, 400, "{answer:?}");
            assert!(answer.body.contains("plain HTTP"), "{answer:?}");
            assert!(answer.body.contains("http://"), "{answer:?}");
            if json {
                assert_eq!(answer.text("error"), "bad_request");
            }
            wire.closed().await;
        }
    }
    sidecar.signal("TERM");
    let (_, _, log) = sidecar.end().await;
    assert_eq!(log.matches("plain HTTP").count(), 4, "{log}");
}

#[tokio::test]
async fn a_head_has_the_length_of_a_get_and_no_body() {
    let (_sandbox, _sidecar, _, api, _, code) = with_payment(&[]).await;
    for path in [
        format!("/watch/{code}"),
        "/openapi.json".to_owned(),
        "/nowhere".to_owned(),
    ] {
        let get = get_at(api, &path).await;
        let mut stream = TcpStream::connect(api).await.unwrap();
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = String::new();
        stream.read_to_string(&mut bytes).await.unwrap();
        assert!(bytes.ends_with("\r\n\r\n"), "{bytes}");
        assert!(
            bytes.starts_with(&format!("HTTP/1.1 {}", get.status)),
            "{bytes}"
        );
        let length = format!("content-length: {}\r\n", get.header("content-length"));
        assert!(
            !get.header("content-length").is_empty() && bytes.contains(&length),
            "{bytes}"
        );
    }
    // Refused for its form, too.
    let mut stream = TcpStream::connect(api).await.unwrap();
    stream
        .write_all(b"HEAD /watch/x HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut bytes = String::new();
    stream.read_to_string(&mut bytes).await.unwrap();
    assert!(
        bytes.starts_with("HTTP/1.1 400") && bytes.ends_with("\r\n\r\n"),
        "{bytes}"
    );
}

#[tokio::test]
async fn a_refusal_before_the_body_was_read_reaches_a_caller_who_is_still_sending() {
    let (_sandbox, _sidecar, gateway, api, _, _) = with_payment(&[]).await;
    let json = "Content-Type: application/json\r\n";
    let mebibyte = 1 << 20;
    let cases = [
        (
            404,
            format!(
                "POST /nowhere HTTP/1.1\r\nHost: localhost\r\n{json}Content-Length: {mebibyte}\r\n\r\n"
            ),
        ),
        (
            405,
            format!(
                "PUT /api/start_payment HTTP/1.1\r\nHost: localhost\r\n{json}Content-Length: {mebibyte}\r\n\r\n"
            ),
        ),
        (
            415,
            format!(
                "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {mebibyte}\r\n\r\n"
            ),
        ),
        (
            413,
            format!(
                "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\n{json}Content-Length: {mebibyte}\r\n\r\n"
            ),
        ),
        (
            421,
            format!(
                "POST /api/start_payment HTTP/1.1\r\nHost: shop.example\r\n{json}Content-Length: {mebibyte}\r\n\r\n"
            ),
        ),
        (
            413,
            format!(
                "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\n{json}Transfer-Encoding: chunked\r\n\r\n{mebibyte:x}\r\n"
            ),
        ),
    ];
    for (status, head) in cases {
        let mut bytes = head.clone().into_bytes();
        // The body is made of good requests, none of which may be taken for one.
        bytes.extend(GOOD.bytes().cycle().take(mebibyte));
        let answers = exchange_until_reset(api, &bytes).await;
        assert_eq!(
            answers
                .iter()
                .map(|answer| answer.status)
                .collect::<Vec<_>>(),
            [status],
            "{head}"
        );
        assert_eq!(answers[0].header("connection"), "close", "{head}");
    }
    // Most clients write the whole body before they read: the answer must wait for them.
    for size in [20_000, 200_000] {
        let mut wire = Wire::open(api).await;
        wire.send(format!(
            "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
        ))
        .await;
        wire.send(GOOD.bytes().cycle().take(size).collect::<Vec<_>>())
            .await;
        assert_eq!(wire.answer().await.status, 404);
        wire.closed().await;
    }
    assert_eq!(calls(&gateway).await, (1, 0));
}

/// Writes while it reads. After the answer the other side may cut us off: we send more than it cares to throw away.
async fn exchange_until_reset(api: SocketAddr, bytes: &[u8]) -> Vec<Answer> {
    let mut stream = TcpStream::connect(api).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let both = async { tokio::join!(write.write_all(bytes), read.read_to_end(&mut received)) };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(15), both)
        .await
        .expect("an end in time");
    Answer::all(&received).unwrap()
}

#[tokio::test]
async fn over_max_connections_one_is_told_so_and_probes_are_still_answered() {
    let (_sandbox, _sidecar, gateway, api, admin, code) =
        with_payment(&[("listen.max_connections", "3")]).await;
    let request = format!("GET /watch/{code} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut open = Vec::new();
    for _ in 0..3 {
        // The connection that started the payment may still be on its way out.
        open.push(
            until("a free place", async || {
                let mut wire = Wire::open(api).await;
                wire.send(&request).await;
                (wire.answer().await.status == 200).then_some(wire)
            })
            .await,
        );
    }
    let before = calls(&gateway).await;
    let mut fourth = Wire::open(api).await;
    fourth.send(&request).await;
    let answer = fourth.answer().await;
    assert_eq!((answer.status, answer.text("error")), (503, "overloaded"));
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    fourth.closed().await;
    assert_eq!(calls(&gateway).await, before);
    assert_eq!(get_at(admin, "/readyz").await.status, 200);
    assert_eq!(get_at(admin, "/livez").await.status, 200);
    for wire in &mut open {
        wire.send(&request).await;
        assert_eq!(wire.answer().await.status, 200, "those inside go on");
    }
    open.pop();
    until("a place again", async || {
        (get_at(api, &format!("/watch/{code}")).await.status == 200).then_some(())
    })
    .await;
}

/// Where the system allows few open files it takes as many connections as there is room for, and says so.
#[tokio::test]
async fn connections_leave_files_for_the_rest() {
    if !has("prlimit") {
        return;
    }
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let settings = [("listen.max_connections", "900")];
    for (files, connections, says) in [("100:2000", 900, false), ("400:400", 100, true)] {
        let under = ["prlimit", &format!("--nofile={files}"), "--"];
        let mut sidecar = Program::launch(&under, &gateway, &settings);
        if says {
            let line = sidecar.log_line("max_connections").await;
            assert!(
                line.contains(&format!("{connections} connections are taken")),
                "{line}"
            );
        }
        let (api, admin) = sidecar.addresses().await;
        let mut kept = Vec::new();
        for _ in 0..connections.min(300) {
            let mut wire = Wire::open(api).await;
            wire.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            assert_eq!(wire.answer().await.status, 404);
            kept.push(wire);
        }
        let answers = async {
            if says {
                let refused = until("it is full", async || {
                    let answer = get_at(api, "/watch/x").await;
                    (answer.status == 503).then_some(answer)
                })
                .await;
                assert_eq!(refused.text("error"), "overloaded");
            } else {
                assert_eq!(start_at(api, ORDER).await.status, 200);
            }
            assert_eq!(get_at(admin, "/readyz").await.status, 200);
        };
        // Without files left, connections are made, and nobody takes them.
        tokio::time::timeout(std::time::Duration::from_secs(30), answers)
            .await
            .expect("it answers");
    }
}

#[tokio::test]
async fn localhost_is_listened_on_at_both_loopbacks_and_at_no_other_address() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let settings = [
        ("gateway.url", gateway.as_str()),
        ("merchant.secret", tillgate::sandbox::DEFAULT_SECRET),
        ("listen.address", "localhost:0"),
        ("admin.address", "localhost:0"),
    ];
    let mut sidecar = Program::start(&["run"], &settings);
    let line: serde_json::Value =
        serde_json::from_str(&sidecar.log_line("tillgate is running").await).unwrap();
    for (listener, path, status) in [("listen", "/watch/x", 404), ("admin", "/livez", 200)] {
        let port: u16 = line[listener]
            .as_str()
            .unwrap()
            .strip_prefix("localhost:")
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(
            get_at(([127, 0, 0, 1], port).into(), path).await.status,
            status
        );
        let elsewhere = TcpStream::connect(("127.0.0.2", port)).await;
        assert!(elsewhere.is_err(), "{listener} answers at 127.0.0.2");
        if std::net::TcpListener::bind("[::1]:0").is_err() {
            skip("this machine has no IPv6 loopback");
            continue;
        }
        assert_eq!(
            get_at((std::net::Ipv6Addr::LOCALHOST, port).into(), path)
                .await
                .status,
            status
        );
    }
}

#[tokio::test]
async fn many_callers_at_once_each_get_their_own_answer() {
    let (_sandbox, _sidecar, _, api, _, code) = with_payment(&[]).await;
    let callers: Vec<_> = (0..50)
        .map(|i| {
            let path = format!("/watch/{code}");
            tokio::spawn(async move {
                let id = format!("caller-{i}");
                let answer =
                    crate::harness::call(api, Method::GET, &path, &[("x-request-id", &id)], "")
                        .await;
                assert_eq!(
                    (answer.status, answer.header("x-request-id")),
                    (200, id.as_str())
                );
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn who_closes_the_sending_half_after_a_request_gets_the_answer() {
    let (_sandbox, gateway) = Program::sandbox(&["--fault", "start:delay=300ms"]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let mut stream = Wire::open(api).await.into_stream();
    let body = r#"{"amount": 1000}"#;
    let head =
        "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn a_start_that_is_refused_for_its_form_says_that_nothing_was_sent() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let long = "x".repeat(17 * 1024);
    for (fields, status) in [
        ("", 400),
        ("Host: localhost\r\nHost: localhost\r\n", 400),
        (
            "Host: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        ("Host: localhost\r\nExpect: a-miracle\r\n", 417),
        (&format!("Host: localhost\r\nX: {long}\r\n"), 431),
    ] {
        for (line, outcome) in [
            ("POST /api/start_payment", "not_sent"),
            ("GET /watch/x", ""),
        ] {
            let mut wire = Wire::open(api).await;
            wire.send(format!(
                "{line} HTTP/1.1\r\nX-Request-Id: mine-1\r\n{fields}\r\n"
            ))
            .await;
            let answer = wire.answer().await;
            assert_eq!(
                (answer.status, answer.header("x-request-id")),
                (status, "mine-1"),
                "{answer:?}"
            );
            assert_eq!(
                answer.json()["outcome"].as_str().unwrap_or_default(),
                outcome,
                "{answer:?}"
            );
        }
    }
    assert_eq!(calls(&gateway).await, (0, 0));
}

#[tokio::test]
async fn a_burst_over_max_connections_is_told_so_one_and_all() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[("listen.max_connections", "2")]).await;
    // Answered once, so that they surely have their places.
    let mut held = [Wire::open(api).await, Wire::open(api).await];
    for wire in &mut held {
        wire.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        assert_eq!(wire.answer().await.status, 404);
    }
    let burst: Vec<_> = (0..100)
        .map(|_| tokio::spawn(start_at(api, r#"{"amount": 1000}"#)))
        .collect();
    for told in burst {
        let answer = told.await.unwrap();
        assert_eq!(
            (answer.status, answer.text("error")),
            (503, "overloaded"),
            "{answer:?}"
        );
    }
    assert_eq!(calls(&gateway).await, (0, 0));
}

#[tokio::test]
async fn a_connection_that_is_used_is_never_idle() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[("listen.idle_timeout", "1s")]).await;
    let mut wire = Wire::open(api).await;
    // Each is answered at once, and together they outlast the time-out.
    for _ in 0..6 {
        wire.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        assert_eq!(wire.answer().await.status, 404);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    wire.closed().await;
}

#[tokio::test]
async fn an_empty_line_behind_a_request_is_no_request() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let settings = [
        ("listen.header_timeout", "300ms"),
        ("listen.idle_timeout", "1s"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway, &settings).await;
    let mut wire = Wire::open(api).await;
    wire.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n")
        .await;
    assert_eq!(wire.answer().await.status, 404);
    wire.closed().await;
}

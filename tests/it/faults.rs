//! What can go wrong between the sidecar and the gateway that no other file here is about: however it goes wrong, the
//! caller is told what may have happened, in time, and nothing grows.

mod framing;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::Method;
use socket2::{Domain, Socket, Type};
use tillgate::sandbox::DEFAULT_SECRET;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{ORDER, Program, call, get_at, metric_at, pay_at, skip, start_at, until};
use crate::scripted::{Act, Gateway, STARTED, WATCHED, answer, answer_with, as_told, good, told};
use crate::server::Server;

/// A gateway that does the same until told otherwise, and a way to tell it.
async fn changeable() -> (Gateway, impl Fn(Act)) {
    let act = Arc::new(Mutex::new(Act::Hang));
    let current = act.clone();
    let gateway = Gateway::new(move |_, _| current.lock().unwrap().clone()).await;
    (gateway, move |to_do| *act.lock().unwrap() = to_do)
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Longer than any of the time limits here, and shorter than forever: the machine may be busy.
const AT_THE_LATEST: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_gateway_that_takes_no_connection_is_unreachable_when_the_time_to_connect_is_over() {
    // Linux answers no further SYN while the queue of a listener is full.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
    {
        queue.push(stream);
        if queue.len() > 64 {
            skip("the queue of a listener never fills up here");
            return;
        }
    }
    let settings = [
        ("gateway.connect_timeout", "200ms"),
        ("gateway.retries", "1"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&format!("http://{address}"), &settings).await;
    let began = Instant::now();
    let answer = start_at(api, ORDER).await;
    assert_eq!(
        told(&answer),
        as_told(503, "gateway_unreachable", "not_sent")
    );
    assert!(
        answer.text("detail").contains("TCP: no answer from "),
        "{answer:?}"
    );
    assert!(
        answer
            .text("detail")
            .contains("within gateway.connect_timeout"),
        "{answer:?}"
    );
    assert!(began.elapsed() < AT_THE_LATEST);
    // Whoever did get in said nothing.
    drop(queue);
    socket.set_nonblocking(true).unwrap();
    while let Ok((stream, _)) = socket.accept() {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        assert!(stream.recv(&mut byte).is_ok_and(|n| n == 0) || stream.recv(&mut byte).is_err());
    }
}

#[tokio::test]
async fn whatever_never_ends_ends_with_the_timeout_and_is_unknown() {
    let (gateway, set) = changeable().await;
    let settings = [
        ("gateway.timeout", "1s"),
        ("gateway.connect_timeout", "1s"),
        ("gateway.retries", "5"),
        ("start.rate", "1000"),
        ("start.burst", "1000"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let cases = [
        ("silence", Act::Hang),
        (
            "100, then silence",
            Act::Say(bytes("HTTP/1.1 100 Continue\r\n\r\n")),
        ),
        (
            "103, then silence",
            Act::Say(bytes("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")),
        ),
        (
            "half a head",
            Act::Say(bytes("HTTP/1.1 200 OK\r\nContent-Type: app")),
        ),
        (
            "a head that drips",
            Act::Drip(bytes("HTTP/1.1 200 OK\r\nX-Slow:")),
        ),
        (
            "a body that drips",
            Act::Drip(bytes("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{")),
        ),
        (
            "a longer length than body",
            Act::Say(bytes(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{STARTED}"
            ))),
        ),
        (
            "no end of chunks",
            Act::Say(bytes(&format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{STARTED}\r\n",
                STARTED.len()
            ))),
        ),
        (
            "no end of the connection",
            Act::Say(bytes(&format!("HTTP/1.1 200 OK\r\n\r\n{STARTED}"))),
        ),
    ];
    for (number, (name, act)) in cases.into_iter().enumerate() {
        set(act);
        let began = Instant::now();
        let answer = start_at(api, ORDER).await;
        assert_eq!(
            told(&answer),
            as_told(504, "gateway_timeout", "unknown"),
            "{name}: {answer:?}"
        );
        assert!(
            began.elapsed() < AT_THE_LATEST,
            "{name}: {:?}",
            began.elapsed()
        );
        assert!(!answer.body.contains("pay_1"), "{name}: {answer:?}");
        assert_eq!(gateway.requests().len(), number + 1, "{name}: sent once");
    }
    set(Act::Say(answer(200, STARTED)));
    assert_eq!(
        start_at(api, ORDER).await.status,
        200,
        "and the next one is as good as any"
    );
}

#[tokio::test]
async fn an_answer_before_the_whole_start_was_sent_is_the_answer() {
    // A body that no socket holds by itself, of which the gateway reads nothing before it has answered.
    let note = "n".repeat(16 << 20);
    let body = format!(r#"{{"amount":1000,"note":"{note}"}}"#);
    for (status, expected) in [
        (422, as_told(422, "gateway_rejected", "rejected")),
        (413, as_told(502, "gateway_bad_answer", "unknown")),
        (401, as_told(502, "gateway_refused_secret", "rejected")),
    ] {
        let starts = Arc::new(AtomicUsize::new(0));
        let seen = starts.clone();
        let gateway = Server::new(move |mut stream: TcpStream| {
            seen.fetch_add(1, Ordering::SeqCst);
            async move {
                let mut read = Vec::new();
                while !read.windows(4).any(|end| end == b"\r\n\r\n") {
                    stream.read_buf(&mut read).await.unwrap();
                }
                stream
                    .write_all(&answer_with(
                        status,
                        "Connection: close\r\n",
                        r#"{"message":"m"}"#,
                    ))
                    .await
                    .unwrap();
                while stream.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
                    read.clear();
                }
            }
        })
        .await;
        let settings = [
            ("start.forward_fields", "[\"note\"]"),
            ("listen.max_body_bytes", "33554432"),
            ("gateway.retries", "3"),
        ];
        let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
        let answer = start_at(api, &body).await;
        assert_eq!(told(&answer), expected, "{answer:?}");
        assert_eq!(starts.load(Ordering::SeqCst), 1, "sent again");
    }
}

#[tokio::test]
async fn no_redirect_of_any_kind_to_any_place_is_followed() {
    let elsewhere = Gateway::new(|_, request| good(request)).await;
    let (gateway, set) = changeable().await;
    let settings = [
        ("gateway.retries", "0"),
        ("start.rate", "1000"),
        ("start.burst", "1000"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let port = elsewhere.address().port();
    let places = [
        format!("http://127.0.0.1:{port}/api/start_payment"),
        format!("https://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("http://user:pass@127.0.0.1:{port}/?secret={DEFAULT_SECRET}"),
        "/elsewhere".to_owned(),
        "javascript:alert(1)".to_owned(),
    ];
    let mut asked = 0;
    for status in [300, 301, 302, 303, 304, 305, 307, 308, 399] {
        for place in &places {
            set(Act::SayAndEnd(answer_with(
                status,
                &format!("Location: {place}\r\nRefresh: 0;url={place}\r\nConnection: close\r\n"),
                if status == 304 { "" } else { STARTED },
            )));
            let started = start_at(api, ORDER).await;
            assert_eq!(
                told(&started),
                as_told(502, "gateway_bad_answer", "unknown"),
                "{status} {place}"
            );
            let watched = get_at(api, "/watch/x").await;
            assert_eq!(
                told(&watched),
                as_told(502, "gateway_bad_answer", ""),
                "{status} {place}"
            );
            for answer in [started, watched] {
                assert!(
                    answer.headers.get("location").is_none()
                        && !answer.body.contains(place.as_str()),
                    "{answer:?}"
                );
            }
            asked += 2;
        }
    }
    assert_eq!(
        (elsewhere.connections(), gateway.requests().len()),
        (0, asked)
    );
}

#[tokio::test]
async fn a_time_to_wait_of_any_form_is_passed_on_within_a_bound() {
    let (gateway, set) = changeable().await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
    for (asked, passed_on) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", "1"),
        ("Fri, 01 Jan 2900 00:00:00 GMT", "300"),
        ("1000000000", "300"),
        ("0", "1"),
        ("-5", "1"),
        ("1.5", "1"),
        ("soon", "1"),
        ("", "1"),
    ] {
        set(Act::Say(answer_with(
            429,
            &format!("Retry-After: {asked}\r\n"),
            "{}",
        )));
        let answer = start_at(api, ORDER).await;
        assert_eq!(
            told(&answer),
            as_told(503, "gateway_busy", "rejected"),
            "{asked}"
        );
        assert_eq!(answer.header("retry-after"), passed_on, "{asked}");
    }
}

#[tokio::test]
async fn while_the_gateway_fails_in_whatever_way_the_last_answer_is_given() {
    let (gateway, set) = changeable().await;
    let settings = [
        ("gateway.timeout", "1s"),
        ("gateway.connect_timeout", "1s"),
        ("gateway.retries", "0"),
        ("watch.fresh_for", "1ms"),
        ("watch.poll_rate", "1000"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    set(Act::Say(answer(200, WATCHED)));
    let first = get_at(api, "/watch/watch_1").await;
    assert_eq!(first.status, 200);
    for (name, act) in [
        ("silence", Act::Hang),
        ("a reset", Act::Reset),
        (
            "reset in the body",
            Act::SayAndReset(bytes("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")),
        ),
        (
            "dripping",
            Act::Drip(bytes("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")),
        ),
        ("no HTTP", Act::SayAndEnd(bytes("hello\r\n\r\n"))),
        ("HTML", Act::Say(answer(200, "<html>"))),
        ("nothing that the guide knows", Act::Say(answer(200, "{}"))),
        (
            "gzip",
            Act::Say(answer_with(200, "Content-Encoding: gzip\r\n", WATCHED)),
        ),
        (
            "too large",
            Act::Say(answer(200, &format!(r#"{{"x":"{}"}}"#, "x".repeat(70_000)))),
        ),
        (
            "a redirect",
            Act::Say(answer_with(302, "Location: /x\r\n", "")),
        ),
        ("400", Act::Say(answer(400, "{}"))),
        ("401", Act::Say(answer(401, "{}"))),
        ("403", Act::Say(answer(403, "{}"))),
        ("404", Act::Say(answer(404, "{}"))),
        ("422", Act::Say(answer(422, "{}"))),
        (
            "429",
            Act::Say(answer_with(429, "Retry-After: 1000000000\r\n", "{}")),
        ),
        ("500", Act::Say(answer(500, "{}"))),
        ("503", Act::Say(answer(503, "{}"))),
    ] {
        set(act);
        let asked = gateway.requests().len();
        let began = Instant::now();
        let answer = get_at(api, "/watch/watch_1").await;
        assert_eq!((answer.status, &answer.body), (200, &first.body), "{name}");
        assert!(
            answer
                .header("cache-status")
                .ends_with("detail=stale-if-error"),
            "{name}: {answer:?}"
        );
        assert!(began.elapsed() < AT_THE_LATEST, "{name}");
        assert_eq!(
            gateway.requests().len(),
            asked + 1,
            "{name}: asked, and once"
        );
    }
    set(Act::Say(answer(
        200,
        &WATCHED.replace("created\"", "completed\""),
    )));
    assert_eq!(
        get_at(api, "/watch/watch_1").await.text("status"),
        "completed",
        "and then it goes on"
    );
}

#[tokio::test]
async fn another_amount_than_was_started_is_logged_and_counted_once_a_payment() {
    let told = Arc::new(Mutex::new("1001".to_owned()));
    let current = told.clone();
    let gateway = Gateway::new(move |_, request| match good(request) {
        Act::Say(_) if request.starts_with("GET") => Act::Say(answer(
            200,
            &WATCHED.replace("1000", &current.lock().unwrap()),
        )),
        other => other,
    })
    .await;
    let settings = [("watch.fresh_for", "1ms"), ("watch.poll_rate", "1000")];
    let (mut sidecar, api, admin) = Program::sidecar(&gateway.url(), &settings).await;
    let counted = async || metric_at(admin, "tillgate_amount_mismatch_total").await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    assert_eq!(counted().await, 0);
    // What it says is passed on: whose amount is right is not the sidecar's to say.
    for (says, count) in [
        ("1001", 1),
        ("1001", 1),
        ("2000", 2),
        ("1000", 2),
        ("1e3", 2),
        ("1e4", 3),
    ] {
        says.clone_into(&mut told.lock().unwrap());
        let answer = get_at(api, "/watch/watch_1").await;
        assert!(
            answer.body.contains(&format!(r#""amount":{says},"#)),
            "{answer:?}"
        );
        assert_eq!(counted().await, count, "{says}");
    }
    let line = sidecar.log_line("another amount than was started").await;
    assert!(
        line.contains(r#""asked":"1000""#) && line.contains(r#""told":"1001""#),
        "{line}"
    );
}

#[tokio::test]
async fn a_status_that_the_guide_does_not_know_is_passed_on_counted_and_logged_once() {
    let told = Arc::new(Mutex::new("on-hold".to_owned()));
    let current = told.clone();
    let gateway = Gateway::new(move |_, request| match good(request) {
        Act::Say(_) if request.starts_with("GET") => Act::Say(answer(
            200,
            &WATCHED.replace("\"created\"", &format!("{:?}", current.lock().unwrap())),
        )),
        other => other,
    })
    .await;
    let settings = [("watch.fresh_for", "1ms"), ("watch.poll_rate", "1000")];
    let (sidecar, api, admin) = Program::sidecar(&gateway.url(), &settings).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    for (says, count) in [
        ("created", 0),
        ("on-hold", 1),
        ("on-hold", 1),
        ("created", 1),
        ("lost", 2),
        ("completed", 2),
    ] {
        says.clone_into(&mut told.lock().unwrap());
        assert_eq!(get_at(api, "/watch/watch_1").await.text("status"), says);
        let unknown = metric_at(admin, "tillgate_unknown_status_total").await;
        assert_eq!(unknown, count, "{says}");
    }
    sidecar.signal("TERM");
    let (_, _, log) = sidecar.end().await;
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("a status that its guide does not know"))
        .collect();
    assert!(
        lines.len() == 2 && lines[0].contains("on-hold") && lines[1].contains("lost"),
        "{log}"
    );
}

#[tokio::test]
async fn the_head_that_the_gateway_gets_is_the_same_bytes_whatever_a_caller_sends() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "of-the-caller\n").unwrap();
    let gateway = Gateway::new(|_, request| good(request)).await;
    let (_sidecar, api, _) = Program::sidecar(
        &format!("{}/base/", gateway.url()),
        // With a token a proxy may have passed it on.
        &[
            ("watch.fresh_for", "1ms"),
            ("listen.token_file", tokens.to_str().unwrap()),
        ],
    )
    .await;
    let token = ("authorization", "Bearer of-the-caller");
    let values: Vec<_> = (0..70)
        .map(|n| (format!("x-of-the-caller-{n}"), format!("value-{n}")))
        .collect();
    let mut headers = vec![
        (
            "connection",
            "content-type, authorization, accept, content-length, close",
        ),
        ("te", "trailers"),
        ("accept", "*/*"),
        ("accept", "text/html;q=0.1"),
        ("accept-encoding", "gzip, br, zstd"),
        ("proxy-authorization", "Basic b2Y="),
        ("proxy-connection", "keep-alive"),
        ("cookie", "a=b"),
        ("user-agent", "of-the-caller/1"),
        ("referer", "http://of-the-caller.example/"),
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("x-real-ip", "10.0.0.1"),
        ("x-forwarded-host", "of-the-caller.example"),
        ("x-forwarded-proto", "http"),
        ("content-language", "de"),
        ("content-md5", "x"),
        ("range", "bytes=0-1"),
        ("max-forwards", "0"),
        ("pragma", "no-cache"),
        ("priority", "u=0"),
        ("baggage", "a=b"),
        ("idempotency-key", "of-the-caller"),
    ];
    headers.extend(
        values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let json = [("content-type", "application/json"), token];
    // With the Host and the Content-Length of the harness, a hundred of them, but for one.
    for headers in [json.to_vec(), [json.to_vec(), headers].concat()] {
        assert!(headers.len() <= 97);
        let started = call(api, Method::POST, "/api/start_payment", &headers, ORDER).await;
        assert_eq!(started.status, 200, "{started:?}");
        assert_eq!(
            call(
                api,
                Method::GET,
                "/watch/watch_1?of=the-caller",
                &headers[1..],
                ""
            )
            .await
            .status,
            200
        );
    }
    let body = format!(r#"{{"merchant_secret":"{DEFAULT_SECRET}","amount":1000}}"#);
    let of_start = format!(
        "POST /base/api/start_payment HTTP/1.1\r\naccept: application/json\r\nuser-agent: tillgate/{}\r\ncontent-type: application/json\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        env!("CARGO_PKG_VERSION"),
        gateway.address(),
        body.len()
    );
    let of_watch = format!(
        "GET /base/watch/watch_1 HTTP/1.1\r\naccept: application/json\r\nuser-agent: tillgate/{}\r\nhost: {}\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        gateway.address()
    );
    assert_eq!(
        gateway.requests(),
        [of_start.clone(), of_watch.clone(), of_start, of_watch]
    );
}

#[tokio::test]
async fn a_storm_of_failures_is_answered_one_for_one() {
    let gateway = Gateway::new(|_, _| Act::Say(answer(503, "{}"))).await;
    let settings = [
        ("start.rate", "1000"),
        ("start.burst", "1000"),
        ("gateway.retries", "5"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let starts: Vec<_> = (0..40)
        .map(|_| tokio::spawn(start_at(api, ORDER)))
        .collect();
    for start in starts {
        assert_eq!(
            told(&start.await.unwrap()),
            as_told(502, "gateway_bad_answer", "unknown")
        );
    }
    until("all", async || {
        (gateway.requests().len() == 40).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_nobodys() {
    // The gateway tells each payment's own code as its merchant, sooner or later: in time, or after the time is over.
    let gateway = Gateway::new(|n, request| {
        let code = request
            .split_once("/watch/")
            .unwrap()
            .1
            .split(' ')
            .next()
            .unwrap();
        let late = Duration::from_millis([0, 5, 50, 150, 400][n % 5]);
        Act::Late(
            late,
            answer(200, &WATCHED.replace("\"M\"", &format!("\"{code}\""))),
        )
    })
    .await;
    let settings = [
        ("gateway.timeout", "150ms"),
        ("gateway.connect_timeout", "150ms"),
        ("gateway.retries", "1"),
        ("watch.poll_rate", "10000"),
        ("watch.fresh_for", "1ms"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let own = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let askers: Vec<_> = (0..8)
        .map(|asker| {
            let own = own.clone();
            tokio::spawn(async move {
                for n in 0..40 {
                    let code = format!("watch-{asker}-{n}");
                    let path = format!("/watch/{code}");
                    let asked = get_at(api, &path);
                    // Every third has gone before there is an answer.
                    let patience = if n % 3 == 0 {
                        Duration::from_millis(20)
                    } else {
                        AT_THE_LATEST
                    };
                    let Ok(answer) = tokio::time::timeout(patience, asked).await else {
                        continue;
                    };
                    if answer.status == 200 {
                        assert_eq!(answer.text("merchant"), code, "{answer:?}");
                        own.fetch_add(1, Ordering::SeqCst);
                    } else {
                        assert!(matches!(answer.status, 502..=504), "{answer:?}");
                    }
                }
            })
        })
        .collect();
    for asker in askers {
        asker.await.unwrap();
    }
    assert!(own.load(Ordering::SeqCst) > 0, "some came in time");
}

/// Where libfaketime is, if it is anywhere.
pub fn faketime() -> Option<String> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut paths = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    paths
        .find(|path| path.is_file())?
        .to_str()
        .map(ToOwned::to_owned)
}

/// When that line of the log was written.
fn year(line: &str) -> i32 {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["timestamp"].as_str().unwrap()[..4].parse().unwrap()
}

/// The wall clock of a process is what this file says.
pub fn by_clock<'a>(library: &'a str, clock: &'a Path) -> [(&'a str, &'a str); 4] {
    [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]
}

/// A machine that does not know the time when it starts: what was written before is of the future.
#[tokio::test]
async fn a_clock_that_is_set_back_between_two_runs_stops_no_poll() {
    let Some(library) = faketime() else {
        skip("libfaketime is not installed");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let clock = directory.path().join("clock");
    let others = by_clock(&library, &clock);
    let store = format!("file:{}", directory.path().join("store").display());
    let (_sandbox, url) = Program::sandbox(&[]).await;
    let settings = [("store.url", store.as_str()), ("watch.fresh_for", "1ms")];
    let settings = [&settings[..], &others].concat();
    std::fs::write(&clock, "+0d").unwrap();
    let (sidecar, api, _) = Program::sidecar(&url, &settings).await;
    let payments = [start_at(api, ORDER).await, start_at(api, ORDER).await];
    for payment in &payments {
        assert_eq!(
            get_at(api, &format!("/watch/{}", payment.text("watch_code")))
                .await
                .text("status"),
            "created"
        );
        pay_at(&url, payment.text("code")).await;
    }
    sidecar.kill().await;
    std::fs::write(&clock, "-2h").unwrap();
    let (_sidecar, api, _) = Program::sidecar(&url, &settings).await;
    let [asked, waited_for] =
        payments.map(|payment| format!("/watch/{}", payment.text("watch_code")));
    assert_eq!(get_at(api, &asked).await.text("status"), "completed");
    assert_eq!(
        get_at(api, &format!("{waited_for}?wait=20"))
            .await
            .text("status"),
        "completed"
    );
}

#[tokio::test]
async fn a_clock_that_jumps_years_takes_nothing_with_it() {
    let Some(library) = faketime() else {
        skip("libfaketime is not installed");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let clock = directory.path().join("clock");
    std::fs::write(&clock, "+0d").unwrap();
    let others = by_clock(&library, &clock);
    let store = format!("file:{}", directory.path().join("store").display());
    let (_sandbox, url) = Program::sandbox(&[]).await;
    let settings = [
        ("store.url", store.as_str()),
        ("watch.fresh_for", "1ms"),
        ("watch.poll_rate", "1000"),
    ];
    let settings = [&settings[..], &others].concat();
    let (mut sidecar, api, admin) = Program::sidecar(&url, &settings).await;
    let start = async |key: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        call(api, Method::POST, "/api/start_payment", &headers, ORDER).await
    };
    let first = start("first").await;
    assert_eq!(first.status, 200, "{first:?}");
    let mut years = vec![year(&sidecar.log_line("payment started").await)];
    for (number, jump) in ["-730d", "+730d", "+0d"].into_iter().enumerate() {
        std::fs::write(&clock, jump).unwrap();
        let replayed = start("first").await;
        assert_eq!(
            (replayed.status, &replayed.body),
            (200, &first.body),
            "{jump}: the key is kept"
        );
        assert_eq!(replayed.header("idempotency-replayed"), "true", "{jump}");
        let another = start(&format!("after-{number}")).await;
        assert_eq!(another.status, 200, "{jump}: {another:?}");
        for code in [first.text("watch_code"), another.text("watch_code")] {
            let watched = get_at(api, &format!("/watch/{code}")).await;
            assert_eq!(
                (watched.status, watched.text("status")),
                (200, "created"),
                "{jump}"
            );
            assert!(
                watched.header("age").parse::<u64>().unwrap() < 60,
                "{jump}: {watched:?}"
            );
            let waited = get_at(api, &format!("/watch/{code}?wait=1")).await;
            assert_eq!(waited.status, 200, "{jump}: {waited:?}");
        }
        assert_eq!(get_at(admin, "/readyz").await.status, 200, "{jump}");
        assert_eq!(get_at(admin, "/status").await.status, 200, "{jump}");
        years.push(year(&sidecar.log_line("payment started").await));
    }
    assert!(
        years[1] < years[0] && years[2] > years[0] && years[3] < years[2],
        "the clock did jump: {years:?}"
    );
    sidecar.signal("TERM");
    let (code, _, log) = sidecar.end().await;
    assert!(code == 0 && !log.contains("panic"), "{log}");
}

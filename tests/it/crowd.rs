//! Many who wait, over real sockets: who comes, who is told, who goes, and what is left of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Answer, Program, Stream, Wire, call, calls, get_at, metric_at, set_faults, start_at, until,
};

/// A payment behind a sidecar with these settings: sandbox, its URL, sidecar, API, admin, code, watch code.
async fn with_payment(
    settings: &[(&str, &str)],
) -> (
    Program,
    String,
    Program,
    SocketAddr,
    SocketAddr,
    String,
    String,
) {
    let (sandbox, url) = Program::sandbox(&[]).await;
    let (sidecar, api, admin) = Program::sidecar(&url, settings).await;
    let started = start_at(api, r#"{"amount": 1000}"#).await;
    let (code, watch_code) = (
        started.text("code").to_owned(),
        started.text("watch_code").to_owned(),
    );
    (sandbox, url, sidecar, api, admin, code, watch_code)
}

async fn pay(sandbox: &str, code: &str) {
    let path = format!("/_sandbox/payments/{code}/complete");
    let paid = call(
        sandbox.strip_prefix("http://").unwrap().parse().unwrap(),
        hyper::Method::POST,
        &path,
        &[],
        "",
    )
    .await;
    assert_eq!(paid.status, 200, "{paid:?}");
}

/// How many wait in that way, as the metrics tell it.
async fn waiters(admin: SocketAddr, kind: &str) -> u64 {
    metric_at(admin, &format!("tillgate_waiters{{kind=\"{kind}\"}}")).await
}

async fn until_waiting(admin: SocketAddr, kind: &str, number: u64) {
    let what = format!("{number} of {kind}");
    until(&what, async || {
        (waiters(admin, kind).await == number).then_some(())
    })
    .await;
}

/// Sends a GET with these header lines over a connection of its own.
async fn ask(api: SocketAddr, target: &str, lines: &str) -> Wire {
    let mut wire = Wire::open(api).await;
    wire.send(format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
    ))
    .await;
    wire
}

const STREAM: &str = "Accept: text/event-stream\r\nConnection: close\r\n";

/// Everything that comes up to an orderly end.
async fn rest_of(wire: Wire) -> String {
    let (mut rest, mut stream) = (String::new(), wire.into_stream());
    let read =
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut rest)).await;
    read.expect("an end in time").expect("an orderly end");
    rest
}

#[tokio::test]
async fn a_thousand_who_wait_and_two_hundred_who_stream_hear_of_it_from_one_poller() {
    let (_sandbox, url, _sidecar, api, admin, code, watch_code) = with_payment(&[]).await;
    let began = Instant::now();
    let (mut waiting, mut streaming) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        waiting.push(ask(api, &format!("/watch/{watch_code}?wait=60"), "").await);
    }
    for _ in 0..200 {
        streaming.push(ask(api, &format!("/watch/{watch_code}"), STREAM).await);
    }
    until_waiting(admin, "long_poll", 1000).await;
    until_waiting(admin, "stream", 200).await;
    pay(&url, &code).await;
    for mut wire in waiting {
        let answer = wire.answer().await;
        assert_eq!(
            (answer.status, answer.text("status")),
            (200, "completed"),
            "{answer:?}"
        );
    }
    for wire in streaming {
        let told = rest_of(wire).await;
        assert!(
            told.contains(r#""status":"created""#) && told.contains(r#""status":"completed""#),
            "{told}"
        );
    }
    let (_, watches) = calls(&url).await;
    assert!(
        watches <= began.elapsed().as_secs() + 2,
        "more than one poller: {watches} calls"
    );
    until_waiting(admin, "long_poll", 0).await;
    until_waiting(admin, "stream", 0).await;
}

#[tokio::test]
async fn who_hangs_up_is_not_waited_for() {
    let (_sandbox, _url, _sidecar, api, admin, _code, watch_code) = with_payment(&[]).await;
    let mut gone = Vec::new();
    // Some send more beforehand, as one does who reuses the connection.
    for more in [
        "",
        "\r\n",
        "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /no",
    ]
    .repeat(5)
    {
        for (path, headers) in [
            (format!("/watch/{watch_code}?wait=60"), ""),
            (format!("/watch/{watch_code}"), STREAM),
        ] {
            let mut wire = ask(api, &path, headers).await;
            wire.send(more).await;
            gone.push(wire);
        }
    }
    until_waiting(admin, "long_poll", 20).await;
    until_waiting(admin, "stream", 20).await;
    drop(gone);
    until_waiting(admin, "long_poll", 0).await;
    until_waiting(admin, "stream", 0).await;
}

#[tokio::test]
async fn who_hangs_up_on_an_unheard_of_code_is_not_waited_for_either() {
    // A question stands in the queue for minutes.
    let settings = [("watch.poll_rate", "1"), ("gateway.timeout", "20m")];
    let (_sandbox, url) = Program::sandbox(&[]).await;
    let (sidecar, api, _) = Program::sidecar(&url, &settings).await;
    let quiet = sidecar.open_files();
    let mut gone = Vec::new();
    for i in 0..60 {
        let (query, headers) = [("", ""), ("?wait=60", ""), ("", STREAM)][i % 3];
        gone.push(ask(api, &format!("/watch/unheard-of-{i}{query}"), headers).await);
    }
    until("they stand in the queue", async || {
        (calls(&url).await.1 > 0 && sidecar.open_files() > quiet + 30).then_some(())
    })
    .await;
    for (i, wire) in gone.into_iter().enumerate() {
        let stream = wire.into_stream();
        if i % 2 == 0 {
            // It ends with a reset.
            SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    }
    until("their places are free", async || {
        (sidecar.open_files() <= quiet + 4).then_some(())
    })
    .await;
    assert_eq!(get_at(api, "/watch/another").await.status, 404);
    let (_, watches) = calls(&url).await;
    assert!(watches < 30, "{watches} questions were sent");
}

#[tokio::test]
async fn who_closes_the_sending_half_while_waiting_gets_what_is_known() {
    let (_sandbox, _url, _sidecar, api, admin, _code, watch_code) = with_payment(&[]).await;
    let wire = ask(api, &format!("/watch/{watch_code}?wait=60"), "").await;
    until_waiting(admin, "long_poll", 1).await;
    let mut stream = wire.into_stream();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let [answer] = Answer::all(&answer).unwrap().try_into().unwrap();
    assert_eq!(
        (answer.status, answer.text("status")),
        (200, "created"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_request_behind_one_that_waits_is_answered_after_it() {
    let (_sandbox, url, _sidecar, api, admin, code, watch_code) = with_payment(&[]).await;
    let mut wire = ask(api, &format!("/watch/{watch_code}?wait=60"), "").await;
    until_waiting(admin, "long_poll", 1).await;
    wire.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    pay(&url, &code).await;
    assert_eq!(wire.answer().await.text("status"), "completed");
    assert_eq!(wire.answer().await.text("error"), "not_found");
}

#[tokio::test]
async fn a_shutdown_answers_who_waits_and_ends_the_streams() {
    let (_sandbox, url, sidecar, api, admin, _code, watch_code) = with_payment(&[]).await;
    let path = format!("/watch/{watch_code}");
    let tag = get_at(api, &path).await.header("etag").to_owned();
    let mut plain = ask(api, &format!("{path}?wait=60"), "").await;
    let mut conditional = ask(
        api,
        &format!("{path}?wait=60"),
        &format!("If-None-Match: {tag}\r\n"),
    )
    .await;
    let stream = ask(api, &path, STREAM).await;
    until_waiting(admin, "long_poll", 2).await;
    until_waiting(admin, "stream", 1).await;
    // Of this one nothing is known, and nothing will be.
    set_faults(&url, &["watch:hang"]).await;
    let mut unknown = ask(api, "/watch/unheard-of?wait=60", "").await;
    until("the call", async || (calls(&url).await.1 > 1).then_some(())).await;
    sidecar.signal("TERM");
    let answers = [
        plain.answer().await,
        conditional.answer().await,
        unknown.answer().await,
    ];
    assert_eq!(
        answers.each_ref().map(|answer| answer.status),
        [200, 304, 503],
        "{answers:?}"
    );
    assert_eq!(answers[0].text("status"), "created");
    assert_eq!(answers[2].text("error"), "draining");
    assert!(
        answers
            .iter()
            .all(|answer| answer.header("connection") == "close"),
        "{answers:?}"
    );
    let told = rest_of(stream).await;
    let last = Stream::blocks(told.split_once("\r\n\r\n").unwrap().1)
        .pop()
        .unwrap();
    assert!(last.retry.parse::<u32>().unwrap() >= 1000, "{told}");
    let (code, _, log) = sidecar.end().await;
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains("drain_timeout is over"), "{log}");
}

#[tokio::test]
async fn who_reads_nothing_of_what_was_asked_for_does_not_keep_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "a-token\n").unwrap();
    let token = "Host: localhost\r\nAuthorization: Bearer a-token\r\n";
    let (_sandbox, url) = Program::sandbox(&[]).await;
    let settings = [
        ("listen.token_file", tokens.to_str().unwrap()),
        ("listen.max_connections", "1"),
        ("start.rate", "10000"),
        ("start.burst", "1000"),
    ];
    let (_sidecar, api, _admin) = Program::sidecar(&url, &settings).await;
    let mut starter = Wire::open(api).await;
    for _ in 0..1000 {
        let head =
            format!("POST /api/start_payment HTTP/1.1\r\n{token}Content-Type: application/json");
        starter
            .send(format!(
                "{head}\r\nContent-Length: 15\r\n\r\n{{\"amount\":1000}}"
            ))
            .await;
        assert_eq!(starter.answer().await.status, 200);
    }
    drop(starter);
    // Pages of a quarter of a megabyte: more than all buffers on the way hold.
    let page = format!("GET /payments?limit=1000 HTTP/1.1\r\n{token}\r\n");
    let got_in = async || {
        let mut wire = Wire::open(api).await;
        wire.send(&page).await;
        (wire.answer().await.status == 200).then_some(wire)
    };
    let mut deaf = until("the only place", got_in).await;
    deaf.send(page.repeat(100)).await;
    assert_eq!(get_at(api, "/payments").await.status, 503);
    let free = async || (get_at(api, "/payments").await.status == 401).then_some(());
    until("the only place is free again", free).await;
}

//! Where an answer ends, and what is no part of it.

use super::*;

#[tokio::test]
async fn an_answer_that_is_cut_or_ambiguous_is_unknown_and_nothing_of_it_is_shown() {
    let (gateway, set) = changeable().await;
    let settings = [
        ("gateway.timeout", "5s"),
        ("gateway.retries", "5"),
        ("start.rate", "1000"),
        ("start.burst", "1000"),
    ];
    let (sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let with =
        |headers: &str, body: &str| bytes(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}"));
    let length = STARTED.len();
    let many: String = (0..5000).map(|n| format!("X-{n}: y\r\n")).collect();
    let wide: String = (0..140)
        .map(|n| format!("X-{n}: {}\r\n", "y".repeat(500)))
        .collect();
    let bomb = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03".repeat(100);
    let gzip = |headers: &str| {
        [
            bytes(&format!(
                "HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n",
                bomb.len()
            )),
            bomb.clone(),
        ]
        .concat()
    };
    let before = sidecar.peak_kib();
    let chunks = format!("{length:x}\r\n{STARTED}\r\n0\r\n\r\n");
    let chunked =
        |headers: &str| with(&format!("Transfer-Encoding: chunked\r\n{headers}"), &chunks);
    let cases = [
        (
            "reset in the head",
            Act::SayAndReset(bytes("HTTP/1.1 200 OK\r\nContent-")),
        ),
        (
            "reset in the body",
            Act::SayAndReset(with("Content-Length: 999\r\n", STARTED)),
        ),
        (
            "ended in the body",
            Act::SayAndEnd(with("Content-Length: 999\r\n", STARTED)),
        ),
        (
            "a shorter length than body",
            Act::Say(with(
                &format!("Content-Length: {}\r\n", length - 9),
                STARTED,
            )),
        ),
        (
            "two lengths",
            Act::Say(with(
                &format!("Content-Length: {length}\r\nContent-Length: 9\r\n"),
                STARTED,
            )),
        ),
        (
            "a list of lengths",
            Act::Say(with(&format!("Content-Length: {length}, 9\r\n"), STARTED)),
        ),
        (
            "a length below zero",
            Act::Say(with("Content-Length: -1\r\n", STARTED)),
        ),
        (
            "no size of a chunk",
            Act::SayAndEnd(with(
                "Transfer-Encoding: chunked\r\n",
                &format!("zz\r\n{STARTED}\r\n0\r\n\r\n"),
            )),
        ),
        (
            "a chunk too large for any number",
            Act::SayAndEnd(with(
                "Transfer-Encoding: chunked\r\n",
                &format!("ffffffffffffffffff\r\n{STARTED}\r\n0\r\n\r\n"),
            )),
        ),
        (
            "chunks that are gzip too",
            Act::Say(with(
                "Transfer-Encoding: gzip, chunked\r\n",
                "4\r\n\x1f\x08\x08\x00\r\n0\r\n\r\n",
            )),
        ),
        (
            "another protocol",
            Act::SayAndEnd(bytes(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            )),
        ),
        (
            "another version",
            Act::SayAndEnd(bytes("HTTP/2.0 200 OK\r\n\r\n")),
        ),
        (
            "a status of two digits",
            Act::SayAndEnd(bytes("HTTP/1.1 20 OK\r\n\r\n")),
        ),
        (
            "five thousand fields",
            Act::SayAndEnd(with(
                &format!("{many}Content-Length: {length}\r\n"),
                STARTED,
            )),
        ),
        (
            "a NUL in a value",
            Act::SayAndEnd(with(
                &format!("X: a\0b\r\nContent-Length: {length}\r\n"),
                STARTED,
            )),
        ),
        (
            "seventy kilobytes of fields",
            Act::SayAndEnd(with(
                &format!("{wide}Content-Length: {length}\r\n"),
                STARTED,
            )),
        ),
        (
            "a length beside chunks",
            Act::Say(chunked(&format!("Content-Length: {length}\r\n"))),
        ),
        (
            "chunked twice",
            Act::Say(chunked("Transfer-Encoding: chunked\r\n")),
        ),
        (
            "a list of codings",
            Act::Say(with("Transfer-Encoding: identity, chunked\r\n", &chunks)),
        ),
        (
            "the same length twice",
            Act::Say(with(
                &format!("Content-Length: {length}\r\nContent-Length: {length}\r\n"),
                STARTED,
            )),
        ),
        (
            "a list of one length",
            Act::Say(with(
                &format!("Content-Length: {length}, {length}\r\n"),
                STARTED,
            )),
        ),
        (
            "a length that is folded",
            Act::SayAndEnd(with(
                &format!("Content-Length: {length}\r\n 0\r\n"),
                STARTED,
            )),
        ),
        (
            "interim answers without an end",
            Act::Flood(
                bytes("HTTP/1.1 100 Continue\r\n\r\n"),
                bytes("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
            ),
        ),
        ("gzip", Act::Say(gzip("Content-Encoding: gzip\r\n"))),
        (
            "encoded behind not encoded",
            Act::Say(answer_with(
                200,
                "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n",
                STARTED,
            )),
        ),
        (
            "br",
            Act::Say(answer_with(200, "Content-Encoding: br\r\n", STARTED)),
        ),
        (
            "an error that calls itself a success",
            Act::Say(answer(200, r#"{"error":"no such merchant"}"#)),
        ),
        (
            "a code alone",
            Act::Say(answer(200, r#"{"code":"pay_1","watch_code":null}"#)),
        ),
        (
            "codes within",
            Act::Say(answer(200, &format!(r#"{{"payment":{STARTED}}}"#))),
        ),
        (
            "a code twice",
            Act::Say(answer(
                200,
                r#"{"code":"pay_1","code":"pay_2","watch_code":"watch_1"}"#,
            )),
        ),
        (
            "text behind",
            Act::Say(answer(200, &format!("{STARTED}\n<!-- 3 ms -->"))),
        ),
    ];
    for (number, (name, act)) in cases.into_iter().enumerate() {
        set(act);
        let answer = start_at(api, ORDER).await;
        assert_eq!(
            told(&answer),
            as_told(502, "gateway_bad_answer", "unknown"),
            "{name}: {answer:?}"
        );
        assert!(!answer.body.contains("pay_1"), "{name}: {answer:?}");
        assert_eq!(gateway.requests().len(), number + 1, "{name}: sent once");
    }
    if let (Some(before), Some(after)) = (before, sidecar.peak_kib()) {
        assert!(
            after < before + 32 * 1024,
            "it grew from {before} KiB to {after} KiB"
        );
    }
    set(Act::Say(answer(200, STARTED)));
    assert_eq!(
        start_at(api, ORDER).await.status,
        200,
        "and the next one is as good as any"
    );
}

#[tokio::test]
async fn a_body_without_end_is_not_read_to_its_end() {
    let chunk = [bytes("10000\r\n"), vec![b' '; 0x10000], bytes("\r\n")].concat();
    for head in ["Transfer-Encoding: chunked", "Connection: close"] {
        let flood = Act::Flood(
            bytes(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n")),
            chunk.clone(),
        );
        let gateway = Gateway::new(move |_, _| flood.clone()).await;
        let (sidecar, api, _) = Program::sidecar(&gateway.url(), &[("gateway.retries", "0")]).await;
        let before = sidecar.peak_kib();
        let refused = start_at(api, ORDER).await;
        assert_eq!(
            told(&refused),
            as_told(502, "gateway_bad_answer", "unknown"),
            "{head}"
        );
        assert_eq!(
            get_at(api, "/watch/watch_1").await.text("error"),
            "gateway_bad_answer",
            "{head}"
        );
        // What the sockets hold on their way is the system's.
        assert!(
            gateway.flooded() < 64 << 20,
            "{head}: it was read on and on"
        );
        if let (Some(before), Some(after)) = (before, sidecar.peak_kib()) {
            assert!(
                after < before + 32 * 1024,
                "{head}: it grew from {before} KiB to {after} KiB"
            );
        }
    }
}

#[tokio::test]
async fn what_comes_behind_an_answer_is_not_taken_for_the_next_one() {
    let forged = answer(200, r#"{"code":"pay_forged","watch_code":"watch_forged"}"#);
    let gateway =
        Gateway::new(move |_, _| Act::Say([answer(200, STARTED), forged.clone()].concat())).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
    for _ in 0..5 {
        let answer = start_at(api, ORDER).await;
        assert!(!answer.body.contains("forged"), "{answer:?}");
        assert!(
            answer.status == 200 || told(&answer) == as_told(502, "gateway_bad_answer", "unknown"),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn what_stands_around_an_answer_is_no_part_of_it() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(20);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Code\r\n\r\n{:x};note=\"x\"\r\n{STARTED}\r\n0\r\nX-Code: pay_evil\r\nContent-Encoding: gzip\r\n\r\n",
        STARTED.len()
    );
    for act in [
        [bytes(&hints), answer(200, STARTED)].concat(),
        [bytes("HTTP/1.1 100 Continue\r\n\r\n"), answer(200, STARTED)].concat(),
        bytes(&chunked),
    ] {
        let watched = String::from_utf8(act.clone())
            .unwrap()
            .replace(STARTED, WATCHED);
        let watched = watched
            .replace(
                &format!("{:x};note", STARTED.len()),
                &format!("{:x};note", WATCHED.len()),
            )
            .replace(
                &format!("Content-Length: {}", STARTED.len()),
                &format!("Content-Length: {}", WATCHED.len()),
            );
        let gateway = Gateway::new(move |_, request| {
            Act::Say(if request.starts_with("POST") {
                act.clone()
            } else {
                bytes(&watched)
            })
        })
        .await;
        let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
        let answer = start_at(api, ORDER).await;
        assert_eq!(
            (answer.status, answer.text("code")),
            (200, "pay_1"),
            "{answer:?}"
        );
        assert!(!format!("{answer:?}").contains("pay_evil"), "{answer:?}");
        for _ in 0..3 {
            let answer = call(
                api,
                Method::GET,
                "/watch/x",
                &[("cache-control", "no-cache")],
                "",
            )
            .await;
            assert_eq!(
                (answer.status, answer.text("status")),
                (200, "created"),
                "{answer:?}"
            );
        }
        assert_eq!(
            (gateway.connections(), gateway.requests().len()),
            (2, 4),
            "a connection goes on after such an answer"
        );
    }
}

#[tokio::test]
async fn a_head_may_be_odd_in_what_takes_no_part_in_where_an_answer_ends() {
    let (gateway, set) = changeable().await;
    let settings = [
        ("start.rate", "1000"),
        ("start.burst", "1000"),
        ("watch.fresh_for", "1ms"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let wide: String = (0..30)
        .map(|n| format!("X-{n}: {}\r\n", "y".repeat(700)))
        .collect();
    let wider: String = (0..90)
        .map(|n| format!("X-{n}: {}\r\n", "y".repeat(700)))
        .collect();
    let many: String = (0..400).map(|n| format!("X-{n}: y\r\n")).collect();
    let cases = [
        ("a control character in a cookie", "Set-Cookie: a=\x01b\r\n"),
        ("a folded field", "X-A: one\r\n two\r\n\tthree\r\n"),
        ("a space before the colon", "X-A : b\r\n"),
        ("a name with a space", "X Y: 1\r\n"),
        ("a line without a colon", "no field at all\r\n"),
        ("an empty name", ": x\r\n"),
        ("another charset", "X: M\u{fc}ller\r\n"),
        ("twenty kilobytes of fields", &wide),
        ("sixty kilobytes of fields", &wider),
        ("four hundred fields", &many),
    ];
    for (name, headers) in cases {
        set(Act::Say(answer_with(200, headers, STARTED)));
        let answer = start_at(api, ORDER).await;
        assert_eq!(
            (answer.status, answer.text("code")),
            (200, "pay_1"),
            "{name}: {answer:?}"
        );
        set(Act::Say(answer_with(200, headers, WATCHED)));
        let answer = call(
            api,
            Method::GET,
            "/watch/watch_1",
            &[("cache-control", "no-cache")],
            "",
        )
        .await;
        assert_eq!(
            (answer.status, answer.text("status")),
            (200, "created"),
            "{name}: {answer:?}"
        );
    }
    // A reason is not needed.
    for head in [
        "HTTP/1.1 200\r\n",
        "HTTP/1.1 200 \r\n",
        "HTTP/1.0 200 OK\r\n",
    ] {
        set(Act::SayAndEnd(bytes(&format!(
            "{head}Content-Length : {}\r\n\r\n{STARTED}",
            STARTED.len()
        ))));
        let answer = start_at(api, ORDER).await;
        assert_eq!(
            (answer.status, answer.text("code")),
            (200, "pay_1"),
            "{head:?}: {answer:?}"
        );
    }
}

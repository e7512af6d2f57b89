//! Requests that are refused for their form.

use super::*;

fn bad_hosts() -> Vec<(String, Vec<u8>, Refusal)> {
    let mut cases = vec![
        (
            "no Host".to_owned(),
            b"GET /watch/x HTTP/1.1\r\n\r\n".to_vec(),
            BAD,
        ),
        (
            "no Host in HTTP/1.0".to_owned(),
            b"GET /watch/x HTTP/1.0\r\n\r\n".to_vec(),
            BAD,
        ),
        (
            "two Hosts".to_owned(),
            with_headers("Host: localhost\r\nHost: localhost"),
            BAD,
        ),
        (
            "two different Hosts".to_owned(),
            with_headers("Host: localhost\r\nhost: evil.example"),
            BAD,
        ),
    ];
    let ill_formed = [
        "",
        " ",
        "user@localhost",
        "localhost/path",
        "localhost, localhost",
        ":80",
        "localhost:99999",
        "localhost:8a",
        "localhost:-1",
        "[::1",
        "::1",
        "[::1]x",
        "[localhost]",
        "local host",
        "localhost?",
        "localhost#",
        "\\localhost",
        "http://localhost",
        "localhost\x01",
    ];
    cases.extend(ill_formed.map(|host| {
        (
            format!("Host {host:?}"),
            with_headers(&format!("Host: {host}")),
            BAD,
        )
    }));
    cases
}

fn bad_targets() -> Vec<(String, Vec<u8>, Refusal)> {
    let targets = [
        "http://localhost/watch/x",
        "https://localhost/watch/x",
        "HTTP://LOCALHOST/watch/x",
        "*",
        "watch/x",
        "localhost:80",
        "?x=1",
        "/watch/x#y",
        "/watch/\u{e9}",
        "/watch/x\x7f",
        "/watch/x\x01",
        "/watch/x\0",
        "/watch/x y",
        "",
    ];
    let mut cases: Vec<_> = targets
        .map(|target| (format!("target {target:?}"), with_target(target), BAD))
        .into_iter()
        .collect();
    cases.extend([
        (
            "OPTIONS *".to_owned(),
            b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            BAD,
        ),
        (
            "CONNECT".to_owned(),
            b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            BAD,
        ),
        (
            "CONNECT of a path".to_owned(),
            b"CONNECT /watch/x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            BAD,
        ),
        (
            "target in Latin-1".to_owned(),
            b"GET /watch/\xe9 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            BAD,
        ),
        (
            "target over 8 KiB".to_owned(),
            with_target(&format!("/watch/{}", "x".repeat(8 * 1024))),
            TOO_LONG,
        ),
        (
            "target over 16 KiB".to_owned(),
            with_target(&format!("/watch/{}", "x".repeat(17 * 1024))),
            TOO_LONG,
        ),
        (
            "target of 1 MB".to_owned(),
            with_target(&format!("/watch/{}", "x".repeat(1_000_000))),
            TOO_LONG,
        ),
    ]);
    cases
}

fn bad_framing() -> Vec<(String, Vec<u8>, Refusal)> {
    let chunked = format!("{:x}\r\n{ORDER}\r\n0\r\n\r\n", ORDER.len());
    let length = ORDER.len();
    let mut cases: Vec<(String, Vec<u8>, Refusal)> = [
        (
            "both, length first",
            format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
        ),
        (
            "both, coding first",
            format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
        ),
        (
            "both, length 0",
            "Content-Length: 0\r\nTransfer-Encoding: chunked".to_owned(),
        ),
        (
            "coding twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked".to_owned(),
        ),
        (
            "coding twice, identity first",
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked".to_owned(),
        ),
        ("gzip", "Transfer-Encoding: gzip".to_owned()),
        (
            "gzip, chunked",
            "Transfer-Encoding: gzip, chunked".to_owned(),
        ),
        (
            "chunked, gzip",
            "Transfer-Encoding: chunked, gzip".to_owned(),
        ),
        (
            "chunked, chunked",
            "Transfer-Encoding: chunked, chunked".to_owned(),
        ),
        (
            "chunked with a parameter",
            "Transfer-Encoding: chunked;x".to_owned(),
        ),
        ("identity", "Transfer-Encoding: identity".to_owned()),
        ("an empty coding", "Transfer-Encoding: ".to_owned()),
        ("xchunked", "Transfer-Encoding: xchunked".to_owned()),
        (
            "chunked in quotes",
            "Transfer-Encoding: \"chunked\"".to_owned(),
        ),
        (
            "chunked after a vertical tab",
            "Transfer-Encoding: \x0bchunked".to_owned(),
        ),
        (
            "a comma before chunked",
            "Transfer-Encoding: , chunked".to_owned(),
        ),
        (
            "Trailer",
            "Transfer-Encoding: chunked\r\nTrailer: X-Sum".to_owned(),
        ),
    ]
    .into_iter()
    .map(|(name, lines)| (name.to_owned(), with_body(&lines, &chunked), BAD))
    .collect();
    let old = String::from_utf8(with_body("Transfer-Encoding: chunked", &chunked)).unwrap();
    cases.push((
        "chunked in HTTP/1.0".to_owned(),
        old.replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes(),
        BAD,
    ));
    for bad in [
        "16, 16", "16,16", "+16", "-16", "-0", "0x10", "1e1", "16.0", "", " ", "16 16", "16;",
        "sixteen", "\"16\"",
    ] {
        cases.push((
            format!("length {bad:?}"),
            with_body(&format!("Content-Length: {bad}"), ORDER),
            BAD,
        ));
    }
    for bad in ["99999999999999999999", "18446744073709551616"] {
        cases.push((
            format!("length {bad}"),
            with_body(&format!("Content-Length: {bad}"), ORDER),
            BAD,
        ));
    }
    for (first, second) in [(16, 16), (16, 0), (0, 16), (16, 17)] {
        let lines = format!("Content-Length: {first}\r\nContent-Length: {second}");
        cases.push((
            format!("lengths {first} and {second}"),
            with_body(&lines, ORDER),
            BAD,
        ));
    }
    cases
}

/// Name, head without the empty line at its end, and body.
fn bad_chunks() -> Vec<(&'static str, String, String)> {
    [
        ("no size", format!("\r\n{ORDER}\r\n0\r\n\r\n")),
        (
            "a size that is none",
            format!("xyz\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        ("a signed size", format!("+10\r\n{ORDER}\r\n0\r\n\r\n")),
        ("a negative size", format!("-10\r\n{ORDER}\r\n0\r\n\r\n")),
        ("a size with 0x", format!("0x10\r\n{ORDER}\r\n0\r\n\r\n")),
        (
            "a size with an underscore",
            format!("1_0\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "a size with space before it",
            format!(" 10\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "a size too large for 64 bits",
            format!("10000000000000010\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "a size line in a bare line feed",
            format!("10\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "a size line in a bare carriage return",
            format!("10\r{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk longer than its size",
            format!("f\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk shorter than its size",
            format!("11\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "no line end after a chunk",
            format!("10\r\n{ORDER}0\r\n\r\n"),
        ),
        (
            "a bare line feed after a chunk",
            format!("10\r\n{ORDER}\n0\r\n\r\n"),
        ),
        (
            "a bare line feed at the end",
            format!("10\r\n{ORDER}\r\n0\r\n\n"),
        ),
        (
            "a bare line feed in an extension",
            format!("10;a\nb\r\n{ORDER}\r\n0\r\n\r\n"),
        ),
        (
            "a trailer",
            format!("10\r\n{ORDER}\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ),
        (
            "a trailer that frames",
            format!("10\r\n{ORDER}\r\n0\r\nContent-Length: 5\r\n\r\n"),
        ),
        (
            "a long extension",
            format!("10;{}\r\n{ORDER}\r\n0\r\n\r\n", "a".repeat(300)),
        ),
        (
            "a size line without end",
            format!("{}\r\n{ORDER}\r\n0\r\n\r\n", "0".repeat(100_000)),
        ),
    ]
    .map(|(name, body)| (name, format!("{POST}Transfer-Encoding: chunked\r\n"), body))
    .into()
}

fn bad_heads() -> Vec<(String, Vec<u8>, Refusal)> {
    let mut cases: Vec<(String, Vec<u8>, Refusal)> = Vec::new();
    let lines = [
        ("an underscore", "Host: localhost\r\nContent_Length: 5"),
        (
            "an underscore in a harmless name",
            "Host: localhost\r\nX_Request_Id: 5",
        ),
        (
            "space before the colon",
            "Host: localhost\r\nContent-Length : 0",
        ),
        ("space before the colon of Host", "Host : localhost"),
        ("space before the name", " Host: localhost"),
        ("a folded line", "Host: localhost\r\nX-A: 1\r\n 2"),
        (
            "a folded line after a tab",
            "Host: localhost\r\nX-A: 1\r\n\t2",
        ),
        ("a line without a colon", "Host: localhost\r\nX-A"),
        ("an empty name", "Host: localhost\r\n: 1"),
        ("a name that is no token", "Host: localhost\r\nX(A): 1"),
        ("a name with a NUL", "Host: localhost\r\nX-\0A: 1"),
        ("a value with a NUL", "Host: localhost\r\nX-A: \0"),
        ("a value with a bell", "Host: localhost\r\nX-A: \x07"),
        (
            "a value with a bare carriage return",
            "Host: localhost\r\nX-A: 1\rX-B: 2",
        ),
        ("a bare line feed between fields", "Host: localhost\nX-A: 1"),
        (
            "a bare line feed before the end",
            "Host: localhost\r\nX-A: 1\n\r\nX-B: 1",
        ),
    ];
    cases.extend(lines.map(|(name, lines)| (name.to_owned(), with_headers(lines), BAD)));
    let whole: [(&str, &[u8]); 16] = [
        (
            "bare line feeds throughout",
            b"GET /watch/x HTTP/1.1\nHost: localhost\n\n",
        ),
        (
            "bare carriage returns throughout",
            b"GET /watch/x HTTP/1.1\rHost: localhost\r\r",
        ),
        (
            "a bare line feed first",
            b"\nGET /watch/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        (
            "space before the method",
            b" GET /watch/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        (
            "two spaces",
            b"GET  /watch/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        (
            "tabs",
            b"GET\t/watch/x\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        (
            "a word too many",
            b"GET /watch/x HTTP/1.1 x\r\nHost: localhost\r\n\r\n",
        ),
        (
            "a method that is no token",
            b"G@T /watch/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        ("HTTP/0.9", b"GET /watch/x\r\n\r\n"),
        (
            "HTTP/1.2",
            b"GET /watch/x HTTP/1.2\r\nHost: localhost\r\n\r\n",
        ),
        (
            "HTTP/2.0",
            b"GET /watch/x HTTP/2.0\r\nHost: localhost\r\n\r\n",
        ),
        (
            "http/1.1",
            b"GET /watch/x http/1.1\r\nHost: localhost\r\n\r\n",
        ),
        (
            "HTTP/11",
            b"GET /watch/x HTTP/11\r\nHost: localhost\r\n\r\n",
        ),
        (
            "the preface of HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ),
        (
            "a TLS greeting",
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
        ),
        ("another protocol", b"EHLO localhost\r\n\r\n"),
    ];
    cases.extend(whole.map(|(name, bytes)| (name.to_owned(), bytes.to_vec(), BAD)));
    let many = |n: usize| {
        (0..n)
            .map(|i| format!("\r\nX-{i}: {i}"))
            .collect::<String>()
    };
    let long = |n: usize| format!("Host: localhost\r\nX-Long: {}", "x".repeat(n));
    cases.extend([
        (
            "101 fields".to_owned(),
            with_headers(&format!("Host: localhost{}", many(100))),
            TOO_LARGE,
        ),
        (
            "a thousand fields".to_owned(),
            with_headers(&format!("Host: localhost{}", many(999))),
            TOO_LARGE,
        ),
        (
            "a head over 16 KiB".to_owned(),
            with_headers(&long(16 * 1024)),
            TOO_LARGE,
        ),
        (
            "a head of 200 KB".to_owned(),
            with_headers(&long(200_000)),
            TOO_LARGE,
        ),
    ]);
    for expectation in [
        "200-ok",
        "100-continue, 200-ok",
        "",
        "100-continue\r\nExpect: 100-continue",
    ] {
        let lines = format!("Expect: {expectation}\r\nContent-Length: {}", ORDER.len());
        cases.push((
            format!("Expect: {expectation:?}"),
            with_body(&lines, ORDER),
            EXPECTATION,
        ));
    }
    cases
}

/// All of them: name, bytes, and what the API says.
pub fn malformed() -> Vec<(String, Vec<u8>, Refusal)> {
    [bad_hosts(), bad_targets(), bad_framing(), bad_heads()].concat()
}

#[tokio::test]
async fn a_malformed_request_gets_one_refusal_and_nothing_after_it_is_taken_for_a_request() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let cases = malformed();
    assert!(cases.len() >= 60);
    let mut wrong = Vec::new();
    for (name, bytes, refusal) in &cases {
        let answers = exchange(api, [bytes, GOOD.as_bytes()].concat()).await;
        if let Err(why) = answers.and_then(|answers| is_one_refusal(&answers, *refusal)) {
            wrong.push(format!("{name}: {why}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "of {} requests {} went wrong:\n{}",
        cases.len(),
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(
        calls(&gateway).await,
        (0, 0),
        "something reached the gateway"
    );
    let good = Wire::open(api).await.asked(GOOD).await;
    assert_eq!(
        good.status, 404,
        "the request that followed each of them does reach the gateway: {good:?}"
    );
    assert_eq!(calls(&gateway).await, (0, 1));
}

#[tokio::test]
async fn a_body_in_bad_chunks_gets_one_refusal_and_nothing_after_it_is_taken_for_a_request() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let mut wrong = Vec::new();
    for (name, head, body) in bad_chunks() {
        let answers = exchange(api, format!("{head}\r\n{body}{GOOD}").into()).await;
        if let Err(why) = answers.and_then(|answers| is_one_refusal(&answers, BAD)) {
            wrong.push(format!("{name}: {why}"));
        }
    }
    assert_eq!(
        calls(&gateway).await,
        (0, 0),
        "something reached the gateway"
    );
    assert!(
        wrong.is_empty(),
        "{} went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test]
async fn a_good_request_before_a_bad_body_in_the_same_write_is_still_answered() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let bad = format!("{POST}Transfer-Encoding: chunked\r\n\r\nxyz\r\n");
    let answers = exchange(api, format!("{GOOD}{bad}{GOOD}").into())
        .await
        .unwrap();
    assert_eq!(
        answers
            .iter()
            .map(|answer| answer.status)
            .collect::<Vec<_>>(),
        [404, 400],
        "{answers:?}"
    );
    assert_eq!(calls(&gateway).await, (0, 1));
}

#[tokio::test]
async fn a_body_in_bad_chunks_that_comes_after_its_head_gets_one_refusal_too() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway, &[]).await;
    let mut wrong = Vec::new();
    for (name, head, body) in bad_chunks() {
        let mut wire = Wire::open(api).await;
        wire.send(format!("{head}Expect: 100-continue\r\n\r\n"))
            .await;
        assert_eq!(wire.answer().await.status, 100, "{name}");
        let mut stream = wire.into_stream();
        let mut received = Vec::new();
        stream
            .write_all(format!("{body}{GOOD}").as_bytes())
            .await
            .unwrap();
        let end = tokio::time::timeout(
            std::time::Duration::from_secs(10),
            stream.read_to_end(&mut received),
        )
        .await;
        end.expect("an end in time").expect("an orderly end");
        if let Err(why) = Answer::all(&received).and_then(|answers| is_one_refusal(&answers, BAD)) {
            wrong.push(format!("{name}: {why}"));
        }
    }
    assert_eq!(
        calls(&gateway).await,
        (0, 0),
        "something reached the gateway"
    );
    assert!(
        wrong.is_empty(),
        "{} went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

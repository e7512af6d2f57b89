//! The sidecar in front of a gateway that is written here, byte by byte: what it sends, how often, and what it makes
//! of answers that no sandbox gives.

use std::sync::{Arc, Mutex};

use hyper::Method;
use tillgate::sandbox::DEFAULT_SECRET;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{
    ORDER, Program, Wire, call, closed_port, get_at, metric_at, run, start_at, until, watch_anew,
};
use crate::scripted::{
    Act, Gateway, PROXY_VARIABLES, STARTED, WATCHED, answer, answer_with, as_told, good, tls, told,
};
use crate::server::Server;

#[tokio::test]
async fn a_pooled_connection_that_the_gateway_closed_while_idle_costs_nothing() {
    let gateway = Gateway::new(|_, request| good(request)).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
    for _ in 0..2 {
        assert_eq!(watch_anew(api, "watch_1").await.status, 200);
    }
    assert_eq!(gateway.connections(), 1, "the connection is used again");
    gateway.end_idle();
    until("the other side's end", async || {
        (gateway.ended() == 1).then_some(())
    })
    .await;
    assert_eq!(watch_anew(api, "watch_1").await.status, 200);
    assert_eq!(
        (gateway.connections(), gateway.requests().len()),
        (2, 3),
        "each question once"
    );
}

#[tokio::test]
async fn an_answer_that_ends_the_connection_is_followed_by_a_new_connection() {
    let gateway =
        Gateway::new(|_, _| Act::SayAndEnd(answer_with(200, "Connection: close\r\n", STARTED)))
            .await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
    for _ in 0..5 {
        assert_eq!(start_at(api, ORDER).await.status, 200);
    }
    assert_eq!((gateway.connections(), gateway.requests().len()), (5, 5));
}

#[tokio::test]
async fn a_start_whose_connection_was_reset_after_it_was_read_is_unknown_and_sent_once() {
    for act in [
        Act::Reset,
        Act::SayAndEnd(Vec::new()),
        Act::SayAndEnd(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
    ] {
        let gateway = Gateway::new(move |_, _| act.clone()).await;
        let (_sidecar, api, _) =
            Program::sidecar(&gateway.url(), &[("gateway.retries", "5")]).await;
        let answer = start_at(api, ORDER).await;
        assert_eq!(told(&answer), as_told(502, "gateway_bad_answer", "unknown"));
        assert_eq!(answer.json()["retryable"], true);
        assert_eq!(gateway.requests().len(), 1, "never repeated by itself");
    }
}

#[tokio::test]
async fn a_start_goes_over_a_connection_of_its_own_whatever_went_before() {
    let gateway = Gateway::new(|n, request| if n < 2 { good(request) } else { Act::Reset }).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
    assert_eq!(watch_anew(api, "watch_1").await.status, 200);
    assert_eq!(start_at(api, ORDER).await.status, 200);
    assert_eq!(
        told(&start_at(api, ORDER).await),
        as_told(502, "gateway_bad_answer", "unknown")
    );
    assert_eq!((gateway.connections(), gateway.requests().len()), (3, 3));
}

#[tokio::test]
async fn a_watch_is_repeated_after_a_reset_as_often_as_retries_says() {
    let gateway = Gateway::new(|_, _| Act::Reset).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[("gateway.retries", "3")]).await;
    let answer = get_at(api, "/watch/x").await;
    assert_eq!(told(&answer), as_told(502, "gateway_bad_answer", ""));
    assert_eq!(gateway.requests().len(), 4);

    let gateway = Gateway::new(|n, request| if n < 2 { Act::Reset } else { good(request) }).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[("gateway.retries", "2")]).await;
    assert_eq!(get_at(api, "/watch/x").await.status, 200);
    assert_eq!(gateway.requests().len(), 3);
}

#[tokio::test]
async fn a_refused_connection_is_unreachable_and_nothing_was_sent() {
    let (_socket, url) = closed_port();
    let (_sidecar, api, admin) = Program::sidecar(&url, &[]).await;
    assert_eq!(
        told(&start_at(api, ORDER).await),
        as_told(503, "gateway_unreachable", "not_sent")
    );
    assert_eq!(
        told(&get_at(api, "/watch/x").await),
        as_told(503, "gateway_unreachable", "")
    );
    assert_eq!(
        get_at(admin, "/readyz").await.status,
        200,
        "the gateway is no part of readiness"
    );
    let (_sidecar, api, _) = Program::sidecar(
        "http://no-such-name.invalid:1",
        &[("gateway.allow_plain_http", "true")],
    )
    .await;
    assert_eq!(
        told(&start_at(api, ORDER).await),
        as_told(503, "gateway_unreachable", "not_sent")
    );
}

#[tokio::test]
async fn a_gateway_that_never_finishes_its_tls_is_unreachable() {
    // It takes connections and says nothing; the client waits for the server's part of the handshake.
    let server = Server::new(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let url = format!("https://{}", server.address);
    let settings = [
        ("gateway.connect_timeout", "200ms"),
        ("gateway.retries", "1"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&url, &settings).await;
    assert_eq!(
        told(&start_at(api, ORDER).await),
        as_told(503, "gateway_unreachable", "not_sent")
    );
}

#[tokio::test]
async fn tls_holds_only_with_a_known_authority_and_the_right_name() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let key_log = directory.path().join("keys");
    let (right_ca, right) = tls("localhost");
    let (other_ca, _) = tls("localhost");
    let (wrong_name_ca, wrong_name) = tls("pay.example");
    let cases = [
        (
            "good",
            right.clone(),
            Some(write("right.pem", &right_ca)),
            true,
        ),
        (
            "one of two authorities",
            right.clone(),
            Some(write("both.pem", &format!("{other_ca}{right_ca}"))),
            true,
        ),
        (
            "an unknown authority",
            right.clone(),
            Some(write("other.pem", &other_ca)),
            false,
        ),
        ("the built-in authorities", right, None, false),
        (
            "a wrong name",
            wrong_name,
            Some(write("wrong.pem", &wrong_name_ca)),
            false,
        ),
    ];
    for (name, acceptor, ca_file, works) in cases {
        let gateway = Gateway::with_tls(Some(acceptor), |_, request| good(request)).await;
        let url = gateway.https_url();
        let mut settings = vec![
            ("gateway.retries", "2"),
            ("SSLKEYLOGFILE", key_log.to_str().unwrap()),
        ];
        settings.extend(ca_file.as_deref().map(|file| ("gateway.ca_file", file)));
        let (_sidecar, api, _) = Program::sidecar(&url, &settings).await;
        let answer = start_at(api, ORDER).await;
        if works {
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            assert_eq!(gateway.requests().len(), 1, "{name}");
        } else {
            assert_eq!(
                told(&answer),
                as_told(503, "gateway_unreachable", "not_sent"),
                "{name}"
            );
            assert_eq!(
                (gateway.connections(), gateway.requests().len()),
                (3, 0),
                "{name}: tried again, and nothing sent"
            );
            let mut settings = vec![
                ("gateway.url", url.as_str()),
                ("merchant.secret", DEFAULT_SECRET),
            ];
            settings.extend(ca_file.as_deref().map(|file| ("gateway.ca_file", file)));
            let (code, _, err) = run(&["check", "--online"], &settings).await;
            assert!(code == 1 && err.contains("certificate"), "{name}: {err}");
        }
        assert!(!key_log.exists(), "{name}: session keys were written down");
    }
}

#[tokio::test]
async fn a_changed_ca_file_is_used_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let (ca, acceptor) = tls("localhost");
    std::fs::write(&file, tls("localhost").0).unwrap();
    let gateway = Gateway::with_tls(Some(acceptor), |_, request| good(request)).await;
    let url = gateway.https_url();
    let (mut sidecar, api, _) =
        Program::sidecar(&url, &[("gateway.ca_file", file.to_str().unwrap())]).await;
    assert_eq!(
        start_at(api, ORDER).await.text("error"),
        "gateway_unreachable"
    );
    std::fs::write(&file, ca).unwrap();
    sidecar.signal("HUP");
    sidecar.log_line("file loaded").await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Gateway::new(|_, request| good(request)).await;
        let location = format!("Location: {}/api/start_payment\r\n", elsewhere.url());
        let gateway =
            Gateway::new(move |_, _| Act::Say(answer_with(status, &location, STARTED))).await;
        let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
        assert_eq!(
            told(&start_at(api, ORDER).await),
            as_told(502, "gateway_bad_answer", "unknown"),
            "{status}"
        );
        assert_eq!(
            told(&get_at(api, "/watch/x").await),
            as_told(502, "gateway_bad_answer", ""),
            "{status}"
        );
        assert_eq!(
            (elsewhere.connections(), gateway.requests().len()),
            (0, 2),
            "{status}"
        );
    }
}

#[tokio::test]
async fn proxy_variables_are_ignored() {
    let proxy = Gateway::new(|_, request| good(request)).await;
    let gateway = Gateway::new(|_, request| good(request)).await;
    let url = proxy.url();
    let (_sidecar, api, _) = Program::sidecar(
        &gateway.url(),
        &PROXY_VARIABLES.map(|name| (name, url.as_str())),
    )
    .await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    assert_eq!(get_at(api, "/watch/watch_1").await.status, 200);
    assert_eq!((proxy.connections(), gateway.requests().len()), (0, 2));
}

/// The lines of a head, sorted, but for the first; and the body.
fn parts(request: &str) -> (String, Vec<String>, String) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n").map(ToOwned::to_owned);
    let first = lines.next().unwrap();
    let mut lines: Vec<_> = lines
        .map(|line| {
            line.split_once(": ")
                .map(|(name, value)| format!("{}: {value}", name.to_lowercase()))
                .unwrap()
        })
        .collect();
    lines.sort();
    (first, lines, body.to_owned())
}

#[tokio::test]
async fn the_gateway_gets_exactly_the_fixed_headers_whatever_the_caller_sends() {
    let gateway = Gateway::new(|_, request| good(request)).await;
    let settings = [
        ("start.forward_fields", "[\"note\"]"),
        ("redirect.allowed", "[\"https://shop.example\"]"),
        ("watch.fresh_for", "1ms"),
    ];
    let url = format!("{}/base/", gateway.url());
    let (_sidecar, api, _) = Program::sidecar(&url, &settings).await;
    let loud = [
        ("content-type", "application/json; charset=utf-8"),
        ("authorization", "Bearer of-the-caller"),
        ("cookie", "session=1"),
        ("accept", "text/html"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "de"),
        ("user-agent", "shop/1.0"),
        ("x-request-id", "of-the-caller"),
        ("x-merchant-secret", "of-the-caller"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("cache-control", "no-cache"),
        ("if-none-match", "\"x\""),
        ("prefer", "wait=1"),
        ("upgrade", "h2c"),
        ("keep-alive", "timeout=5"),
    ];
    let plain = [("content-type", "application/json")];
    for headers in [&plain[..], &loud] {
        let body = r#"{"note":"n","redirect":"https://shop.example/back","amount":1000}"#;
        let started = call(api, Method::POST, "/api/start_payment", headers, body).await;
        assert_eq!(started.status, 200, "{started:?}");
        let watched = call(
            api,
            Method::GET,
            "/watch/watch_1?amount=1&secret=2",
            headers,
            "",
        )
        .await;
        assert!(matches!(watched.status, 200 | 304), "{watched:?}");
    }
    let requests = gateway.requests();
    assert_eq!(requests.len(), 4);
    let body = format!(r#"{{"merchant_secret":"{DEFAULT_SECRET}","amount":1000,"note":"n"}}"#);
    let fixed = [
        "accept: application/json".to_owned(),
        format!("host: {}", gateway.address()),
        concat!("user-agent: tillgate/", env!("CARGO_PKG_VERSION")).to_owned(),
    ];
    let mut of_start = fixed.to_vec();
    of_start.extend([
        format!("content-length: {}", body.len()),
        "connection: close".to_owned(),
        "content-type: application/json".to_owned(),
    ]);
    of_start.sort();
    for pair in requests.chunks(2) {
        assert_eq!(
            parts(&pair[0]),
            (
                "POST /base/api/start_payment HTTP/1.1".to_owned(),
                of_start.clone(),
                body.clone()
            )
        );
        assert_eq!(
            parts(&pair[1]),
            (
                "GET /base/watch/watch_1 HTTP/1.1".to_owned(),
                fixed.to_vec(),
                String::new()
            )
        );
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_used_is_told_as_what_it_is() {
    let large = format!(
        r#"{{"code":"pay_1","watch_code":"watch_1","padding":"{}"}}"#,
        "x".repeat(70_000)
    );
    let chunked = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
        .into_bytes()
    };
    let bad = as_told(502, "gateway_bad_answer", "unknown");
    let cases: Vec<(&str, Act, (u16, String, String))> = vec![
        ("too large", Act::Say(answer(200, &large)), bad.clone()),
        (
            "too large in chunks",
            Act::Say(chunked(&large)),
            bad.clone(),
        ),
        (
            "cut short",
            Act::SayAndEnd(
                b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"code\":\"pay_1\"".to_vec(),
            ),
            bad.clone(),
        ),
        (
            "cut short in chunks",
            Act::SayAndEnd(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"cod\r\n".to_vec(),
            ),
            bad.clone(),
        ),
        (
            "encoded",
            Act::Say(answer_with(200, "Content-Encoding: gzip\r\n", STARTED)),
            bad.clone(),
        ),
        (
            "not HTTP",
            Act::SayAndEnd(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
            bad.clone(),
        ),
        (
            "an endless head",
            Act::Drip(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000)).into_bytes()),
            bad.clone(),
        ),
        ("not JSON", Act::Say(answer(200, "<html>")), bad.clone()),
        ("empty", Act::Say(answer(200, "")), bad.clone()),
        (
            "no content",
            Act::Say(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
            bad.clone(),
        ),
        ("an array", Act::Say(answer(200, "[]")), bad.clone()),
        (
            "twice an object",
            Act::Say(answer(200, &format!("{STARTED}{STARTED}"))),
            bad.clone(),
        ),
        (
            "a field missing",
            Act::Say(answer(200, r#"{"code":"pay_1"}"#)),
            bad.clone(),
        ),
        (
            "a field of another type",
            Act::Say(answer(200, r#"{"code":1,"watch_code":"watch_1"}"#)),
            bad.clone(),
        ),
        (
            "a code that is a path",
            Act::Say(answer(200, r#"{"code":"../x","watch_code":"watch_1"}"#)),
            bad.clone(),
        ),
        (
            "a code that is a dot",
            Act::Say(answer(200, r#"{"code":"pay_1","watch_code":".."}"#)),
            bad.clone(),
        ),
        (
            "an empty code",
            Act::Say(answer(200, r#"{"code":"","watch_code":"watch_1"}"#)),
            bad.clone(),
        ),
        ("not found", Act::Say(answer(404, "{}")), bad.clone()),
        ("not allowed", Act::Say(answer(405, "{}")), bad.clone()),
        ("teapot", Act::Say(answer(418, "{}")), bad.clone()),
        ("failed", Act::Say(answer(500, "{}")), bad.clone()),
        ("failed in HTML", Act::Say(answer(503, "<html>")), bad),
        (
            "bad request",
            Act::Say(answer(400, r#"{"message":"m"}"#)),
            as_told(422, "gateway_rejected", "rejected"),
        ),
        (
            "unprocessable",
            Act::Say(answer(422, "not JSON")),
            as_told(422, "gateway_rejected", "rejected"),
        ),
        (
            "unauthorized",
            Act::Say(answer(401, "{}")),
            as_told(502, "gateway_refused_secret", "rejected"),
        ),
        (
            "forbidden",
            Act::Say(answer(403, "{}")),
            as_told(502, "gateway_refused_secret", "rejected"),
        ),
        (
            "busy",
            Act::Say(answer(429, "{}")),
            as_told(503, "gateway_busy", "rejected"),
        ),
        (
            "silent",
            Act::Hang,
            as_told(504, "gateway_timeout", "unknown"),
        ),
        (
            "a head without end",
            Act::Say(b"HTTP/1.1 200 OK\r\n".to_vec()),
            as_told(504, "gateway_timeout", "unknown"),
        ),
        (
            "dripping without end",
            Act::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{".to_vec()),
            as_told(504, "gateway_timeout", "unknown"),
        ),
    ];
    let act: Arc<Mutex<Act>> = Arc::new(Mutex::new(Act::Hang));
    let current = act.clone();
    let gateway = Gateway::new(move |_, _| current.lock().unwrap().clone()).await;
    let settings = [
        ("gateway.timeout", "1s"),
        ("gateway.connect_timeout", "1s"),
        ("start.rate", "1000"),
        ("start.burst", "1000"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let mut wrong = Vec::new();
    for (i, (name, to_do, expected)) in cases.into_iter().enumerate() {
        *act.lock().unwrap() = to_do;
        let answer = start_at(api, ORDER).await;
        if told(&answer) != expected || answer.json()["source"] != "gateway" {
            wrong.push(format!("{name}: {answer:?}, not {expected:?}"));
        }
        assert_eq!(gateway.requests().len(), i + 1, "{name}: sent once");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_answer_that_announces_too_much_is_too_large_before_it_has_come() {
    let huge = Act::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{".to_vec());
    let gateway = Gateway::new(move |_, _| huge.clone()).await;
    let settings = [("gateway.timeout", "1s"), ("gateway.connect_timeout", "1s")];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let answer = start_at(api, ORDER).await;
    assert_eq!(told(&answer), as_told(502, "gateway_bad_answer", "unknown"));
    assert!(
        answer.text("detail").contains("gateway.max_response_bytes"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_watch_tells_bad_answers_with_the_same_words_and_no_outcome() {
    let act: Arc<Mutex<Act>> = Arc::new(Mutex::new(Act::Hang));
    let current = act.clone();
    let gateway = Gateway::new(move |_, _| current.lock().unwrap().clone()).await;
    let settings = [
        ("gateway.timeout", "1s"),
        ("gateway.connect_timeout", "1s"),
        ("gateway.retries", "0"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    for (i, (to_do, status, error)) in [
        (Act::Say(answer(400, "{}")), 502, "gateway_bad_answer"),
        (Act::Say(answer(422, "{}")), 502, "gateway_bad_answer"),
        (Act::Say(answer(500, "{}")), 502, "gateway_bad_answer"),
        (Act::Say(answer(200, "{}")), 502, "gateway_bad_answer"),
        (Act::Say(answer(404, "{}")), 404, "unknown_watch_code"),
        (Act::Say(answer(401, "{}")), 502, "gateway_refused_secret"),
        (Act::Say(answer(429, "{}")), 503, "gateway_busy"),
        (Act::Hang, 504, "gateway_timeout"),
        (
            Act::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{".to_vec()),
            504,
            "gateway_timeout",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        *act.lock().unwrap() = to_do;
        let answer = get_at(api, &format!("/watch/of-case-{i}")).await;
        assert_eq!(told(&answer), as_told(status, error, ""), "{i}");
        assert!(answer.json().get("outcome").is_none(), "{i}");
    }
}

#[tokio::test]
async fn the_patience_that_a_busy_gateway_asks_for_is_passed_on_up_to_a_bound() {
    let wait: Arc<Mutex<String>> = Arc::default();
    let current = wait.clone();
    let gateway = Gateway::new(move |_, _| {
        Act::Say(answer_with(
            429,
            &format!("Retry-After: {}\r\n", current.lock().unwrap()),
            "{}",
        ))
    })
    .await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
    for (asked, passed_on) in [
        ("7", "7"),
        ("300", "300"),
        ("86400", "300"),
        ("99999999999999999999", ""),
    ] {
        asked.clone_into(&mut wait.lock().unwrap());
        let answer = start_at(api, ORDER).await;
        assert_eq!(told(&answer), as_told(503, "gateway_busy", "rejected"));
        let said = answer.header("retry-after");
        assert!(
            said == passed_on
                || passed_on.is_empty() && said.parse::<u64>().is_ok_and(|said| said <= 300),
            "{asked}: {said}"
        );
    }
}

#[tokio::test]
async fn odd_answers_that_are_whole_are_good() {
    let chunked = format!("{:x}\r\n{STARTED}\r\n0\r\n\r\n", STARTED.len());
    let cases = [
        ("created", Act::Say(answer(201, STARTED))),
        (
            "chunked",
            Act::Say(
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}").into(),
            ),
        ),
        (
            "no content type",
            Act::Say(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{STARTED}",
                    STARTED.len()
                )
                .into(),
            ),
        ),
        (
            "up to the end of the connection",
            Act::SayAndEnd(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{STARTED}").into()),
        ),
        (
            "HTTP/1.0",
            Act::SayAndEnd(format!("HTTP/1.0 200 OK\r\n\r\n{STARTED}").into()),
        ),
        (
            "early hints first",
            Act::Say(
                [
                    b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(),
                    answer(200, STARTED),
                ]
                .concat(),
            ),
        ),
        (
            "encoded as itself",
            Act::Say(answer_with(200, "Content-Encoding: identity\r\n", STARTED)),
        ),
        (
            "further fields",
            Act::Say(answer(
                200,
                r#"{"code":"pay_1","message":"m","watch_code":"w","fee":1e2,"big":12345678901234567890}"#,
            )),
        ),
    ];
    for (name, act) in cases {
        let gateway = Gateway::new(move |_, _| act.clone()).await;
        let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
        let answer = start_at(api, ORDER).await;
        assert_eq!(
            (answer.status, answer.text("code")),
            (200, "pay_1"),
            "{name}: {answer:?}"
        );
        assert_eq!(
            answer.text("pay_url"),
            format!("{}/pay/pay_1", gateway.url()),
            "{name}"
        );
        if name == "further fields" {
            assert!(
                answer
                    .body
                    .contains(r#""fee":1e2,"big":12345678901234567890"#),
                "{}",
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn a_refused_secret_is_read_again_once_and_tried_once_more_if_it_changed() {
    const OLD: &str = "the_secret_of_yesterday";
    const NEW: &str = "the_secret_of_today";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, OLD).unwrap();
    let rotated = file.clone();
    let gateway = Gateway::new(move |n, request| {
        if n == 0 {
            // Rotated at the gateway and on the disk, in this moment.
            std::fs::write(&rotated, NEW).unwrap();
        }
        if request.contains(NEW) {
            good(request)
        } else {
            Act::Say(answer(401, "{}"))
        }
    })
    .await;
    let (_sidecar, api, _) = Program::sidecar(
        &gateway.url(),
        &[("merchant.secret_file", file.to_str().unwrap())],
    )
    .await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    let requests = gateway.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].contains(OLD) && requests[1].contains(NEW));

    // Refused although it did not change: once. Refused although it did: twice, and no more.
    for (changes, tries) in [(false, 1), (true, 2)] {
        std::fs::write(&file, OLD).unwrap();
        let rotated = file.clone();
        let gateway = Gateway::new(move |n, _| {
            if changes {
                std::fs::write(&rotated, format!("the_secret_of_try_{n}")).unwrap();
            }
            Act::Say(answer(403, "{}"))
        })
        .await;
        let (_sidecar, api, _) = Program::sidecar(
            &gateway.url(),
            &[("merchant.secret_file", file.to_str().unwrap())],
        )
        .await;
        assert_eq!(
            told(&start_at(api, ORDER).await),
            as_told(502, "gateway_refused_secret", "rejected")
        );
        assert_eq!(gateway.requests().len(), tries);
    }
}

/// Starts at a gateway that repeats these forms of the secret, in a good answer and in a refusal; what of it is left.
async fn left_of_echo(forms: &'static [&'static str]) -> Vec<String> {
    let gateway = Gateway::new(move |n, _| {
        let form = forms[n / 2];
        Act::Say(if n % 2 == 0 {
            answer(
                200,
                &format!(
                    r#"{{"code":"pay_1","watch_code":"watch_1","message":"got {form}.","{form}":[{{"a":"{form}"}}]}}"#
                ),
            )
        } else {
            answer(422, &format!(r#"{{"message":"bad {form}."}}"#))
        })
    })
    .await;
    let (_sidecar, api, admin) =
        Program::sidecar(&gateway.url(), &[("merchant.secret", ECHOED)]).await;
    let mut left = Vec::new();
    for form in forms {
        for status in [200, 422] {
            let answer = start_at(api, ORDER).await;
            assert_eq!(answer.status, status, "{answer:?}");
            let body = answer.json().to_string();
            if !body.contains("[redacted]") || body.contains(ECHOED) || body.contains(form) {
                left.push(format!("{form}: {body}"));
            }
        }
    }
    let counted = format!("tillgate_secret_echo_total {}", forms.len() * 2);
    if left.is_empty() && !get_at(admin, "/metrics").await.body.contains(&counted) {
        left.push(format!("not {counted}"));
    }
    left
}

const ECHOED: &str = "s3cret/with+special=chars&more";

#[tokio::test]
async fn an_echoed_secret_is_taken_out_of_an_answer_raw_and_escaped() {
    let forms = &[
        ECHOED,
        "s3cret\\/with+special=chars&more",
        "\\u00733cret/with\\u002bspecial=chars&more",
    ];
    assert_eq!(left_of_echo(forms).await, [""; 0]);
}

#[tokio::test]
async fn an_echoed_secret_is_taken_out_of_an_answer_percent_encoded() {
    let forms = &[
        "s3cret%2Fwith%2Bspecial%3Dchars%26more",
        "s3cret%2fwith%2bspecial%3dchars%26more",
    ];
    assert_eq!(left_of_echo(forms).await, [""; 0]);
}

#[tokio::test]
async fn an_echoed_secret_is_taken_out_of_an_answer_in_base64() {
    assert_eq!(
        left_of_echo(&["czNjcmV0L3dpdGgrc3BlY2lhbD1jaGFycyZtb3Jl"]).await,
        [""; 0]
    );
}

#[tokio::test]
async fn a_caller_who_hangs_up_cancels_nothing() {
    let gateway = Gateway::new(|_, request| {
        if request.starts_with("POST") {
            Act::Hang
        } else {
            good(request)
        }
    })
    .await;
    let (sidecar, api, admin) = Program::sidecar(
        &gateway.url(),
        &[("gateway.timeout", "1s"), ("gateway.connect_timeout", "1s")],
    )
    .await;
    let mut caller = TcpStream::connect(api).await.unwrap();
    let head =
        "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    caller
        .write_all(format!("{head}Content-Length: {}\r\n\r\n{ORDER}", ORDER.len()).as_bytes())
        .await
        .unwrap();
    until("the start at the gateway", async || {
        (gateway.requests().len() == 1).then_some(())
    })
    .await;
    drop(caller);
    // It is told in the metrics how the start ended, a second later.
    until("the end of the start", async || {
        (metric_at(admin, "tillgate_starts_total{outcome=\"unknown\"}").await == 1).then_some(())
    })
    .await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
}

#[tokio::test]
async fn a_request_that_is_quoted_in_an_answer_has_no_secret_in_it_however_it_was_escaped() {
    let forms = &[
        r"s3cret\\/with+special=chars&more",
        r"s3cret/with\\u002Bspecial\\u003dchars\\u0026more",
        r"s3cret%2fwith%2Bspecial=chars%26more",
    ];
    assert_eq!(left_of_echo(forms).await, [""; 0]);
}

#[tokio::test]
async fn a_secret_that_was_in_use_before_is_taken_out_of_answers_too() {
    const OLD: &str = "the_secret_of_yesterday";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, OLD).unwrap();
    let gateway =
        Gateway::new(|_, _| Act::Say(answer(422, &format!(r#"{{"message":"not {OLD} again"}}"#))))
            .await;
    let settings = [("merchant.secret_file", file.to_str().unwrap())];
    let (mut sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    assert_eq!(
        start_at(api, ORDER).await.text("gateway_message"),
        "not [redacted] again"
    );
    std::fs::write(&file, "the_secret_of_today").unwrap();
    sidecar.log_line("file loaded").await;
    assert_eq!(
        start_at(api, ORDER).await.text("gateway_message"),
        "not [redacted] again"
    );
}

#[tokio::test]
async fn a_watch_answer_without_what_an_app_acts_on_is_none() {
    let body: Arc<Mutex<String>> = Arc::default();
    let current = body.clone();
    let gateway = Gateway::new(move |_, _| Act::Say(answer(200, &current.lock().unwrap()))).await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &[]).await;
    let cases = [
        (r#"{"status":"completed"}"#, 200),
        (r#"{"amount":1}"#, 502),
        (r#"{"status":"","amount":1}"#, 502),
        (r#"{"status":1,"amount":1}"#, 502),
        (r#"{"status":"completed","amount":"1"}"#, 200),
        (r#"{"status":"completed","amount":null}"#, 200),
        (r#"{"status":"completed","amount":-1}"#, 200),
        (r#"{"status":"completed","amount":1,"completed_at":5}"#, 200),
        (r#"{"status":"completed","amount":1,"merchant":null}"#, 200),
        (r#"{"status":"completed","amount":1,"created_at":1}"#, 200),
        (
            r#"{"status":"completed","amount":1,"watch_code":"of-another-payment"}"#,
            502,
        ),
        (r#"{"status":"completed","amount":1,"watch_code":7}"#, 502),
        (
            r#"{"status":"completed","amount":1,"watch_code":"of-case-12"}"#,
            200,
        ),
        (
            r#"{"status":"on_hold","amount":1,"completed_at":null}"#,
            200,
        ),
        (r#"{"status":"completed","amount":1}"#, 200),
    ];
    for (i, (answer, status)) in cases.into_iter().enumerate() {
        answer.clone_into(&mut body.lock().unwrap());
        let told = get_at(api, &format!("/watch/of-case-{i}")).await;
        assert_eq!(told.status, status, "{answer}: {told:?}");
    }
}

#[tokio::test]
async fn fields_of_the_gateway_with_the_names_of_ours_do_not_take_their_place() {
    let told = WATCHED.replacen(
        '{',
        r#"{"code":"pay_evil","watch_code":"watch_1","started_at":1,"last_polled_at":2,"#,
        1,
    );
    let gateway = Gateway::new(move |_, request| match good(request) {
        Act::Say(_) if request.starts_with("GET") => Act::Say(answer(200, &told)),
        other => other,
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, "a-token-of-a-caller").unwrap();
    let settings = [("listen.token_file", file.to_str().unwrap())];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let headers = [
        ("authorization", "Bearer a-token-of-a-caller"),
        ("content-type", "application/json"),
    ];
    let ask = async |path: &str| call(api, Method::GET, path, &headers, "").await;
    assert_eq!(
        call(api, Method::POST, "/api/start_payment", &headers, ORDER)
            .await
            .status,
        200
    );
    // What it says is passed on where it is asked for.
    assert_eq!(ask("/watch/watch_1").await.json()["code"], "pay_evil");
    let ours = |json: &serde_json::Value| {
        assert_eq!(
            (&json["code"], &json["watch_code"]),
            (&"pay_1".into(), &"watch_1".into()),
            "{json}"
        );
        assert_eq!(json["merchant"], "M");
    };
    let listed = ask("/payments").await.json()["payments"][0].clone();
    ours(&listed);
    assert!(
        listed["started_at"].is_string() && listed["last_polled_at"].is_string(),
        "{listed}"
    );

    let mut wire = Wire::open(api).await;
    wire.send("GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-token-of-a-caller\r\n\r\n").await;
    let (mut stream, mut bytes) = (wire.into_stream(), Vec::new());
    let data = until("an event", async || {
        stream.read_buf(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (_, event) = text.split_once("data: ")?;
        Some(event.split_once('\n')?.0.to_owned())
    })
    .await;
    ours(&serde_json::from_str(&data).unwrap());
    assert_eq!(data.matches("watch_code").count(), 1, "{data}");
}

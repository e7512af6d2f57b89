//! The sidecar in front of a gateway that is written here, byte by byte: what it sends, how often, and what it makes
//! of answers that no sandbox gives.

mod answers;

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

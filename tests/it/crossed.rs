//! An answer that nobody asked for is never the answer to another question: whatever a gateway, or a confused proxy
//! before it, writes behind an answer, nobody is shown another payment's codes, and nothing becomes final by it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Program, metric_at, start_at, until, watch_anew};
use crate::scripted::{Act, Gateway, STARTED, WATCHED, answer, answer_with, as_told, told};
use crate::server::field;

const COMPLETED: &str = r#"{"status":"completed","amount":1000,"merchant":"M","created_at":"2030-01-01 00:00:00","completed_at":"2030-01-01 00:01:00"}"#;

/// No limit of ours slows these tests down.
const FAST: [(&str, &str); 5] = [
    ("start.rate", "100000"),
    ("start.burst", "100000"),
    ("watch.poll_rate", "10000"),
    ("watch.fresh_for", "1ms"),
    ("watch.max_poll_interval", "50ms"),
];

/// How long a stranger's answer takes to come behind the real one, differently each time.
fn delay(number: usize) -> Duration {
    Duration::from_millis(number as u64 % 11)
}

/// The amount in a start, which tells one from the other.
fn amount_of(request: &str) -> &str {
    request
        .split_once("\"amount\":")
        .unwrap()
        .1
        .split(['}', ','])
        .next()
        .unwrap()
}

fn has_own_connection(request: &str) -> bool {
    request
        .to_ascii_lowercase()
        .contains("\r\nconnection: close\r\n")
}

/// A sidecar in front of a gateway that says `created` to each question about a payment, and some time later, on the same
/// connection, what nobody asked for.
async fn nothing_becomes_completed(tls: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = FAST.to_vec();
    let ca_file = directory.path().join("ca.pem").to_str().unwrap().to_owned();
    let acceptor = tls.map(|name| {
        let (ca, acceptor) = crate::scripted::tls(name);
        std::fs::write(&ca_file, ca).unwrap();
        settings.push(("gateway.ca_file", &ca_file));
        acceptor
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let gateway = Gateway::with_tls(acceptor, move |number, request| {
        if request.starts_with("POST") {
            let amount = amount_of(request);
            let started =
                format!(r#"{{"code":"pay_{amount}","message":"m","watch_code":"watch_{amount}"}}"#);
            return Act::Say(answer(200, &started));
        }
        count.fetch_add(1, Ordering::SeqCst);
        Act::SayTwice(answer(200, WATCHED), delay(number), answer(200, COMPLETED))
    })
    .await;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://localhost:{}", gateway.address().port());
    let url = if tls.is_some() { url } else { gateway.url() };
    let (_sidecar, api, admin) = Program::sidecar(&url, &settings).await;
    for amount in 1..=40 {
        let started = start_at(api, &format!(r#"{{"amount":{amount}}}"#)).await;
        assert_eq!(started.status, 200, "{started:?}");
    }
    let rounds = (0..8).map(|lane| async move {
        for round in 0..40 {
            // No two ask for the same at once: they would share one question.
            let code = format!("watch_{}", 1 + lane * 5 + round % 5);
            let answer = watch_anew(api, &code).await;
            assert_eq!(
                (answer.status, answer.text("status")),
                (200, "created"),
                "{answer:?}"
            );
        }
    });
    futures_util::future::join_all(rounds).await;
    assert!(asked.load(Ordering::SeqCst) >= 320, "the gateway was asked");
    assert_eq!(
        metric_at(admin, "tillgate_payments_tracked{status=\"completed\"}").await,
        0
    );
}

#[tokio::test]
async fn a_status_that_nobody_asked_for_makes_nothing_completed() {
    nothing_becomes_completed(None).await;
}

#[tokio::test]
async fn a_status_that_nobody_asked_for_makes_nothing_completed_over_tls() {
    nothing_becomes_completed(Some("localhost")).await;
}

#[tokio::test]
async fn codes_that_nobody_asked_for_are_nobodys() {
    let gateway = Gateway::new(|number, request| {
        let amount = amount_of(request);
        let started =
            format!(r#"{{"code":"pay_{amount}","message":"m","watch_code":"watch_{amount}"}}"#);
        let strangers = r#"{"code":"pay_stranger","message":"m","watch_code":"watch_stranger"}"#;
        Act::SayTwice(answer(200, &started), delay(number), answer(200, strangers))
    })
    .await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &FAST).await;
    let lanes = (0..4).map(|lane| async move {
        for round in 0..50 {
            let amount = 1000 * (lane + 1) + round;
            let started = start_at(api, &format!(r#"{{"amount":{amount}}}"#)).await;
            assert_eq!(
                (started.status, started.text("code")),
                (200, &*format!("pay_{amount}")),
                "{started:?}"
            );
        }
    });
    futures_util::future::join_all(lanes).await;
    assert_eq!(
        gateway.connections(),
        gateway.requests().len(),
        "each start has a connection of its own"
    );
    assert!(
        gateway
            .requests()
            .iter()
            .all(|request| has_own_connection(request))
    );
}

#[tokio::test]
async fn what_is_completed_on_a_shared_connection_alone_is_told_to_nobody() {
    let agrees = Arc::new(AtomicBool::new(false));
    let of_gateway = agrees.clone();
    let gateway = Gateway::new(move |_, request| {
        if request.starts_with("POST") {
            return Act::Say(answer(200, STARTED));
        }
        let is_completed = !has_own_connection(request) || of_gateway.load(Ordering::SeqCst);
        Act::Say(answer(200, if is_completed { COMPLETED } else { WATCHED }))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let store = format!("file:{}", directory.path().join("store").display());
    let settings = [&FAST[..], &[("store.url", &store)]].concat();
    let (mut sidecar, api, admin) = Program::sidecar(&gateway.url(), &settings).await;
    assert_eq!(start_at(api, r#"{"amount":1000}"#).await.status, 200);
    for _ in 0..3 {
        let answer = watch_anew(api, "watch_1").await;
        assert_eq!(
            (answer.status, answer.text("status")),
            (200, "created"),
            "{answer:?}"
        );
    }
    assert_eq!(metric_at(admin, "tillgate_unconfirmed_total").await, 3);
    assert_eq!(
        metric_at(admin, "tillgate_payments_tracked{status=\"completed\"}").await,
        0
    );
    sidecar.log_line("two answers about one payment").await;
    // Nothing of it was kept.
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    assert_eq!(watch_anew(api, "watch_1").await.text("status"), "created");
    agrees.store(true, Ordering::SeqCst);
    let answer = watch_anew(api, "watch_1").await;
    assert_eq!(
        (answer.status, answer.text("status")),
        (200, "completed"),
        "{answer:?}"
    );
    let asked = gateway.requests().len();
    assert_eq!(watch_anew(api, "watch_1").await.text("status"), "completed");
    assert_eq!(
        gateway.requests().len(),
        asked,
        "final is never asked again"
    );
}

#[tokio::test]
async fn a_second_question_that_fails_is_a_failure_and_the_next_call_asks_again() {
    let failing = Arc::new(AtomicBool::new(true));
    let of_gateway = failing.clone();
    let gateway = Gateway::new(move |_, request| match request {
        _ if request.starts_with("POST") => Act::Say(answer(200, STARTED)),
        _ if has_own_connection(request) && of_gateway.load(Ordering::SeqCst) => {
            Act::Say(answer(500, "{}"))
        }
        _ => Act::Say(answer(200, COMPLETED)),
    })
    .await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &FAST).await;
    assert_eq!(start_at(api, r#"{"amount":1000}"#).await.status, 200);
    assert_eq!(
        told(&watch_anew(api, "watch_1").await),
        as_told(502, "gateway_bad_answer", "")
    );
    failing.store(false, Ordering::SeqCst);
    assert_eq!(watch_anew(api, "watch_1").await.text("status"), "completed");
}

#[tokio::test]
async fn a_second_question_finds_its_turn_also_where_there_is_one_a_second() {
    let gateway = Gateway::new(|_, _| Act::Say(answer(200, COMPLETED))).await;
    let settings = [("watch.poll_rate", "1"), ("gateway.timeout", "1s")];
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    let answer = watch_anew(api, "watch_1").await;
    assert_eq!(
        (answer.status, answer.text("status")),
        (200, "completed"),
        "{answer:?}"
    );
    assert_eq!(gateway.requests().len(), 2);
}

/// An app that writes a second answer behind each, on connections that it never closes by itself.
async fn app_that_answers_twice() -> Gateway {
    let taken = b"HTTP/1.1 204 OK\r\n\r\n";
    Gateway::new(|number, _| Act::SayTwice(taken.into(), delay(number + 1), taken.into())).await
}

#[tokio::test]
async fn a_webhook_counts_as_delivered_only_when_the_app_has_read_it() {
    const PAYMENTS: usize = 60;
    let app = app_that_answers_twice().await;
    let url = format!("{}/events", app.url());
    let gateway = Gateway::new(|_, request| {
        if request.starts_with("POST") {
            let amount = amount_of(request);
            let started =
                format!(r#"{{"code":"pay_{amount}","message":"m","watch_code":"watch_{amount}"}}"#);
            return Act::Say(answer(200, &started));
        }
        Act::Say(answer(200, COMPLETED))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path());
    let settings = [
        &FAST[..],
        &[("webhook.url", &url), ("webhook.secret_file", &keys)],
    ]
    .concat();
    let (_sidecar, api, admin) = Program::sidecar(&gateway.url(), &settings).await;
    for amount in 1..=PAYMENTS {
        assert_eq!(
            start_at(api, &format!(r#"{{"amount":{amount}}}"#))
                .await
                .status,
            200
        );
    }
    until("all are delivered", async || {
        let delivered = metric_at(
            admin,
            "tillgate_webhook_deliveries_total{outcome=\"delivered\"}",
        )
        .await;
        (delivered == PAYMENTS as u64).then_some(())
    })
    .await;
    let requests = app.requests();
    let heard: Vec<_> = requests
        .iter()
        .map(|request| field(request, "webhook-id").unwrap())
        .collect();
    assert_eq!(
        heard.iter().collect::<HashSet<_>>().len(),
        PAYMENTS,
        "each was read"
    );
    assert_eq!(heard.len(), PAYMENTS, "once");
}

fn key_file(directory: &Path) -> String {
    let path = directory.join("keys");
    std::fs::write(&path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_gateway_that_closes_behind_its_answers_costs_no_start_and_no_watch() {
    for pause in [0, 50, 200] {
        let pause = Duration::from_millis(pause);
        let gateway = Gateway::new(move |_, request| {
            let text = if request.starts_with("POST") {
                STARTED
            } else {
                WATCHED
            };
            // It does not say that it will.
            Act::SayAndEndLater(answer_with(200, "Connection: keep-alive\r\n", text), pause)
        })
        .await;
        let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &FAST).await;
        for _ in 0..25 {
            // Timed to its closing: the next question leaves at about the moment when the connection ends.
            let answer = start_at(api, r#"{"amount":1000}"#).await;
            assert_eq!(answer.status, 200, "{pause:?}: {answer:?}");
            let answer = watch_anew(api, "watch_1").await;
            assert_eq!(
                (answer.status, answer.text("status")),
                (200, "created"),
                "{pause:?}: {answer:?}"
            );
            tokio::time::sleep(pause / 2).await;
        }
    }
}

#[tokio::test]
async fn polls_share_a_connection_and_after_a_failure_none_is_used_again() {
    let failing = Arc::new(AtomicBool::new(false));
    let of_gateway = failing.clone();
    let gateway = Gateway::new(move |_, _| match of_gateway.load(Ordering::SeqCst) {
        true => Act::Say(answer(500, "{}")),
        false => Act::Say(answer(200, WATCHED)),
    })
    .await;
    let (_sidecar, api, _) = Program::sidecar(&gateway.url(), &FAST).await;
    for _ in 0..10 {
        assert_eq!(watch_anew(api, "watch_1").await.status, 200);
    }
    assert_eq!(
        gateway.connections(),
        1,
        "one after the other, they share one"
    );
    let together = (0..8).map(|i| async move { watch_anew(api, &format!("watch_{i}")).await });
    futures_util::future::join_all(together).await;
    let used = gateway.connections();
    failing.store(true, Ordering::SeqCst);
    assert_eq!(
        told(&watch_anew(api, "watch_new").await),
        as_told(502, "gateway_bad_answer", "")
    );
    failing.store(false, Ordering::SeqCst);
    assert_eq!(
        gateway.connections(),
        used,
        "the failure came on one of them"
    );
    assert_eq!(watch_anew(api, "watch_1").await.status, 200);
    assert_eq!(
        gateway.connections(),
        used + 1,
        "and none of them was used after it"
    );
}

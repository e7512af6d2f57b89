//! What the app is told of a payment, how it is signed, and that it is told once.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};
use tillgate::sandbox::DEFAULT_SECRET;
use tokio::time::sleep;

use super::app::{App, OK, Post, Say, key, text_of};
use super::{delivered, deliveries, delivery, paid, pending, started, time};
use crate::harness::{Program, address_of, call, get, get_at, pay_at, start_at, until};

/// The guide's fields and both codes.
const FIELDS: [&str; 10] = [
    "amount",
    "code",
    "completed_at",
    "created_at",
    "merchant",
    "paid_twice_with",
    "reference",
    "requested_amount",
    "status",
    "watch_code",
];

#[tokio::test]
async fn a_payment_that_nobody_asks_about_is_posted_once_when_it_is_paid() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    let (code, watch_code) = started(&sidecar, 1234).await;
    until("polls", async || {
        (sidecar.gateway_watches() > 2).then_some(())
    })
    .await;
    assert!(app.heard().is_empty(), "an open payment is no news");
    assert_eq!(deliveries(&sidecar).await, [] as [Value; 0]);
    sidecar.pay(&code);
    let post = app.hears_no_more_than(1).await.remove(0);
    assert_eq!(post.line, "POST /payment-events?from=tillgate 1.1");
    let mut names: Vec<_> = post.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "connection",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    ];
    assert_eq!(names, expected);
    assert_eq!(post.header("host"), app.address.to_string());
    assert_eq!(post.header("content-type"), "application/json");
    assert_eq!(
        post.header("user-agent"),
        concat!("tillgate/", env!("CARGO_PKG_VERSION"))
    );
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    assert!((now - 5..=now).contains(&post.timestamp()), "{post:?}");
    app.assert_signed(&post);

    let message = post.json();
    let mut members: Vec<_> = message.as_object().unwrap().keys().collect();
    members.sort_unstable();
    assert_eq!(members, ["data", "timestamp", "type"]);
    assert_eq!(message["type"], "payment.completed");
    assert!((time(&message["timestamp"]).as_second() - i64::try_from(now).unwrap()).abs() < 10);
    let mut fields: Vec<_> = message["data"].as_object().unwrap().keys().collect();
    fields.sort_unstable();
    assert_eq!(fields, FIELDS);
    let mut expected = sidecar.watch(&watch_code).await.json();
    expected["reference"] = Value::Null;
    expected["requested_amount"] = message["data"]["amount"].clone();
    expected["paid_twice_with"] = Value::Null;
    expected["code"] = code.into();
    expected["watch_code"] = watch_code.into();
    assert_eq!(message["data"], expected);
    assert_eq!(
        (&expected["status"], &expected["amount"]),
        (&"completed".into(), &1234.into())
    );
    assert!(expected["completed_at"].is_string());

    let delivery = delivery(&sidecar, post.id(), |delivery| {
        delivery["state"] == "delivered"
    })
    .await;
    assert_eq!(
        (&delivery["type"], &delivery["tries"]),
        (&"payment.completed".into(), &1.into())
    );
    assert_eq!(delivered(&sidecar, "delivered").await, 1);
    assert_eq!(pending(&sidecar).await, 0);
    // Once it is final there is nothing left to ask for.
    assert_eq!(sidecar.followed(), 0);
    let polls = sidecar.gateway_watches();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(sidecar.gateway_watches(), polls);
}

#[tokio::test]
async fn every_key_signs_whatever_its_length() {
    let mut app = App::new(|_| OK).await;
    app.keys = vec![vec![7; 24], key(1), (0..64).collect()];
    let lines: Vec<_> = app.keys.iter().map(|key| text_of(key)).collect();
    fs::write(app.key_file(), lines.join("\r\n\n") + "\r\n").unwrap();
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    let post = app.hears_no_more_than(1).await.remove(0);
    assert_eq!(post.header("webhook-signature").split(' ').count(), 3);
    app.assert_signed(&post);
}

#[tokio::test]
async fn keys_are_rotated_while_it_runs() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let mut app = App::new(|_| OK).await;
    let (mut sidecar, api, _) = app.program(&gateway, &[]).await;
    let (old, new) = (key(1), key(2));
    for (number, keys) in [vec![old.clone()], vec![new.clone(), old], vec![new]]
        .into_iter()
        .enumerate()
    {
        if number > 0 {
            let lines: Vec<_> = keys.iter().map(|key| text_of(key)).collect();
            fs::write(app.key_file(), lines.join("\n")).unwrap();
            sidecar.signal("HUP");
            sidecar.log_line("file loaded").await;
        }
        app.keys = keys;
        let payment = start_at(api, r#"{"amount":1}"#).await;
        pay_at(&gateway, payment.text("code")).await;
        app.assert_signed(&app.has_heard(number + 1).await[number]);
    }
    // What is bad changes nothing.
    fs::write(app.key_file(), "whsec_short\n").unwrap();
    sidecar.signal("HUP");
    let line = sidecar.log_line("file not reloaded").await;
    assert!(!line.contains("short"), "{line}");
    let payment = start_at(api, r#"{"amount":1}"#).await;
    pay_at(&gateway, payment.text("code")).await;
    app.assert_signed(&app.has_heard(4).await[3]);
}

#[tokio::test]
async fn within_a_payment_the_second_message_comes_after_the_first_was_taken() {
    let app = App::new(|post| match (post.kind().as_str(), post.tries) {
        ("payment.polling_ended", 1) => Say::Status(500, "Retry-After: 4\r\n"),
        ("payment.polling_ended", _) => Say::Late(Duration::from_millis(200), 200),
        _ => OK,
    })
    .await;
    let sidecar = app.sidecar(&[("watch.give_up_after", "300ms"), ("watch.fresh_for", "1ms")]);
    let (code, watch_code) = started(&sidecar, 1).await;
    let ended = app.has_heard(1).await.remove(0);
    assert_eq!(ended.kind(), "payment.polling_ended");
    app.assert_signed(&ended);
    let data = &ended.json()["data"];
    assert_eq!(
        (&data["status"], &data["completed_at"]),
        (&"created".into(), &Value::Null),
        "no status is invented"
    );
    assert_eq!(
        (&data["code"], &data["watch_code"]),
        (&code.as_str().into(), &watch_code.as_str().into())
    );
    let mut fields: Vec<_> = data.as_object().unwrap().keys().collect();
    fields.sort_unstable();
    assert_eq!(fields, FIELDS);
    // Nobody polls it any more, and who asks gets the truth.
    assert_eq!(sidecar.followed(), 0);
    sidecar.pay(&code);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(app.heard().len(), 1);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    let listed = deliveries(&sidecar).await;
    let kinds: Vec<_> = listed
        .iter()
        .map(|delivery| delivery["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["payment.completed", "payment.polling_ended"]);
    assert!(listed.iter().all(|delivery| delivery["state"] == "pending"));
    assert_eq!(pending(&sidecar).await, 2);
    // Of the first of the two, which is older than the sleep above.
    let waits = sidecar.admin("/status").await.json()["webhooks"]["oldest_pending_seconds"].clone();
    assert!(waits.as_f64() >= Some(0.2), "{waits}");
    let metrics = sidecar.admin("/metrics").await.body;
    let name = "\ntillgate_webhook_oldest_pending_seconds ";
    let (_, oldest) = metrics.split_once(name).expect("a gauge");
    let oldest: f64 = oldest.lines().next().unwrap().parse().unwrap();
    assert!(oldest >= 0.2, "{oldest}");
    let heard = app.hears_no_more_than(3).await;
    let kinds: Vec<_> = heard.iter().map(Post::kind).collect();
    assert_eq!(
        kinds,
        [
            "payment.polling_ended",
            "payment.polling_ended",
            "payment.completed"
        ]
    );
    assert!(
        heard[2].at - heard[1].at >= Duration::from_millis(200),
        "the first was not taken yet"
    );
    assert_ne!(heard[2].id(), heard[0].id());
    assert_eq!(heard[2].json()["data"]["status"], "completed");
}

#[tokio::test]
async fn a_410_for_the_first_message_of_a_payment_lets_the_second_through() {
    let app = App::new(|post| {
        if post.kind() == "payment.polling_ended" {
            Say::Status(410, "")
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[("watch.give_up_after", "100ms"), ("watch.fresh_for", "1ms")]);
    let (code, watch_code) = started(&sidecar, 1).await;
    app.has_heard(1).await;
    sidecar.pay(&code);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    let heard = app.hears_no_more_than(2).await;
    assert_eq!(heard[1].kind(), "payment.completed");
}

#[tokio::test]
async fn the_end_of_polling_is_told_once_whoever_asks_and_waits_afterwards() {
    polling_ended_once(|_| "memory:".to_owned()).await;
}

#[tokio::test]
async fn the_end_of_polling_is_told_once_also_where_writing_it_down_takes_a_while() {
    polling_ended_once(|app| format!("file:{}", app.directory.path().join("store").display()))
        .await;
}

async fn polling_ended_once(store: fn(&App) -> String) {
    let app = App::new(|_| OK).await;
    let store = &*store(&app);
    let sidecar = app.sidecar(&[
        ("watch.give_up_after", "400ms"),
        ("watch.fresh_for", "1ms"),
        ("watch.max_wait", "1s"),
        ("store.url", store),
    ]);
    let mut codes = Vec::new();
    for number in 1..=20 {
        codes.push(started(&sidecar, number).await.1);
    }
    // Those who wait come and go in the very moment too.
    let asked = codes.iter().map(|code| {
        let sidecar = &sidecar;
        async move {
            for _ in 0..150 {
                let path = format!("/watch/{code}?wait=1");
                let _ =
                    tokio::time::timeout(Duration::from_millis(5), sidecar.api(get(&path))).await;
            }
        }
    });
    join_all(asked).await;
    app.has_heard(20).await;
    sleep(Duration::from_millis(300)).await;
    let heard = app.heard();
    let of: HashSet<_> = heard.iter().map(Post::amount).collect();
    assert!(
        heard.len() == 20 && of.len() == 20,
        "{store}: {} posts of {} payments",
        heard.len(),
        of.len()
    );
    assert!(
        heard
            .iter()
            .all(|post| post.json()["data"]["status"] == "created")
    );
}

#[tokio::test]
async fn a_payment_that_the_gateway_never_told_about_is_shown_with_what_is_known() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[("watch.give_up_after", "300ms")]);
    sidecar.faults(&["watch:status=500"]);
    let (code, watch_code) = started(&sidecar, 9).await;
    let post = app.has_heard(1).await.remove(0);
    let expected = json!({
        "status": "created", "amount": 9, "merchant": null, "created_at": null, "completed_at": null,
        "code": code, "watch_code": watch_code, "reference": null, "requested_amount": 9, "paid_twice_with": null,
    });
    assert_eq!(
        (post.kind().as_str(), &post.json()["data"]),
        ("payment.polling_ended", &expected)
    );
}

#[tokio::test]
async fn only_completed_is_completed_and_it_is_told_once() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[("watch.fresh_for", "1ms")]);
    sidecar.faults(&["watch:unknown-status"]);
    let (code, watch_code) = started(&sidecar, 1).await;
    sidecar.pay(&code);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "on_hold");
    let polls = sidecar.gateway_watches();
    until("more polls", async || {
        (sidecar.gateway_watches() > polls + 3).then_some(())
    })
    .await;
    assert!(app.heard().is_empty(), "{:?}", app.heard());
    for fault in [
        "watch:reopen",
        "watch:not-json",
        "watch:status=404",
        "watch:missing-field",
    ] {
        sidecar.faults(&[fault]);
        sleep(Duration::from_millis(60)).await;
        assert!(app.heard().is_empty(), "{fault}: {:?}", app.heard());
    }
    sidecar.faults(&[]);
    assert_eq!(
        app.has_heard(1).await[0].json()["data"]["status"],
        "completed"
    );
    sidecar.faults(&["watch:reopen"]);
    for _ in 0..5 {
        assert_eq!(
            sidecar
                .watch_with(&watch_code, "cache-control", "no-cache")
                .await
                .text("status"),
            "completed"
        );
    }
    app.hears_no_more_than(1).await;
}

#[tokio::test]
async fn who_finds_it_out_makes_no_difference() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[("watch.fresh_for", "1ms")]);
    let mut codes = Vec::new();
    for number in 1..=20 {
        codes.push(paid(&sidecar, number).await.1);
    }
    // Callers, long-polls and the background at the same moment.
    let asked = codes.iter().map(|code| {
        let sidecar = &sidecar;
        async move {
            let paths = [format!("/watch/{code}"), format!("/watch/{code}?wait=1")];
            join_all(paths.iter().map(|path| sidecar.api(get(path)))).await
        }
    });
    join_all(asked).await;
    let heard = app.hears_no_more_than(20).await;
    assert_eq!(
        heard.iter().map(Post::amount).collect::<HashSet<_>>().len(),
        20
    );
}

#[tokio::test]
async fn nothing_is_posted_about_a_payment_that_was_only_asked_for() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|_| OK).await;
    let (_sidecar, api, _) = app.program(&gateway, &[]).await;
    let body = format!("{{\"merchant_secret\":\"{DEFAULT_SECRET}\",\"amount\":5}}");
    let json = [("content-type", "application/json")];
    let foreign = call(
        address_of(&gateway),
        Method::POST,
        "/api/start_payment",
        &json,
        &body,
    )
    .await;
    let path = format!("/watch/{}", foreign.text("watch_code"));
    assert_eq!(get_at(api, &path).await.text("status"), "created");
    pay_at(&gateway, foreign.text("code")).await;
    until("completed", async || {
        (get_at(api, &path).await.text("status") == "completed").then_some(())
    })
    .await;
    let own = start_at(api, r#"{"amount":6}"#).await;
    pay_at(&gateway, own.text("code")).await;
    let heard = app.hears_no_more_than(1).await;
    assert_eq!(heard[0].amount(), 6);
}

#[tokio::test]
async fn a_secret_in_the_gateways_answer_reaches_no_webhook() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    sidecar.faults(&["watch:echo-secret"]);
    paid(&sidecar, 1).await;
    let post = app.has_heard(1).await.remove(0);
    assert!(!post.body.contains(DEFAULT_SECRET), "{post:?}");
    assert_eq!(post.json()["data"]["note"], "Asked on behalf of [redacted]");
    app.assert_signed(&post);
}

#[tokio::test]
async fn a_keyed_start_that_is_replayed_is_told_once() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    let ask = || {
        let mut request = crate::harness::post("/api/start_payment", r#"{"amount":1}"#);
        request
            .headers_mut()
            .insert("idempotency-key", "order-1".parse().unwrap());
        sidecar.api(request)
    };
    let first = ask().await;
    ask().await;
    sidecar.pay(first.text("code"));
    app.has_heard(1).await;
    assert_eq!(ask().await.body, first.body);
    app.hears_no_more_than(1).await;
}

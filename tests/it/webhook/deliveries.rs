//! The list of the messages, and posting one again: over the API and from the command line.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use hyper::Method;
use serde_json::json;
use tokio::time::sleep;

use super::app::{App, OK, Say};
use super::{
    FAST, delivered, deliveries, delivery, empty_post, page, paid, pending, redeliver, time,
};
use crate::harness::{Program, Sidecar, call, get, pay_at, run, until};

#[tokio::test]
async fn deliveries_are_listed_the_newest_first_page_by_page() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    assert_eq!(
        page(&sidecar, "").await,
        json!({ "deliveries": [], "next": null })
    );
    for number in 1..=5 {
        paid(&sidecar, number).await;
        app.has_heard(number).await;
    }
    until("all", async || {
        (delivered(&sidecar, "delivered").await > 4).then_some(())
    })
    .await;
    let all = deliveries(&sidecar).await;
    let ids: Vec<_> = all
        .iter()
        .map(|delivery| delivery["id"].as_str().unwrap().to_owned())
        .collect();
    let mut heard: Vec<_> = app
        .heard()
        .iter()
        .map(|post| post.id().to_owned())
        .collect();
    heard.reverse();
    assert_eq!(ids, heard);
    for delivery in &all {
        let mut fields: Vec<_> = delivery.as_object().unwrap().keys().collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "code",
                "created_at",
                "id",
                "last_error",
                "next_try_at",
                "state",
                "tries",
                "type",
                "watch_code"
            ]
        );
        time(&delivery["created_at"]);
        assert!(delivery["id"].as_str().unwrap().starts_with("msg_"));
    }
    for limit in [1, 2, 3, 4, 5, 6] {
        let (mut seen, mut query) = (Vec::new(), format!("?limit={limit}"));
        loop {
            let page = page(&sidecar, &query).await;
            let deliveries = page["deliveries"].as_array().unwrap();
            assert!(!deliveries.is_empty() && deliveries.len() <= limit);
            seen.extend(
                deliveries
                    .iter()
                    .map(|delivery| delivery["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else {
                break;
            };
            query = format!("?after={next}&limit={limit}");
        }
        assert_eq!(seen, ids, "{limit}");
    }
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=1&limit=1",
        "after=0",
        "after=x",
        "status=created",
        "x=1",
    ] {
        let answer = sidecar.api(get(&format!("/deliveries?{bad}"))).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (400, "invalid_query"),
            "{bad}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn deliveries_are_for_those_who_may_list() {
    let app = App::new(|_| OK).await;
    let (url, file) = (app.url(), app.key_file());
    let own = [
        ("webhook.url", &*url),
        ("webhook.secret_file", file.to_str().unwrap()),
    ];
    let sidecar = Sidecar::with(&[&FAST, &own[..]].concat());
    paid(&sidecar, 1).await;
    let post = app.has_heard(1).await.remove(0);
    assert_eq!(
        sidecar.api(get("/deliveries")).await.text("error"),
        "token_required"
    );
    for id in [post.id(), "msg_nobody"] {
        let answer = redeliver(&sidecar, id).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (403, "token_required"),
            "{answer:?}"
        );
        assert!(answer.text("detail").contains("token_file"), "{answer:?}");
        assert!(answer.json()["outcome"].is_null());
    }
    app.hears_no_more_than(1).await;

    let tokens = app.directory.path().join("tokens");
    fs::write(&tokens, "a-token-of-32-characters-or-more!!\n").unwrap();
    let sidecar = Sidecar::with(
        &[
            &FAST,
            &own[..],
            &[("listen.token_file", tokens.to_str().unwrap())],
        ]
        .concat(),
    );
    for (token, status) in [
        (None, 401),
        (Some("Bearer wrong"), 401),
        (Some("Bearer a-token-of-32-characters-or-more!!"), 200),
    ] {
        let mut request = get("/deliveries");
        if let Some(token) = token {
            request
                .headers_mut()
                .insert("authorization", token.parse().unwrap());
        }
        assert_eq!(sidecar.api(request).await.status, status, "{token:?}");
    }
}

#[tokio::test]
async fn without_webhooks_there_are_no_deliveries() {
    let sidecar = Sidecar::dev(&FAST);
    let (_, watch_code) = paid(&sidecar, 1).await;
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    assert_eq!(
        page(&sidecar, "").await,
        json!({ "deliveries": [], "next": null })
    );
    assert_eq!(redeliver(&sidecar, "msg_x").await.status, 404);
}

#[tokio::test]
async fn what_was_delivered_can_be_posted_again() {
    let app = App::new(|post| {
        if post.tries == 2 {
            Say::Status(500, "")
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    paid(&sidecar, 2).await;
    let heard = app.has_heard(2).await;
    let first = &heard[0];
    delivery(&sidecar, first.id(), |delivery| {
        delivery["state"] == "delivered"
    })
    .await;
    let answer = redeliver(&sidecar, first.id()).await;
    assert_eq!(
        (answer.status, answer.text("id"), answer.text("state")),
        (200, first.id(), "pending"),
        "{answer:?}"
    );
    // This try fails, and is followed by another by itself.
    let again = app.hears_no_more_than(3).await.pop().unwrap();
    let shown = delivery(&sidecar, first.id(), |delivery| delivery["tries"] == 2).await;
    assert_eq!(
        (&shown["state"], &shown["last_error"]),
        (&"pending".into(), &"status 500".into())
    );
    // While it waits it can be posted at once.
    assert_eq!(redeliver(&sidecar, first.id()).await.status, 200);
    let last = app.hears_no_more_than(4).await.pop().unwrap();
    for post in [&again, &last] {
        assert_eq!((post.id(), &post.body), (first.id(), &first.body));
        app.assert_signed(post);
    }
    let shown = delivery(&sidecar, first.id(), |delivery| {
        delivery["state"] == "delivered"
    })
    .await;
    assert_eq!(shown["tries"], 4 - 1);

    for unknown in [
        "msg_nobody",
        "",
        "1",
        "%2e",
        "..",
        first.id().to_uppercase().as_str(),
    ] {
        let answer = redeliver(&sidecar, unknown).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (404, "not_found"),
            "{unknown}: {answer:?}"
        );
    }
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        let mut request = empty_post(&format!("/deliveries/{}/redeliver", first.id()));
        *request.method_mut() = method.parse().unwrap();
        let answer = sidecar.api(request).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "POST"),
            "{method}: {answer:?}"
        );
    }
    let answer = sidecar.api(empty_post("/deliveries")).await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, "GET, HEAD"),
        "{answer:?}"
    );
    assert_eq!(app.heard().len(), 4);
}

#[tokio::test]
async fn a_storm_of_redeliveries_ends_and_every_post_is_counted() {
    storm(|_| "memory:".to_owned()).await;
}

#[tokio::test]
async fn a_storm_of_redeliveries_ends_and_every_post_is_counted_also_with_a_file() {
    storm(|app| format!("file:{}", app.directory.path().join("store").display())).await;
}

async fn storm(store: fn(&App) -> String) {
    let app = App::new(|post| {
        if post.tries % 3 == 1 {
            Say::Status(500, "")
        } else {
            Say::Late(Duration::from_millis(20), 200)
        }
    })
    .await;
    let store = &*store(&app);
    let sidecar = app.sidecar(&[("store.url", store)]);
    for number in 1..=20 {
        paid(&sidecar, number).await;
    }
    let heard = app.has_heard(20).await;
    let ids: HashSet<_> = heard.iter().map(|post| post.id().to_owned()).collect();
    for _ in 0..20 {
        for answer in join_all(ids.iter().map(|id| redeliver(&sidecar, id))).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        sleep(Duration::from_millis(5)).await;
    }
    until("everything delivered", async || {
        let all = deliveries(&sidecar).await;
        let mut is_pending = false;
        for delivery in all.iter().filter(|delivery| delivery["state"] == "pending") {
            is_pending = true;
            redeliver(&sidecar, delivery["id"].as_str().unwrap()).await;
        }
        sleep(Duration::from_millis(50)).await;
        (!is_pending).then_some(())
    })
    .await;
    assert_eq!(pending(&sidecar).await, 0);
    assert!(app.shared.most_at_once.load(Ordering::SeqCst) <= 16);
    let heard = app.heard();
    let mut bodies = HashMap::new();
    for post in &heard {
        assert_eq!(bodies.entry(post.id()).or_insert(&post.body), &&post.body);
        app.assert_signed(post);
    }
    assert_eq!(bodies.len(), 20);
    let tries: u64 = deliveries(&sidecar)
        .await
        .iter()
        .map(|delivery| delivery["tries"].as_u64().unwrap())
        .sum();
    assert_eq!(tries, heard.len() as u64, "{store}: every post is counted");
    let sum = delivered(&sidecar, "delivered").await + delivered(&sidecar, "retry").await;
    assert_eq!(sum as usize, heard.len());
}

#[tokio::test]
async fn deliveries_can_be_listed_and_posted_again_from_the_command_line() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|post| {
        if post.amount() == 2 {
            Say::Status(410, "")
        } else {
            OK
        }
    })
    .await;
    let tokens = app.directory.path().join("tokens");
    fs::write(
        &tokens,
        "a-token-of-32-characters-or-more!!\nanother-token-of-32-characters-or-so\n",
    )
    .unwrap();
    let tokens = tokens.to_str().unwrap();
    let (sidecar, api, _) = app
        .program(&gateway, &[("listen.token_file", tokens)])
        .await;
    let address = api.to_string();
    let with_token = [("listen.address", &*address), ("listen.token_file", tokens)];
    for arguments in [&["deliveries"][..], &["deliveries", "list"]] {
        let (code, out, err) = run(arguments, &with_token).await;
        assert_eq!((code, out.trim(), err.as_str()), (0, "there are none", ""));
    }
    let mut ids = Vec::new();
    for amount in 1..=3 {
        let headers = [
            ("content-type", "application/json"),
            ("authorization", "Bearer a-token-of-32-characters-or-more!!"),
        ];
        let body = format!("{{\"amount\":{amount}}}");
        let payment = call(api, Method::POST, "/api/start_payment", &headers, &body).await;
        pay_at(&gateway, payment.text("code")).await;
        ids.push(app.has_heard(amount).await[amount - 1].id().to_owned());
    }
    let (code, out, err) = run(&["deliveries", "list"], &with_token).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let (head, lines) = rows(&out);
    assert_eq!(
        head,
        [
            "ID",
            "TYPE",
            "STATE",
            "CREATED_AT",
            "TRIES",
            "NEXT_TRY_AT",
            "WATCH_CODE",
            "LAST_ERROR"
        ]
    );
    assert_eq!(lines.len(), 3, "{out}");
    for line in &lines {
        time(&line.split_whitespace().nth(3).unwrap().into());
    }
    for (line, id) in lines.iter().zip(ids.iter().rev()) {
        assert!(
            line.starts_with(id.as_str()) && line.contains("payment.completed"),
            "{out}"
        );
    }
    assert!(
        lines[1].contains("failed") && lines[1].contains("status 410"),
        "{out}"
    );
    assert!(
        lines[0].contains("delivered") && !out.contains("whsec_"),
        "{out}"
    );
    assert_eq!(run(&["deliveries"], &with_token).await.1, out);

    let (code, out, err) = run(&["deliveries", "redeliver", &ids[1]], &with_token).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(rows(&out).1[0].starts_with(&ids[1]), "{out}");
    assert_eq!(app.hears_no_more_than(4).await[3].id(), ids[1]);
    // Of all of them one has failed.
    until("it has failed again", async || {
        let (_, out, _) = run(&["deliveries"], &with_token).await;
        out.contains("failed").then_some(())
    })
    .await;
    let (code, out, err) = run(&["deliveries", "redeliver", "--failed"], &with_token).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let (_, lines) = rows(&out);
    assert!(
        lines.len() == 1 && lines[0].starts_with(&ids[1]) && lines[0].contains("pending"),
        "{out}"
    );
    assert_eq!(app.hears_no_more_than(5).await[4].id(), ids[1]);
    for bad in [&["redeliver", "--failed", "msg_x"][..], &["redeliver"]] {
        let (code, _, err) = run(&[&["deliveries"], bad].concat(), &with_token).await;
        assert_eq!(code, 2, "{err}");
    }
    let (code, out, err) = run(&["deliveries", "redeliver", "msg_nobody"], &with_token).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("no delivery of that id"), "{err}");
    for odd in ["a b", "../x", "é", "x?y"] {
        let (code, out, err) = run(&["deliveries", "redeliver", odd], &with_token).await;
        assert_eq!((code, out.as_str()), (1, ""), "{odd}: {err}");
        assert!(!err.is_empty() && !err.contains("panicked"), "{odd}: {err}");
    }
    // With another configuration than the sidecar's.
    let (code, out, err) = run(&["deliveries"], &with_token[..1]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with("tillgate: ") && err.contains("oken"),
        "{err}"
    );
    let missing = app.directory.path().join("missing");
    let with_missing = [
        with_token[0],
        ("listen.token_file", missing.to_str().unwrap()),
    ];
    let (code, _, err) = run(&["deliveries"], &with_missing).await;
    assert!(code == 2 && err.contains("listen.token_file"), "{err}");
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    for arguments in [
        &["deliveries", "list"][..],
        &["deliveries", "redeliver", &ids[0]],
    ] {
        let (code, out, err) = run(arguments, &with_token).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(
            err.contains("is tillgate running")
                && err.contains(&address)
                && err.lines().count() == 1,
            "{err}"
        );
    }
}

/// The names of the columns, and the lines below them.
fn rows(table: &str) -> (Vec<&str>, Vec<&str>) {
    let mut lines = table.lines();
    let head = lines.next().unwrap();
    (head.split_whitespace().collect(), lines.collect())
}

#[tokio::test]
async fn without_a_token_file_the_command_line_says_what_is_missing() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|_| OK).await;
    let (_sidecar, api, _) = app.program(&gateway, &[]).await;
    let address = api.to_string();
    for arguments in [&["deliveries"][..], &["deliveries", "redeliver", "msg_x"]] {
        let (code, out, err) = run(arguments, &[("listen.address", &address)]).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("listen.token_file"), "{err}");
    }
}

//! When the app does not take a message: what counts as taken, when it is tried again, and what goes on meanwhile.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tillgate::sandbox::DEFAULT_SECRET;
use tokio::time::{Instant, sleep};

use super::app::{App, OK, Post, Say, Script};
use super::{
    delivered, deliveries, delivery, paid, pending, redeliver, seconds_between, skip, started,
};
use crate::harness::{free_port, get, until};

#[tokio::test]
async fn a_try_that_fails_in_whatever_way_is_followed_by_one_with_the_same_id_and_body() {
    const HERE: &str = "Location: /elsewhere\r\n";
    let failures: [fn() -> Say; 22] = [
        || Say::Status(500, ""),
        || Say::Status(502, ""),
        || Say::Status(503, ""),
        || Say::Status(404, ""),
        || Say::Status(400, ""),
        || Say::Status(401, ""),
        || Say::Status(409, ""),
        || Say::Status(429, ""),
        || Say::Status(300, HERE),
        || Say::Status(301, HERE),
        || Say::Status(302, HERE),
        || Say::Status(303, HERE),
        || Say::Status(307, HERE),
        || Say::Status(308, HERE),
        || Say::Status(304, ""),
        || Say::Reset,
        || Say::Raw(b""),
        || Say::Raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
        || Say::Raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
        || Say::Raw(b"HTTP/1.1 2000 OK\r\n\r\n"),
        || Say::Nothing,
        || Say::Late(Duration::from_millis(700), 200),
    ];
    let count = failures.len();
    let app = App::new(move |post| {
        let number = usize::try_from(post.amount()).unwrap() - 1;
        if post.tries == 1 {
            failures[number]()
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[("webhook.timeout", "400ms")]);
    for number in 1..=count {
        paid(&sidecar, number).await;
    }
    // More than sixteen at once: some have to wait for the two that take their time.
    until("the first tries", async || {
        (delivered(&sidecar, "retry").await == count as u64).then_some(())
    })
    .await;
    let heard = app.has_heard(2 * count).await;
    until("all", async || {
        (delivered(&sidecar, "delivered").await == count as u64).then_some(())
    })
    .await;
    assert_eq!(app.heard().len(), 2 * count, "each twice");
    for number in 1..=count {
        let posts: Vec<_> = heard
            .iter()
            .filter(|post| post.amount() == number as u64)
            .collect();
        let [first, second] = posts[..] else {
            panic!("{number}: {posts:#?}")
        };
        assert!(
            posts
                .iter()
                .all(|post| post.line.starts_with("POST /payment-events?")),
            "no redirect is followed"
        );
        assert_eq!((first.id(), &first.body), (second.id(), &second.body));
        let apart = second.at - first.at;
        assert!(
            (Duration::from_millis(990)..Duration::from_secs(3)).contains(&apart),
            "{number}: {apart:?}"
        );
        assert!(second.timestamp() > first.timestamp() || apart < Duration::from_secs(1));
        app.assert_signed(first);
        app.assert_signed(second);
    }
    let all = deliveries(&sidecar).await;
    assert!(
        all.iter()
            .all(|delivery| delivery["state"] == "delivered" && delivery["tries"] == 2),
        "{all:#?}"
    );
    assert!(
        all.iter().all(|delivery| delivery["last_error"].is_null()),
        "{all:#?}"
    );
    assert_eq!(pending(&sidecar).await, 0);
    let ids: HashSet<_> = heard.iter().map(Post::id).collect();
    assert_eq!(ids.len(), count);
}

#[tokio::test]
async fn why_a_try_failed_is_told() {
    let secret_in_it =
        Box::leak(format!("X-Y: 1\r\nLocation: /x?{DEFAULT_SECRET}\r\n").into_boxed_str());
    let page = b"HTTP/1.1 500 No\r\nContent-Length: 4000\r\n\r\n<h1>no\nsuch\tcolumn</h1>";
    let late = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let cases: [(Box<Script>, &str); 8] = [
        (Box::new(|_| Say::Status(503, "")), "status 503"),
        (
            Box::new(|_| Say::Status(302, secret_in_it)),
            "status 302, Location /x?[redacted]",
        ),
        (
            Box::new(|_| Say::Raw(page)),
            "status 500: <h1>no such column</h1>",
        ),
        (Box::new(move |_| Say::Status(401, late)), "s behind ours)"),
        (
            Box::new(|_| Say::Reset),
            "the connection broke before an answer came: ",
        ),
        (
            Box::new(|_| Say::Raw(b"garbage with a secret in it\r\n\r\n")),
            "the connection broke before an answer came: ",
        ),
        (
            Box::new(|_| Say::Raw(b"")),
            "the connection broke before an answer came: ",
        ),
        (
            Box::new(|_| Say::Nothing),
            "no answer within webhook.timeout",
        ),
    ];
    for (say, why) in cases {
        let app = App::new(say).await;
        let sidecar = app.sidecar(&[("webhook.timeout", "1s")]);
        paid(&sidecar, 1).await;
        let post = app.has_heard(1).await.remove(0);
        let delivery = delivery(&sidecar, post.id(), |delivery| delivery["tries"] == 1).await;
        let told = delivery["last_error"].as_str().unwrap();
        assert!(
            told.contains(why) && !told.contains("garbage"),
            "{told}, not {why}"
        );
        assert_eq!(delivery["state"], "pending");
    }
}

#[tokio::test]
async fn an_app_that_is_not_there_yet_is_told_when_it_is() {
    let port = free_port();
    let other = App::new(|_| OK).await;
    let url = format!("http://127.0.0.1:{port}/");
    let sidecar = other.sidecar(&[("webhook.url", &url)]);
    paid(&sidecar, 1).await;
    until("a try", async || {
        (delivered(&sidecar, "retry").await > 0).then_some(())
    })
    .await;
    let why = deliveries(&sidecar).await[0]["last_error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(why.starts_with("no connection: TCP: 127.0.0.1:"), "{why}");
    assert_eq!(pending(&sidecar).await, 1);
    let app = App::at(&format!("127.0.0.1:{port}"), |_| OK).await;
    let post = app.hears_no_more_than(1).await.remove(0);
    assert_eq!(post.line, "POST / 1.1");
    assert!(other.heard().is_empty());
}

#[tokio::test]
async fn it_is_tried_again_and_again_with_the_same_id_and_body() {
    let app = App::new(|post| {
        if post.tries > 8 {
            OK
        } else {
            Say::Status(500, "")
        }
    })
    .await;
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    for (tries, step) in [1.0_f64, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 18000.0]
        .into_iter()
        .enumerate()
    {
        let post = app.has_heard(tries + 1).await.pop().unwrap();
        app.assert_signed(&post);
        let shown = delivery(&sidecar, post.id(), |delivery| {
            delivery["tries"] == tries + 1
        })
        .await;
        assert_eq!(shown["state"], "pending");
        // Not before its time.
        skip(Duration::from_secs_f64((step - 0.7).max(0.0))).await;
        sleep(Duration::from_millis(20)).await;
        assert_eq!(
            app.heard().len(),
            tries + 1,
            "too soon after {} tries",
            tries + 1
        );
        skip(Duration::from_secs_f64(step * 0.1 + 0.8)).await;
    }
    let heard = app.hears_no_more_than(9).await;
    assert!(
        heard
            .iter()
            .all(|post| post.id() == heard[0].id() && post.body == heard[0].body)
    );
    assert_eq!(delivered(&sidecar, "retry").await, 8);
    assert_eq!(delivered(&sidecar, "delivered").await, 1);
}

#[tokio::test]
async fn a_2xx_of_any_kind_is_success() {
    const RAW: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nand no more",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
        b"HTTP/1.0 201 Created\r\n\r\n<html>",
    ];
    let statuses = [200, 201, 202, 203, 204, 205, 206, 207, 226, 299];
    let app = App::new(move |post| {
        let number = usize::try_from(post.amount()).unwrap() - 1;
        statuses.get(number).map_or_else(
            || Say::Raw(RAW[number - 10]),
            |status| Say::Status(*status, "Retry-After: 9\r\n"),
        )
    })
    .await;
    let sidecar = app.sidecar(&[]);
    for number in 1..=13 {
        paid(&sidecar, number).await;
    }
    app.has_heard(13).await;
    sleep(Duration::from_millis(1300)).await;
    assert_eq!(app.heard().len(), 13, "each once");
    assert_eq!(delivered(&sidecar, "delivered").await, 13);
    assert_eq!(delivered(&sidecar, "retry").await, 0);
}

#[tokio::test]
async fn what_the_app_asks_for_only_lengthens_the_wait() {
    let asked: [(&'static str, f64); 9] = [
        ("Retry-After: 0\r\n", 1.0),
        ("Retry-After: 1\r\n", 1.0),
        ("Retry-After: 7\r\n", 7.0),
        ("Retry-After: 3600\r\n", 3600.0),
        ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 1.0),
        ("Retry-After: soon\r\n", 1.0),
        ("Retry-After: -5\r\n", 1.0),
        ("Retry-After: 7.5\r\n", 1.0),
        ("Retry-After: \r\n", 1.0),
    ];
    for status in [503, 429, 302] {
        let app = App::new(move |post| {
            let number = usize::try_from(post.amount()).unwrap() - 1;
            if post.tries == 1 {
                Say::Status(status, asked[number].0)
            } else {
                OK
            }
        })
        .await;
        let sidecar = app.sidecar(&[]);
        for number in 1..=asked.len() {
            paid(&sidecar, number).await;
        }
        until("a failure of each", async || {
            (delivered(&sidecar, "retry").await > 8).then_some(())
        })
        .await;
        let first = app.heard();
        // All whose own second is over, and nobody else.
        skip(Duration::from_millis(1100)).await;
        assert_eq!(app.hears_no_more_than(9 + 7).await.len(), 16);
        skip(Duration::from_secs(5)).await;
        app.hears_no_more_than(16).await;
        skip(Duration::from_secs(1)).await;
        app.hears_no_more_than(17).await;
        skip(Duration::from_secs(3590)).await;
        let heard = app.hears_no_more_than(18).await;
        for post in &heard[9..] {
            let expected = asked[usize::try_from(post.amount()).unwrap() - 1].1;
            let before = first.iter().find(|first| first.id() == post.id()).unwrap();
            let apart = (post.at - before.at).as_secs_f64();
            assert!(
                (expected..expected + 5.0).contains(&apart),
                "{apart}: {post:?}"
            );
        }
    }
}

#[tokio::test]
async fn when_the_next_try_is_can_be_read() {
    let app = App::new(|_| Say::Status(503, "Retry-After: 3600\r\n")).await;
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    let post = app.has_heard(1).await.remove(0);
    let shown = delivery(&sidecar, post.id(), |delivery| delivery["tries"] == 1).await;
    let wait = seconds_between(&shown["created_at"], &shown["next_try_at"]);
    assert!((3599.0..3960.0).contains(&wait), "{wait}: {shown}");
}

#[tokio::test]
async fn an_app_that_asks_for_a_very_long_wait_loses_no_message() {
    for asked in [
        "Retry-After: 300000\r\n",
        "Retry-After: 99999999999999999999\r\n",
    ] {
        let app = App::new(move |_| Say::Status(503, asked)).await;
        let sidecar = app.sidecar(&[]);
        paid(&sidecar, 1).await;
        let post = app.has_heard(1).await.remove(0);
        let shown = delivery(&sidecar, post.id(), |delivery| delivery["tries"] == 1).await;
        assert_eq!(shown["state"], "pending", "{shown}");
    }
}

#[tokio::test]
async fn a_410_ends_that_message_and_no_other() {
    let app = App::new(|post| {
        if post.amount() == 2 {
            Say::Raw(b"HTTP/1.1 410 Gone\r\nRetry-After: 1\r\nContent-Length: 9\r\n\r\nno thanks")
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[]);
    for number in 1..=3 {
        paid(&sidecar, number).await;
    }
    let heard = app.has_heard(3).await;
    let gone = heard.iter().find(|post| post.amount() == 2).unwrap();
    let shown = delivery(&sidecar, gone.id(), |delivery| delivery["tries"] == 1).await;
    assert_eq!(
        (&shown["state"], &shown["next_try_at"]),
        (&"failed".into(), &Value::Null)
    );
    assert_eq!(shown["last_error"], "status 410: no thanks");
    sleep(Duration::from_millis(1300)).await;
    assert_eq!(app.heard().len(), 3);
    assert_eq!(delivered(&sidecar, "gone").await, 1);
    assert_eq!(delivered(&sidecar, "delivered").await, 2);
    assert_eq!(pending(&sidecar).await, 0);
    paid(&sidecar, 4).await;
    app.has_heard(4).await;
    // Who asks for it gets it again.
    assert_eq!(redeliver(&sidecar, gone.id()).await.status, 200);
    let again = app.has_heard(5).await.pop().unwrap();
    assert_eq!((again.id(), &again.body), (gone.id(), &gone.body));
}

#[tokio::test]
async fn an_app_that_hangs_delays_neither_polls_nor_answers_nor_the_other_messages() {
    // As many as hang at once leave the rest a place.
    let app = App::new(|post| {
        if post.amount() <= 15 {
            Say::Nothing
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[]);
    for number in 1..=15 {
        paid(&sidecar, number).await;
    }
    app.has_heard(15).await;
    let began = Instant::now();
    let open = started(&sidecar, 100).await;
    for number in 16..=45 {
        paid(&sidecar, number).await;
    }
    app.has_heard(45).await;
    assert_eq!(sidecar.watch(&open.1).await.status, 200);
    let polls = sidecar.gateway_watches();
    until("more polls", async || {
        (sidecar.gateway_watches() > polls + 3).then_some(())
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(pending(&sidecar).await, 15);
}

#[tokio::test]
async fn an_app_that_is_dead_delays_neither_starts_nor_polls() {
    let app = App::new(|_| Say::Nothing).await;
    let sidecar = app.sidecar(&[]);
    for number in 1..=60 {
        paid(&sidecar, number).await;
    }
    app.hears_no_more_than(16).await;
    let (code, watch_code) = started(&sidecar, 100).await;
    sidecar.pay(&code);
    until("the payment is known as completed", async || {
        let payments = sidecar.api(get("/payments?limit=1")).await.json();
        (payments["payments"][0]["status"] == "completed").then_some(())
    })
    .await;
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    assert_eq!(pending(&sidecar).await, 61);
}

#[tokio::test]
async fn hundreds_at_once_go_to_a_slow_app_sixteen_at_a_time_and_each_once() {
    let app = App::new(|_| Say::Late(Duration::from_millis(200), 200)).await;
    let sidecar = app.sidecar(&[]);
    let mut codes = Vec::new();
    for number in 1..=320 {
        codes.push(started(&sidecar, number).await.0);
    }
    let began = Instant::now();
    codes.iter().for_each(|code| sidecar.pay(code));
    app.has_heard(320).await;
    until("all", async || {
        (delivered(&sidecar, "delivered").await > 319).then_some(())
    })
    .await;
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(9)).contains(&took),
        "{took:?}"
    );
    assert_eq!(app.shared.most_at_once.load(Ordering::SeqCst), 16);
    let heard = app.hears_no_more_than(320).await;
    assert_eq!(
        heard.iter().map(Post::amount).collect::<HashSet<_>>().len(),
        320
    );
    assert_eq!(
        heard.iter().map(Post::id).collect::<HashSet<_>>().len(),
        320
    );
    assert_eq!(pending(&sidecar).await, 0);
}

//! What the app is told when tillgate ends, and after it has started again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::app::{App, OK, Post, Say};
use super::{delivered, paid};
use crate::harness::{Program, pay_at, set_faults, settles, start_at, until};

#[tokio::test]
async fn a_restart_does_not_cut_short_what_the_app_asked_for() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|_| Say::Status(503, "Retry-After: 3600\r\n")).await;
    let store = format!("file:{}", app.directory.path().join("store").display());
    let (sidecar, api, _) = app.program(&gateway, &[("store.url", &store)]).await;
    let payment = start_at(api, r#"{"amount":1}"#).await;
    pay_at(&gateway, payment.text("code")).await;
    app.hears_no_more_than(1).await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let (_sidecar, _, _) = app.program(&gateway, &[("store.url", &store)]).await;
    app.hears_no_more_than(1).await;
}

#[tokio::test]
async fn a_post_that_hangs_holds_the_end_up_for_the_drain_timeout_at_most() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    // What takes its time is waited for, and nothing else is begun.
    for (timeout, drain, least, most) in [("60s", "700ms", 600, 2500), ("700ms", "60s", 0, 2500)] {
        let app = App::new(|_| Say::Nothing).await;
        let settings = [
            ("webhook.timeout", timeout),
            ("listen.drain_timeout", drain),
        ];
        let (sidecar, api, _) = app.program(&gateway, &settings).await;
        let payment = start_at(api, r#"{"amount":1}"#).await;
        pay_at(&gateway, payment.text("code")).await;
        app.has_heard(1).await;
        let began = Instant::now();
        sidecar.signal("TERM");
        let (code, _, log) = sidecar.end().await;
        let took = began.elapsed().as_millis();
        assert_eq!(code, 0, "{log}");
        assert!((least..most).contains(&took), "{took}: {log}");
        assert_eq!(
            log.contains("drain_timeout is over"),
            drain == "700ms",
            "{log}"
        );
        assert_eq!(app.heard().len(), 1);
    }
}

#[tokio::test]
async fn what_the_app_did_not_take_before_the_end_it_is_told_after_the_next_start() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|post| match post.amount() {
        1 if post.tries == 1 => Say::Nothing,
        2 if post.tries == 1 => Say::Status(503, "Retry-After: 2\r\n"),
        4 => Say::Status(410, ""),
        _ => OK,
    })
    .await;
    let store = format!("file:{}", app.directory.path().join("store").display());
    let settings = [("store.url", &*store), ("listen.drain_timeout", "1s")];
    let (sidecar, api, _) = app.program(&gateway, &settings).await;
    let mut codes = Vec::new();
    for amount in 1..=5 {
        codes.push(
            start_at(api, &format!("{{\"amount\":{amount}}}"))
                .await
                .text("code")
                .to_owned(),
        );
    }
    // 1 hangs, 2 is to come again, 3 is taken, 4 is not wanted; 5 is paid while it ends.
    for (number, code) in codes[..4].iter().enumerate() {
        pay_at(&gateway, code).await;
        app.has_heard(number + 1).await;
    }
    sleep(Duration::from_millis(100)).await;
    sidecar.signal("TERM");
    pay_at(&gateway, &codes[4]).await;
    assert_eq!(sidecar.end().await.0, 0);
    let before = app.heard();
    let (_sidecar, _, _) = app.program(&gateway, &settings).await;
    let left = if before.iter().any(|post| post.amount() == 5) {
        2
    } else {
        3
    };
    let heard = app.hears_no_more_than(before.len() + left).await;
    for amount in [1, 2] {
        let posts: Vec<_> = heard
            .iter()
            .filter(|post| post.amount() == amount)
            .collect();
        let [first, second] = posts[..] else {
            panic!("{amount}: {heard:#?}")
        };
        assert_eq!((first.id(), &first.body), (second.id(), &second.body));
        app.assert_signed(second);
    }
    for (amount, times) in [(3, 1), (4, 1), (5, 1)] {
        assert_eq!(
            heard.iter().filter(|post| post.amount() == amount).count(),
            times,
            "{amount}: {heard:#?}"
        );
    }
}

#[tokio::test]
async fn completions_that_come_while_it_ends_are_told_now_or_after_the_next_start() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|_| Say::Late(Duration::from_millis(50), 200)).await;
    let store = format!("file:{}", app.directory.path().join("store").display());
    let settings = [
        ("store.url", &*store),
        ("watch.poll_rate", "1000"),
        ("start.burst", "1000"),
    ];
    let (sidecar, api, _) = app.program(&gateway, &settings).await;
    let mut codes = Vec::new();
    for amount in 1..=60 {
        codes.push(
            start_at(api, &format!("{{\"amount\":{amount}}}"))
                .await
                .text("code")
                .to_owned(),
        );
    }
    // Something that keeps it from ending at once.
    set_faults(&gateway, &["start:delay=700ms"]).await;
    let last = tokio::spawn(async move { start_at(api, r#"{"amount":61}"#).await });
    sleep(Duration::from_millis(150)).await;
    for (number, code) in codes.iter().enumerate() {
        pay_at(&gateway, code).await;
        if number == 20 {
            sidecar.signal("TERM");
        }
    }
    assert_eq!(last.await.unwrap().status, 200);
    let (code, _, log) = sidecar.end().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("everything is finished"), "{log}");
    set_faults(&gateway, &[]).await;
    let (_sidecar, _, _) = app.program(&gateway, &settings).await;
    let told = || app.heard().iter().map(Post::amount).collect::<HashSet<_>>();
    until("all are told", async || (told().len() >= 60).then_some(())).await;
    let heard = app.heard();
    let mut ids: HashMap<u64, &str> = HashMap::new();
    for post in &heard {
        assert_eq!(
            *ids.entry(post.amount()).or_insert(post.id()),
            post.id(),
            "one id a payment"
        );
    }
    // What was answered with 200 before the end was written down, so it does not come again.
    assert_eq!(
        heard.len(),
        60,
        "{:?}",
        heard.iter().map(Post::amount).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_drain_in_process_lets_the_posts_go_on() {
    let app = App::new(|_| Say::Late(Duration::from_millis(100), 200)).await;
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    app.has_heard(1).await;
    sidecar.drain();
    settles(|| true).await;
    sidecar.idle().await;
    assert_eq!(delivered(&sidecar, "delivered").await, 1);
}

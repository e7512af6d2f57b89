//! `GET /watch/{watch_code}`: one call for all who ask, and what is said when there is none.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, interval, sleep};

use crate::harness::{Answer, Sidecar, get, settles};
use crate::paused::pass;

/// Asserts that this is a good answer of that status, come by in that way.
fn assert_watched(answer: &Answer, status: &str, cache_status: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        (answer.text("status"), answer.header("cache-status")),
        (status, cache_status),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_watch_answers_the_guides_object_and_may_be_kept_by_the_caller_alone() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let answer = sidecar.watch(&watch_code).await;
    assert_watched(&answer, "created", "tillgate; fwd=uri-miss");
    let json = answer.json();
    assert_eq!(
        (&json["amount"], &json["merchant"]),
        (&1000.into(), &"Sandbox Shop".into())
    );
    assert!(json["completed_at"].is_null() && json["created_at"].is_string());
    assert_eq!(json.as_object().unwrap().len(), 5, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "private, no-cache");
    assert_eq!(answer.header("age"), "0");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(!answer.header("x-request-id").is_empty());
    let tag = answer.header("etag");
    assert!(
        tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'),
        "{tag} is not strong"
    );

    sidecar.pay(&code);
    let paid = sidecar
        .watch_with(&watch_code, "cache-control", "no-cache")
        .await;
    assert_watched(&paid, "completed", "tillgate; fwd=stale");
    assert!(paid.json()["completed_at"].is_string());
    assert_ne!(paid.header("etag"), tag);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_answer_comes_from_memory_and_an_older_one_is_asked_for_again() {
    let sidecar = Sidecar::with(&[("watch.fresh_for", "10s")]);
    let (_, code) = sidecar.started().await;
    let first = sidecar.watch(&code).await;
    assert_watched(&first, "created", "tillgate; fwd=uri-miss");
    assert_watched(
        &sidecar.watch(&code).await,
        "created",
        "tillgate; hit; ttl=10",
    );
    pass(3.5).await;
    let remembered = sidecar.watch(&code).await;
    assert_watched(&remembered, "created", "tillgate; hit; ttl=6");
    assert_eq!(remembered.header("age"), "3");
    assert_eq!(
        (&remembered.body, remembered.header("etag")),
        (&first.body, first.header("etag"))
    );
    pass(6.4).await;
    assert_watched(
        &sidecar.watch(&code).await,
        "created",
        "tillgate; hit; ttl=0",
    );
    assert_eq!(sidecar.gateway_watches(), 1);
    pass(0.2).await;
    let refreshed = sidecar.watch(&code).await;
    assert_watched(&refreshed, "created", "tillgate; fwd=stale");
    assert_eq!(refreshed.header("age"), "0");
    assert_eq!(
        (&refreshed.body, refreshed.header("etag")),
        (&first.body, first.header("etag"))
    );
    assert_eq!(sidecar.gateway_watches(), 2);
    assert_eq!(sidecar.metric("tillgate_polls_saved_total").await, 3);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_long_on_its_way_is_not_fresh() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    sidecar.faults(&["watch:delay=3s,count=1"]);
    let mut watch = Box::pin(sidecar.watch(&watch_code));
    assert!((&mut watch).now_or_never().is_none());
    settles(|| sidecar.gateway_watches() == 1).await;
    // Paid after the gateway had looked.
    sidecar.pay(&code);
    let late = watch.await;
    assert_watched(&late, "created", "tillgate; fwd=uri-miss");
    assert_eq!(late.header("age"), "3");
    assert_watched(
        &sidecar.watch(&watch_code).await,
        "completed",
        "tillgate; fwd=stale",
    );
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_at_once_the_gateway_is_asked_once() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:delay=500ms"]);
    let answers = join_all((0..200).map(|_| sidecar.watch(&code))).await;
    assert_eq!(sidecar.gateway_watches(), 1);
    let joined = answers
        .iter()
        .filter(|answer| answer.header("cache-status") == "tillgate; fwd=uri-miss; collapsed");
    assert_eq!(joined.count(), 199);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == answers[0].body)
    );

    pass(2.0).await;
    let answers =
        join_all((0..200).map(|_| sidecar.watch_with(&code, "cache-control", "no-cache"))).await;
    assert_eq!(sidecar.gateway_watches(), 2);
    let joined = answers
        .iter()
        .filter(|answer| answer.header("cache-status") == "tillgate; fwd=stale; collapsed");
    assert_eq!(joined.count(), 199);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared_as_an_answer_is() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:status=500,delay=500ms"]);
    let answers = join_all((0..200).map(|_| sidecar.watch(&code))).await;
    assert_eq!(sidecar.gateway_watches(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.text("error") == "gateway_bad_answer")
    );
    // It is not remembered: who asks later asks the gateway.
    sidecar.faults(&[]);
    assert_watched(
        &sidecar.watch(&code).await,
        "created",
        "tillgate; fwd=uri-miss",
    );
}

#[tokio::test(start_paused = true)]
async fn those_who_hang_up_neither_end_the_call_nor_make_another() {
    for stay in [1, 0] {
        let sidecar = Sidecar::new();
        let (_, code) = sidecar.started().await;
        sidecar.faults(&["watch:delay=500ms"]);
        let mut watches: Vec<_> = (0..200).map(|_| Box::pin(sidecar.watch(&code))).collect();
        for watch in &mut watches {
            assert!(watch.now_or_never().is_none());
        }
        settles(|| sidecar.gateway_watches() == 1).await;
        // The first made the call, the last joined it.
        let stayed = watches.split_off(200 - stay);
        drop(watches);
        for watch in stayed {
            assert_watched(&watch.await, "created", "tillgate; fwd=uri-miss; collapsed");
        }
        sidecar.idle().await;
        assert_watched(
            &sidecar.watch(&code).await,
            "created",
            "tillgate; hit; ttl=0",
        );
        assert_eq!(sidecar.gateway_watches(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn completed_is_final_whatever_the_gateway_says_later() {
    for fault in [
        "reopen",
        "status=404",
        "status=500",
        "unknown-status",
        "wrong-amount",
        "hang",
    ] {
        let sidecar = Sidecar::new();
        let (code, watch_code) = sidecar.started().await;
        assert_watched(
            &sidecar.watch(&watch_code).await,
            "created",
            "tillgate; fwd=uri-miss",
        );
        sidecar.pay(&code);
        let paid = sidecar
            .watch_with(&watch_code, "cache-control", "no-cache")
            .await;
        assert_watched(&paid, "completed", "tillgate; fwd=stale");
        sidecar.faults(&[&format!("watch:{fault}")]);
        for time in [0.1, 2.0, 660.0, 172_800.0] {
            pass(time).await;
            for answer in [
                sidecar.watch(&watch_code).await,
                sidecar
                    .watch_with(&watch_code, "cache-control", "no-cache")
                    .await,
                sidecar
                    .watch_with(&watch_code, "cache-control", "max-age=0, no-cache")
                    .await,
            ] {
                assert_eq!(
                    (answer.status, &answer.body),
                    (200, &paid.body),
                    "{fault} after {time}"
                );
                assert_eq!(answer.header("etag"), paid.header("etag"));
                assert!(
                    answer
                        .header("cache-status")
                        .starts_with("tillgate; hit; ttl="),
                    "{answer:?}"
                );
            }
        }
        assert_eq!(sidecar.gateway_watches(), 2, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_fresh_for_nothing_only_what_is_final_comes_from_memory() {
    let sidecar = Sidecar::with(&[("watch.fresh_for", "0s")]);
    let (code, watch_code) = sidecar.started().await;
    for calls in 1..=3 {
        assert_eq!(sidecar.watch(&watch_code).await.text("status"), "created");
        assert_eq!(sidecar.gateway_watches(), calls);
    }
    // Those who ask at once still share one call.
    sidecar.faults(&["watch:delay=100ms"]);
    futures_util::future::join_all((0..5).map(|_| sidecar.watch(&watch_code))).await;
    assert_eq!(sidecar.gateway_watches(), 4);
    sidecar.faults(&[]);
    sidecar.pay(&code);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    let asked = sidecar.gateway_watches();
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    assert_eq!(sidecar.gateway_watches(), asked);
}

#[tokio::test(start_paused = true)]
async fn with_stale_for_nothing_a_failure_is_told_and_no_older_answer() {
    let sidecar = Sidecar::with(&[("watch.stale_for", "0s")]);
    let (code, watch_code) = sidecar.started().await;
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "created");
    // What is fresh is not stale.
    sidecar.faults(&["watch:status=500"]);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "created");
    pass(1.5).await;
    let failed = sidecar.watch(&watch_code).await;
    assert_eq!(
        (failed.status, failed.text("error")),
        (502, "gateway_bad_answer")
    );
    sidecar.faults(&[]);
    sidecar.pay(&code);
    pass(1.5).await;
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    // Final is not stale either.
    sidecar.faults(&["watch:status=500"]);
    pass(3600.0).await;
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_will_not_have_it_from_memory_makes_the_call() {
    let sidecar = Sidecar::with(&[("watch.fresh_for", "1h")]);
    let (code, watch_code) = sidecar.started().await;
    for value in [
        "no-cache",
        "No-Cache",
        "max-age=0, no-cache",
        "no-store,no-cache",
    ] {
        let before = sidecar.gateway_watches();
        sidecar
            .watch_with(&watch_code, "cache-control", value)
            .await;
        assert_eq!(sidecar.gateway_watches(), before + 1, "{value}");
    }
    sidecar.pay(&code);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "created");
    assert_eq!(
        sidecar
            .watch_with(&watch_code, "cache-control", "x-no-cache")
            .await
            .text("status"),
        "created"
    );
    assert_eq!(
        sidecar
            .watch_with(&watch_code, "cache-control", "no-cache")
            .await
            .text("status"),
        "completed"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_caller_has_is_not_sent_again() {
    let sidecar = Sidecar::with(&[("watch.fresh_for", "10s")]);
    let (code, watch_code) = sidecar.started().await;
    let first = sidecar.watch(&watch_code).await;
    let tag = first.header("etag").to_owned();
    let bare = tag.trim_matches('"');
    pass(2.5).await;
    for condition in [
        tag.clone(),
        format!("W/{tag}"),
        "*".to_owned(),
        format!("\"other\", {tag}"),
        format!("W/\"other\",W/{tag} , \"third\""),
        // Bare, as a client sends it that takes the quotes for JSON's.
        bare.to_owned(),
        format!("W/{bare}"),
        format!("other, {bare}"),
        format!("\"other\",{bare} , third"),
    ] {
        let answer = sidecar
            .watch_with(&watch_code, "if-none-match", &condition)
            .await;
        assert_eq!(
            (answer.status, &*answer.body),
            (304, ""),
            "{condition}: {answer:?}"
        );
        assert_eq!(answer.header("etag"), tag);
        assert_eq!(answer.header("age"), "2");
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(answer.header("cache-status"), "tillgate; hit; ttl=7");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(!answer.header("x-request-id").is_empty());
        assert_eq!(answer.header("content-type"), "");
    }
    for condition in [
        "\"other\"",
        "",
        "other",
        &bare[1..],
        &tag[1..],
        &tag[..tag.len() - 1],
        &bare.to_uppercase(),
        "W/\"other\", \"\"",
    ] {
        let answer = sidecar
            .watch_with(&watch_code, "if-none-match", condition)
            .await;
        assert_eq!(
            (answer.status, &answer.body),
            (200, &first.body),
            "{condition}"
        );
    }
    let mut twice = get(&format!("/watch/{watch_code}"));
    for value in ["\"other\"", &tag] {
        twice
            .headers_mut()
            .append("if-none-match", value.parse().unwrap());
    }
    assert_eq!(sidecar.api(twice).await.status, 304);

    // Changed, and the change is told.
    pass(10.0).await;
    sidecar.pay(&code);
    let paid = sidecar.watch_with(&watch_code, "if-none-match", &tag).await;
    assert_watched(&paid, "completed", "tillgate; fwd=stale");
    assert_eq!(
        sidecar
            .watch_with(&watch_code, "if-none-match", paid.header("etag"))
            .await
            .status,
        304
    );
}

#[tokio::test]
async fn the_same_content_has_the_same_tag_in_every_sidecar() {
    for _ in 0..10 {
        let (one, other) = (Sidecar::new(), Sidecar::with(&[("watch.fresh_for", "7s")]));
        let (a, b) = (one.started().await.1, other.started().await.1);
        let (a, b) = (one.watch(&a).await, other.watch(&b).await);
        if a.body == b.body {
            assert_eq!(a.header("etag"), b.header("etag"));
            return;
        }
        // The two were not started within the same second.
        assert_ne!(a.header("etag"), b.header("etag"));
    }
    panic!("no two payments within one second");
}

#[tokio::test(start_paused = true)]
async fn what_the_guide_does_not_know_is_passed_on_and_not_final() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    sidecar.faults(&["watch:unknown-status"]);
    assert_watched(
        &sidecar.watch(&watch_code).await,
        "on_hold",
        "tillgate; fwd=uri-miss",
    );
    assert_watched(
        &sidecar.watch(&watch_code).await,
        "on_hold",
        "tillgate; hit; ttl=1",
    );
    sidecar.faults(&["watch:echo-secret"]);
    pass(1.1).await;
    let with_note = sidecar.watch(&watch_code).await;
    assert_watched(&with_note, "created", "tillgate; fwd=stale");
    assert!(with_note.text("note").starts_with("Asked on behalf of "));
    sidecar.faults(&["watch:wrong-amount"]);
    pass(1.1).await;
    let wrong_amount = sidecar.watch(&watch_code).await;
    assert_eq!(wrong_amount.json()["amount"], 1001);
    assert_ne!(wrong_amount.header("etag"), with_note.header("etag"));
    sidecar.faults(&[]);
    sidecar.pay(&code);
    pass(1.1).await;
    assert_watched(
        &sidecar.watch(&watch_code).await,
        "completed",
        "tillgate; fwd=stale",
    );
}

#[tokio::test(start_paused = true)]
async fn when_the_gateway_fails_the_last_answer_has_to_do_but_not_for_ever() {
    for fault in [
        "status=500",
        "status=404",
        "status=429",
        "status=401",
        "reset",
        "truncate",
        "hang",
        "missing-field",
    ] {
        let sidecar = Sidecar::with(&[("watch.stale_for", "1m")]);
        let (_, code) = sidecar.started().await;
        let first = sidecar.watch(&code).await;
        sidecar.faults(&[&format!("watch:{fault}")]);
        pass(20.0).await;
        let stale = sidecar.watch(&code).await;
        assert_watched(
            &stale,
            "created",
            "tillgate; fwd=stale; detail=stale-if-error",
        );
        assert_eq!(
            (&stale.body, stale.header("etag")),
            (&first.body, first.header("etag")),
            "{fault}"
        );
        let age: u64 = stale.header("age").parse().unwrap();
        assert!((20..31).contains(&age), "{fault}: {age}");
        let unchanged = sidecar
            .watch_with(&code, "if-none-match", first.header("etag"))
            .await;
        assert_eq!(unchanged.status, 304, "{fault}");
        let joined = join_all((0..3).map(|_| sidecar.watch(&code))).await;
        let collapsed = "tillgate; fwd=stale; collapsed; detail=stale-if-error";
        assert_watched(&joined[2], "created", collapsed);
        pass(60.0).await;
        let failed = sidecar.watch(&code).await;
        assert!(
            failed.status >= 500 && failed.text("error").starts_with("gateway_"),
            "{fault}: {failed:?}"
        );
        sidecar.faults(&[]);
        assert_watched(
            &sidecar.watch(&code).await,
            "created",
            "tillgate; fwd=stale",
        );
    }
}

#[tokio::test]
async fn a_code_that_was_started_here_exists_even_if_the_gateway_forgets_it() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:status=404,count=1"]);
    let answer = sidecar.watch(&code).await;
    assert_eq!(
        (answer.status, answer.text("error")),
        (502, "gateway_bad_answer"),
        "{answer:?}"
    );
    // And the failure is not remembered as a 404 is.
    assert_watched(
        &sidecar.watch(&code).await,
        "created",
        "tillgate; fwd=uri-miss",
    );
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_asks_for_patience_is_still_asked_by_who_has_nothing_else() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:status=429,retry-after=300,count=1"]);
    assert_eq!(sidecar.watch(&code).await.text("error"), "gateway_busy");
    assert_watched(
        &sidecar.watch(&code).await,
        "created",
        "tillgate; fwd=uri-miss",
    );
}

#[tokio::test(start_paused = true)]
async fn a_code_that_nobody_heard_of_is_remembered_for_five_seconds() {
    let sidecar = Sidecar::new();
    let unknown = async |calls: u64| {
        let answer = sidecar.watch("nobody-has-this-one").await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (404, "unknown_watch_code"),
            "{answer:?}"
        );
        assert_eq!(sidecar.gateway_watches(), calls);
    };
    unknown(1).await;
    unknown(1).await;
    pass(4.9).await;
    unknown(1).await;
    assert_eq!(sidecar.watch("nor-this-one").await.status, 404);
    assert_eq!(sidecar.gateway_watches(), 2);
    pass(0.2).await;
    unknown(3).await;
    // What fails otherwise is no 404.
    pass(6.0).await;
    sidecar.faults(&["watch:status=500"]);
    assert_eq!(
        sidecar.watch("nobody-has-this-one").await.text("error"),
        "gateway_bad_answer"
    );
}

#[tokio::test]
async fn what_is_no_watch_code_is_never_sent() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    let (too_long, encoded) = ("a".repeat(257), code.replacen('_', "%5F", 1));
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        "a/",
        "../api/start_payment",
        "a%2Fb",
        "%2e%2e",
        "a%00",
        "a%20b",
        "a+b",
        "a:b",
        "a;b",
        "a@b",
        "a,b",
        "a*b",
        "a'b",
        "a(b)",
        "a!b",
        "a$b",
        "a&b",
        "a=b",
        "{watch_code}",
        &too_long,
        &encoded,
        &format!("{code}/"),
        &format!("/{code}"),
    ] {
        let answer = sidecar.watch(bad).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (400, "invalid_watch_code"),
            "{bad}: {answer:?}"
        );
    }
    assert_eq!(sidecar.gateway_watches(), 0);
    for good in ["a", "...", "~", "-._~", &"a".repeat(256)] {
        assert_eq!(
            sidecar.watch(good).await.text("error"),
            "unknown_watch_code",
            "{good}"
        );
    }
}

#[tokio::test]
async fn a_path_that_only_ends_in_a_watch_code_is_none() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    for bad in [format!("/watch/{code}"), format!("/watch//watch/{code}")] {
        let answer = sidecar.watch(&bad).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (400, "invalid_watch_code"),
            "{bad}: {answer:?}"
        );
    }
    assert_eq!(sidecar.gateway_watches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_payer_who_returns_right_after_paying_is_soon_seen_however_old_the_payment() {
    const HOUR: f64 = 3600.0;
    for (age, asked_every) in [
        (1.0, 0.5),
        (6.0 * HOUR, HOUR),
        (72.0 * HOUR, 24.0 * HOUR),
        (72.0 * HOUR, 73.0 * HOUR),
    ] {
        let sidecar = Sidecar::new();
        let (code, watch_code) = sidecar.started().await;
        let mut waited = 0.0;
        while waited < age {
            assert_eq!(sidecar.watch(&watch_code).await.text("status"), "created");
            pass(asked_every).await;
            waited += asked_every;
        }
        // Somebody looks, then the payer pays and comes back: at the latest when that look is no longer fresh.
        assert_eq!(sidecar.watch(&watch_code).await.text("status"), "created");
        sidecar.pay(&code);
        pass(1.0).await;
        assert_eq!(
            sidecar.watch(&watch_code).await.text("status"),
            "completed",
            "{age}, {asked_every}"
        );
    }
}

/// How many calls the gateway had seen at each moment.
async fn calls_over_time(sidecar: &Sidecar, calls: &mut Vec<(Instant, u64)>) {
    let mut ticks = interval(Duration::from_millis(10));
    loop {
        let at = ticks.tick().await;
        calls.push((at, sidecar.gateway_watches()));
    }
}

/// The most calls between any two looks that are less than a second apart.
fn most_in_a_second(calls: &[(Instant, u64)]) -> u64 {
    let within = |from: Instant, to: Instant| to - from < Duration::from_secs(1);
    let mut most = 0;
    for (i, (from, before)) in calls.iter().enumerate() {
        let after = calls[i..]
            .iter()
            .take_while(|(to, _)| within(*from, *to))
            .last()
            .map_or(*before, |(_, calls)| *calls);
        most = most.max(after - before);
    }
    most
}

#[tokio::test(start_paused = true)]
async fn no_second_holds_more_calls_than_the_poll_rate_repeats_included() {
    let settings = [
        ("watch.poll_rate", "5"),
        ("gateway.timeout", "30s"),
        ("start.burst", "100"),
        ("start.rate", "100"),
    ];
    let sidecar = Sidecar::with(&settings);
    let mut codes = Vec::new();
    for _ in 0..30 {
        codes.push(sidecar.started().await.1);
    }
    let mut calls = Vec::new();
    let ask_all = async {
        // Before the first call, so that the first look sees none.
        sleep(Duration::from_millis(25)).await;
        for (faults, repeats) in [
            ("watch:reset,count=5", 5),
            ("watch:delay=700ms,count=10", 0),
            ("watch:truncate,count=3", 3),
        ] {
            let before = sidecar.gateway_watches();
            sidecar.faults(&[faults]);
            let answers = join_all(
                codes
                    .iter()
                    .map(|code| sidecar.watch_with(code, "cache-control", "no-cache")),
            )
            .await;
            assert!(
                answers.iter().all(|answer| answer.status == 200),
                "{answers:?}"
            );
            let asked = answers
                .iter()
                .filter(|answer| !answer.header("cache-status").contains("detail="))
                .count();
            assert_eq!(asked, 30, "{faults}");
            assert_eq!(sidecar.gateway_watches() - before, 30 + repeats, "{faults}");
        }
    };
    tokio::select! {
        () = ask_all => {}
        () = calls_over_time(&sidecar, &mut calls) => {}
    }
    assert_eq!(most_in_a_second(&calls), 5);
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_turn_gets_the_last_known_answer() {
    let settings = [
        ("watch.poll_rate", "1"),
        ("watch.stale_for", "1m"),
        // Half of it is for the turn.
        ("gateway.timeout", "5s"),
    ];
    let sidecar = Sidecar::with(&settings);
    let (_, code) = sidecar.started().await;
    let first = sidecar.watch(&code).await;
    pass(10.0).await;
    let crowd: Vec<_> = (0..8).map(|i| format!("unheard-of-{i}")).collect();
    let crowded = async || {
        let all = crowd
            .iter()
            .map(String::as_str)
            .chain([&*code])
            .map(|code| sidecar.watch(code));
        join_all(all).await.pop().expect("the last")
    };
    let last = crowded().await;
    assert_watched(&last, "created", "tillgate; fwd=stale; detail=budget");
    assert_eq!(
        (&last.body, last.header("etag")),
        (&first.body, first.header("etag"))
    );
    assert_eq!(last.header("age"), "12");
    // Too old for that.
    pass(120.0).await;
    let last = crowded().await;
    assert_eq!(
        (last.status, last.text("error")),
        (503, "overloaded"),
        "{last:?}"
    );
    assert!(
        last.header("retry-after")
            .parse::<u64>()
            .expect("whole seconds")
            >= 1
    );
    // The crowd is gone.
    pass(10.0).await;
    assert_watched(
        &sidecar.watch(&code).await,
        "created",
        "tillgate; fwd=stale",
    );
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_waits_for_any_more_is_not_sent() {
    let sidecar = Sidecar::with(&[("watch.poll_rate", "1")]);
    assert_eq!(sidecar.watch("first").await.status, 404);
    let (gone, wanted) = ("gone", "wanted");
    let mut first = Box::pin(sidecar.watch(wanted));
    let mut leaves: Vec<_> = (0..5)
        .map(|i| Box::pin(sidecar.api(get(&format!("/watch/{gone}-{i}")))))
        .collect();
    // One of two who wait for the same.
    leaves.push(Box::pin(sidecar.api(get(&format!("/watch/{wanted}")))));
    assert!((&mut first).now_or_never().is_none());
    for leaves in &mut leaves {
        assert!(leaves.now_or_never().is_none());
    }
    // All of them stand in the queue.
    sidecar.runs_for(Duration::from_millis(10)).await;
    drop(leaves);
    let last = sidecar.watch("last");
    let (wanted, last) = tokio::join!(first, last);
    assert_eq!((wanted.status, last.status), (404, 404));
    assert_eq!(sidecar.gateway_watches(), 3);
    // Who asks for it again is answered.
    assert_eq!(sidecar.watch("gone-0").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn many_unheard_of_codes_do_not_shut_out_who_has_started_a_payment() {
    let settings = [("watch.poll_rate", "1"), ("gateway.timeout", "10s")];
    let sidecar = Sidecar::with(&settings);
    let (_, watch_code) = sidecar.started().await;
    let began = Instant::now();
    let unheard_of = join_all((0..50).map(|i| {
        let watch = sidecar.api(get(&format!("/watch/unheard-of-{i}")));
        async move { (watch.await, began.elapsed()) }
    }));
    let (unheard_of, started) = tokio::join!(unheard_of, sidecar.watch(&watch_code));
    assert_eq!(started.status, 200, "{started:?}");
    let mut refused = 0;
    for (answer, took) in &unheard_of {
        match answer.status {
            404 => assert_eq!(answer.text("error"), "unknown_watch_code"),
            _ => assert_eq!(
                (answer.status, answer.text("error")),
                (503, "overloaded"),
                "{answer:?}"
            ),
        }
        refused += usize::from(answer.status == 503 && *took < Duration::from_millis(500));
    }
    // The others would have waited in vain.
    assert!(refused >= 43, "{refused} were told so at once");
}

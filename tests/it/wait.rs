//! `GET /watch/{watch_code}?wait=…`: an answer when there is something new, and at the end of the wait in any case.

mod together;

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::harness::{Answer, Sidecar, get, settles};
use crate::paused::{FAILURES, HOUR, POLL, SLACK, assert_about, pass, seconds, timed};

/// `GET /watch/{code}?{query}` with these headers.
async fn wait_with(
    sidecar: &Sidecar,
    code: &str,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Answer {
    let mut request = get(&format!("/watch/{code}?{query}"));
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    sidecar.api(request).await
}

/// The same without.
async fn wait(sidecar: &Sidecar, code: &str, query: &str) -> Answer {
    wait_with(sidecar, code, query, &[]).await
}

/// The same of a caller who has the answer of that tag.
async fn wait_from(sidecar: &Sidecar, code: &str, query: &str, tag: &str) -> Answer {
    wait_with(sidecar, code, query, &[("if-none-match", tag)]).await
}

/// The same, while that is done after so many seconds.
async fn timed_while<T>(
    what: impl Future<Output = T>,
    after: f64,
    act: impl FnOnce(),
) -> (T, Duration) {
    let act = async {
        pass(after).await;
        act();
    };
    tokio::join!(timed(what), act).0
}

/// Goes on for so many seconds without an answer.
async fn assert_waits(what: &mut (impl Future<Output = Answer> + Unpin), time: f64) {
    if let Ok(answer) = timeout(seconds(time), what).await {
        panic!("it does not wait: {answer:?}");
    }
}

#[track_caller]
fn assert_status(answer: &Answer, status: &str) {
    assert_eq!(
        (answer.status, answer.text("status")),
        (200, status),
        "{answer:?}"
    );
}

#[track_caller]
fn assert_error(answer: &Answer, status: u16, error: &str) {
    assert_eq!(
        (answer.status, answer.text("error")),
        (status, error),
        "{answer:?}"
    );
    assert!(answer.json().get("outcome").is_none(), "{answer:?}");
}

async fn waiters(sidecar: &Sidecar) -> u64 {
    sidecar.metric("tillgate_waiters{kind=\"long_poll\"}").await
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_answered_as_soon_as_the_payer_has_paid_however_old_the_payment() {
    for age in [0.0, 60.0, 6.0 * 3600.0, 20.0 * 3600.0] {
        let sidecar = Sidecar::new();
        let (code, watch_code) = sidecar.started().await;
        pass(age).await;
        let (answer, took) = timed_while(wait(&sidecar, &watch_code, "wait=60"), 20.3, || {
            sidecar.pay(&code)
        })
        .await;
        assert_status(&answer, "completed");
        assert!(
            took >= seconds(20.3) && took < seconds(20.3) + POLL + SLACK,
            "{took:?} at {age}"
        );
        // What a plain GET tells, too.
        let plain = sidecar.watch(&watch_code).await;
        assert_eq!(
            (&answer.body, answer.header("etag")),
            (&plain.body, plain.header("etag"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_a_wait_has_the_headers_of_every_watch() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let unchanged = wait(&sidecar, &watch_code, "wait=30").await;
    assert_status(&unchanged, "created");
    let same = wait_from(&sidecar, &watch_code, "wait=30", unchanged.header("etag")).await;
    assert_eq!(
        (same.status, &*same.body, same.header("content-type")),
        (304, "", "")
    );
    let (changed, _) = timed_while(wait(&sidecar, &watch_code, "wait=30"), 5.0, || {
        sidecar.pay(&code)
    })
    .await;
    assert_status(&changed, "completed");
    for answer in [&unchanged, &changed] {
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.json().as_object().unwrap().len(), 5, "{answer:?}");
    }
    for answer in [&unchanged, &same, &changed] {
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(!answer.header("x-request-id").is_empty());
        assert!(
            answer
                .header("cache-status")
                .starts_with("tillgate; hit; ttl="),
            "{answer:?}"
        );
        // It was polled until now.
        assert!(
            answer.header("age").parse::<u64>().unwrap() <= 2,
            "{answer:?}"
        );
    }
    assert_eq!(changed.header("age"), "0");
    assert_eq!(same.header("etag"), unchanged.header("etag"));
    assert_ne!(changed.header("etag"), unchanged.header("etag"));
    assert!(
        changed.header("etag").starts_with('"'),
        "not strong: {changed:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_begins_with_the_answer_that_the_caller_has() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let tag = sidecar.watch(&watch_code).await.header("etag").to_owned();
    let has = [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        format!("W/\"other\" ,W/{tag},\"third\""),
    ];
    for condition in &has {
        let (answer, took) = timed(wait_from(&sidecar, &watch_code, "wait=7", condition)).await;
        assert_eq!(
            (answer.status, answer.header("etag")),
            (304, &*tag),
            "{condition}: {answer:?}"
        );
        assert_about(took, 7.0);
    }
    let two_lines = [("if-none-match", "\"other\""), ("if-none-match", &*tag)];
    let (answer, took) = timed(wait_with(&sidecar, &watch_code, "wait=7", &two_lines)).await;
    assert_eq!(answer.status, 304, "{answer:?}");
    assert_about(took, 7.0);
    // Something else than the caller has: at once.
    for condition in ["\"other\"", "W/\"other\", \"third\"", "", "\"\""] {
        let (answer, took) = timed(wait_from(&sidecar, &watch_code, "wait=7", condition)).await;
        assert_status(&answer, "created");
        assert_about(took, 0.0);
    }
    // All of them are told of the change.
    let waits = join_all(
        has.iter()
            .map(|condition| timed(wait_from(&sidecar, &watch_code, "wait=60", condition))),
    );
    let (answers, _) = timed_while(waits, 13.0, || sidecar.pay(&code)).await;
    for (answer, took) in answers {
        assert_status(&answer, "completed");
        assert!(
            took >= seconds(13.0) && took < seconds(13.0) + POLL + SLACK,
            "{took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_any_answer_is_told_of_none_but_does_not_wait_for_a_payment_that_is_over() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let (answer, took) = timed(wait_from(&sidecar, &watch_code, "wait=20", "*")).await;
    assert_eq!(answer.status, 304, "{answer:?}");
    assert_about(took, 20.0);
    let star = wait_from(&sidecar, &watch_code, "wait=60", "*");
    let (answer, took) = timed_while(star, 10.0, || sidecar.pay(&code)).await;
    assert_eq!(answer.status, 304, "{answer:?}");
    assert!(took < seconds(10.0) + POLL + SLACK, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_tag_a_wait_begins_with_the_first_answer_it_has_from_memory_or_from_the_gateway()
{
    let sidecar = Sidecar::with(&[("watch.fresh_for", "10s")]);
    // From the gateway.
    let (_, watch_code) = sidecar.started().await;
    let (answer, took) = timed(wait(&sidecar, &watch_code, "wait=9")).await;
    assert_status(&answer, "created");
    assert_about(took, 9.0);
    // From memory, which does not know yet that it was paid.
    let (code, watch_code) = sidecar.started().await;
    let known = sidecar.watch(&watch_code).await;
    sidecar.pay(&code);
    let (answer, took) = timed(wait(&sidecar, &watch_code, "wait=60")).await;
    assert_status(&answer, "completed");
    assert!(took > Duration::ZERO && took < POLL + SLACK, "{took:?}");
    assert_ne!(answer.header("etag"), known.header("etag"));
    // From the gateway, which looked before it was paid and was slow to tell.
    let (code, watch_code) = sidecar.started().await;
    sidecar.faults(&["watch:delay=3s,count=1"]);
    let (answer, took) = timed_while(wait(&sidecar, &watch_code, "wait=60"), 1.0, || {
        sidecar.pay(&code)
    })
    .await;
    assert_status(&answer, "completed");
    assert!(
        took >= seconds(3.0) && took < seconds(3.0) + POLL + SLACK,
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_the_wait_it_is_200_without_and_304_with_the_tag() {
    let sidecar = Sidecar::with(&[("watch.max_wait", "60s")]);
    let (_, code) = sidecar.started().await;
    let mut tag = String::new();
    for query in [
        "wait=1",
        "wait=25",
        "wait=60",
        "wait=007",
        "other=1&wait=7",
        "wait=7&other",
        "wait=7&Wait=x&await=",
    ] {
        let time = if query.contains('7') {
            7.0
        } else {
            query[5..].parse().unwrap()
        };
        let (answer, took) = timed(wait(&sidecar, &code, query)).await;
        assert_status(&answer, "created");
        assert_about(took, time);
        answer.header("etag").clone_into(&mut tag);
        let (answer, took) = timed(wait_from(&sidecar, &code, query, &tag)).await;
        assert_eq!(answer.status, 304, "{query}: {answer:?}");
        assert_about(took, time);
    }
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_longer_than_max_wait() {
    let sidecar = Sidecar::with(&[("watch.max_wait", "90s")]);
    let (_, code) = sidecar.started().await;
    for query in [
        "wait=91",
        "wait=3600",
        "wait=18446744073709551615",
        &format!("wait={}", "9".repeat(400)),
    ] {
        let (answer, took) = timed(wait(&sidecar, &code, query)).await;
        assert_status(&answer, "created");
        assert_about(took, 90.0);
    }
    assert_about(timed(wait(&sidecar, &code, "wait=89")).await.1, 89.0);
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_as_long_as_the_minute_that_many_clients_give_up_after() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    assert_about(timed(wait(&sidecar, &code, "wait=60")).await.1, 55.0);
}

#[tokio::test(start_paused = true)]
async fn with_max_wait_nothing_who_waits_is_answered_as_who_does_not() {
    let sidecar = Sidecar::with(&[("watch.max_wait", "0s")]);
    let (_, code) = sidecar.started().await;
    let (answer, took) = timed(wait(&sidecar, &code, "wait=25")).await;
    assert_status(&answer, "created");
    assert_about(took, 0.0);
    let (same, took) = timed(wait_from(&sidecar, &code, "wait=25", answer.header("etag"))).await;
    assert_eq!(same.status, 304, "{same:?}");
    assert_about(took, 0.0);
    assert_error(&wait(&sidecar, &code, "wait=x").await, 400, "invalid_wait");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_payment_that_is_over() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    sidecar.pay(&code);
    // The first to ask learns it, and the others too.
    let (paid, took) = timed(wait(&sidecar, &watch_code, "wait=60")).await;
    assert_status(&paid, "completed");
    assert_about(took, 0.0);
    let tag = paid.header("etag").to_owned();
    sidecar.faults(&["watch:reopen"]);
    for time in [0.0, 5.0, 3600.0, 100_000.0] {
        pass(time).await;
        let (answer, took) = timed(wait(&sidecar, &watch_code, "wait=60")).await;
        assert_eq!((answer.status, &answer.body), (200, &paid.body));
        assert_about(took, 0.0);
        let (answer, took) = timed(wait_from(&sidecar, &watch_code, "wait=60", &tag)).await;
        assert_eq!(
            (answer.status, answer.header("etag")),
            (304, &*tag),
            "{answer:?}"
        );
        assert_about(took, 0.0);
        let forced = [("if-none-match", &*tag), ("cache-control", "no-cache")];
        let (answer, took) = timed(wait_with(&sidecar, &watch_code, "wait=60", &forced)).await;
        assert_eq!(answer.status, 304, "{answer:?}");
        assert_about(took, 0.0);
    }
    assert_eq!(sidecar.gateway_watches(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_time_to_wait_is_refused_and_asks_the_gateway_nothing() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    for query in [
        "wait=",
        "wait",
        "wait=-1",
        "wait=+1",
        "wait=1.5",
        "wait=1e3",
        "wait=abc",
        "wait=%31",
        "wait=1%20",
        "wait=1s",
        "wait=0x10",
        "wait=1=",
        "wait=1,2",
        "wait=1&wait=1",
        "wait=1&wait=2",
        "wait=1&wait",
        "other&wait=",
        "wait=-0",
        "wait=1;wait=2",
    ] {
        let (answer, took) = timed(wait(&sidecar, &code, query)).await;
        assert_error(&answer, 400, "invalid_wait");
        assert_eq!(
            (
                answer.json()["source"].as_str(),
                answer.json()["retryable"].as_bool()
            ),
            (Some("sidecar"), Some(false))
        );
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_about(took, 0.0);
        // Nor does a stream take it.
        let answer = wait_with(&sidecar, &code, query, &[("accept", "text/event-stream")]).await;
        assert_error(&answer, 400, "invalid_wait");
    }
    assert_eq!(sidecar.gateway_watches(), 0);
    assert_eq!(
        sidecar
            .metric("tillgate_refused_total{error=\"invalid_wait\"}")
            .await,
        38
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_nothing_waits_for_nothing() {
    let sidecar = Sidecar::with(&[("watch.fresh_for", "10s")]);
    let (_, code) = sidecar.started().await;
    let (answer, took) = timed(wait(&sidecar, &code, "wait=0")).await;
    assert_status(&answer, "created");
    assert_about(took, 0.0);
    let (answer, took) = timed(wait_from(&sidecar, &code, "wait=0", answer.header("etag"))).await;
    assert_eq!(answer.status, 304, "{answer:?}");
    assert_about(took, 0.0);
    assert_eq!(sidecar.gateway_watches(), 1);
    assert_error(
        &wait(&sidecar, "unheard-of", "wait=0").await,
        404,
        "unknown_watch_code",
    );
    sidecar.faults(&["watch:status=500"]);
    let (_, code) = sidecar.started().await;
    assert_error(
        &wait(&sidecar, &code, "wait=0").await,
        502,
        "gateway_bad_answer",
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_nothing_is_no_reason_for_an_old_answer() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    assert_status(&sidecar.watch(&watch_code).await, "created");
    pass(300.0).await;
    sidecar.pay(&code);
    assert_status(&wait(&sidecar, &watch_code, "wait=0").await, "completed");
}

#[tokio::test(start_paused = true)]
async fn what_changes_between_two_waits_is_told_at_once() {
    for time in [0.0, 0.5, 1.5, 30.0, 3600.0, 100_000.0] {
        for seen_by_another in [false, true] {
            let sidecar = Sidecar::new();
            let (code, watch_code) = sidecar.started().await;
            let first = wait(&sidecar, &watch_code, "wait=30").await;
            sidecar.pay(&code);
            if seen_by_another {
                assert_status(
                    &sidecar
                        .watch_with(&watch_code, "cache-control", "no-cache")
                        .await,
                    "completed",
                );
            }
            pass(time).await;
            let (answer, took) = timed(wait_from(
                &sidecar,
                &watch_code,
                "wait=60",
                first.header("etag"),
            ))
            .await;
            assert_status(&answer, "completed");
            // At once, but where the last answer is fresh enough to be the one from memory.
            let at_most = if time < 1.0 && !seen_by_another {
                POLL
            } else {
                Duration::ZERO
            };
            assert!(took < at_most + SLACK, "{took:?} after {time}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whenever_the_payer_pays_whoever_waits_again_and_again_is_told() {
    for paid_at in (0..80).map(|n| f64::from(n) * 0.06) {
        for faults in [&[][..], &["watch:delay=700ms"]] {
            let sidecar = Sidecar::new();
            let (code, watch_code) = sidecar.started().await;
            sidecar.faults(faults);
            let client = async {
                let mut tag = String::from("\"none\"");
                loop {
                    let answer = wait_from(&sidecar, &watch_code, "wait=1", &tag).await;
                    assert!(matches!(answer.status, 200 | 304), "{answer:?}");
                    if answer.status == 200 && answer.text("status") == "completed" {
                        return;
                    }
                    answer.header("etag").clone_into(&mut tag);
                }
            };
            let ((), took) = timed_while(client, paid_at, || sidecar.pay(&code)).await;
            // The call that is under way, and the next one.
            assert!(
                took >= seconds(paid_at) && took < seconds(paid_at + 1.0 + 1.5) + SLACK,
                "{took:?} for {paid_at}"
            );
            assert_eq!(sidecar.followed(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_between_the_first_answer_and_the_wait_is_not_missed() {
    for with_tag in [false, true] {
        for on_hold in [false, true] {
            // Nothing is polled: what is missed here is missed for good.
            let sidecar = Sidecar::with(&[("watch.give_up_after", "1m")]);
            let (code, watch_code) = sidecar.started().await;
            let tag = sidecar.watch(&watch_code).await.header("etag").to_owned();
            pass(120.0).await;
            let headers = [("if-none-match", &*tag)];
            let mut waiting = Box::pin(wait_with(
                &sidecar,
                &watch_code,
                "wait=60",
                &headers[usize::from(!with_tag)..],
            ));
            assert!((&mut waiting).now_or_never().is_none());
            // Its first question is answered, and it has not been told of that yet.
            settles(|| sidecar.gateway_watches() == 2).await;
            sidecar.idle().await;
            if on_hold {
                sidecar.faults(&["watch:unknown-status"]);
            } else {
                sidecar.pay(&code);
            }
            let news = sidecar
                .watch_with(&watch_code, "cache-control", "no-cache")
                .await;
            assert_eq!(sidecar.gateway_watches(), 3);
            let (answer, took) = timed(waiting).await;
            assert_eq!(
                (answer.status, &answer.body),
                (200, &news.body),
                "{answer:?}"
            );
            assert_about(took, 0.0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_code_that_the_gateway_does_not_know() {
    let sidecar = Sidecar::new();
    for (wait_for, calls) in [("wait=60", 1), ("wait=60", 1), ("wait=0", 1)] {
        let (answer, took) = timed(wait(&sidecar, "unheard-of", wait_for)).await;
        assert_error(&answer, 404, "unknown_watch_code");
        assert_about(took, 0.0);
        assert_eq!(sidecar.gateway_watches(), calls);
    }
    // As soon as the gateway can say so.
    sidecar.faults(&["watch:status=500,count=3"]);
    let (answer, took) = timed(wait(&sidecar, "nor-this-one", "wait=60")).await;
    assert_error(&answer, 404, "unknown_watch_code");
    assert!(took > seconds(1.0) && took < seconds(59.0), "{took:?}");
    assert_eq!(sidecar.gateway_watches(), 5);
    pass(3600.0).await;
    assert_eq!(sidecar.gateway_watches(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_at_the_gateway_during_a_wait_may_pass() {
    for fault in FAILURES {
        let sidecar = Sidecar::new();
        let (code, watch_code) = sidecar.started().await;
        let waiting = wait(&sidecar, &watch_code, "wait=60");
        let fails = async {
            pass(3.0).await;
            sidecar.faults(&[&format!("watch:{fault}")]);
            pass(8.0).await;
            sidecar.pay(&code);
            sidecar.faults(&[]);
        };
        let ((answer, took), ()) = tokio::join!(timed(waiting), fails);
        assert_status(&answer, "completed");
        assert!(
            took >= seconds(11.0) && took < seconds(59.0),
            "{fault}: {took:?}"
        );
        assert!(
            answer.header("cache-status").starts_with("tillgate; hit"),
            "{fault}: {answer:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_fails_at_the_beginning_of_a_wait_is_asked_again() {
    for fault in FAILURES {
        // Nothing is known: what it says first is where the wait begins, and then it waits for a change.
        let sidecar = Sidecar::new();
        let (code, watch_code) = sidecar.started().await;
        sidecar.faults(&[&format!("watch:{fault},count=1")]);
        let (answer, took) = timed_while(wait(&sidecar, &watch_code, "wait=60"), 25.0, || {
            sidecar.pay(&code)
        })
        .await;
        assert_status(&answer, "completed");
        assert!(
            took >= seconds(25.0) && took < seconds(25.0) + POLL + SLACK,
            "{fault}: {took:?}"
        );

        // A caller who has something else is told as soon as there is something to tell.
        let sidecar = Sidecar::new();
        let (_, watch_code) = sidecar.started().await;
        sidecar.faults(&[&format!("watch:{fault},count=1")]);
        let (answer, took) = timed(wait_from(&sidecar, &watch_code, "wait=60", "\"other\"")).await;
        assert_status(&answer, "created");
        assert!(took < seconds(20.0), "{fault}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_gateway_fails_until_the_end_of_a_wait_the_last_answer_has_to_do() {
    for fault in FAILURES {
        let sidecar = Sidecar::new();
        let (code, watch_code) = sidecar.started().await;
        let known = sidecar.watch(&watch_code).await;
        let tag = known.header("etag");
        pass(30.0).await;
        sidecar.faults(&[&format!("watch:{fault}")]);
        sidecar.pay(&code);
        let (answer, took) = timed(wait(&sidecar, &watch_code, "wait=40")).await;
        assert_eq!(
            (answer.status, &answer.body, answer.header("etag")),
            (200, &known.body, tag),
            "{fault}"
        );
        assert_about(took, 40.0);
        assert_eq!(answer.header("age"), "70", "{fault}");
        let stale = answer.header("cache-status");
        assert!(
            stale.starts_with("tillgate; fwd=stale") && stale.ends_with("detail=stale-if-error"),
            "{fault}: {stale}"
        );
        let (answer, took) = timed(wait_from(&sidecar, &watch_code, "wait=40", tag)).await;
        assert_eq!(
            (answer.status, answer.header("etag")),
            (304, tag),
            "{fault}: {answer:?}"
        );
        assert_about(took, 40.0);
    }
}

#[tokio::test(start_paused = true)]
async fn when_nothing_is_known_the_end_of_a_wait_tells_how_the_gateway_failed() {
    for (fault, status, error) in [
        ("status=500", 502, "gateway_bad_answer"),
        ("status=404", 502, "gateway_bad_answer"),
        ("status=429,retry-after=7", 503, "gateway_busy"),
        ("status=401", 502, "gateway_refused_secret"),
        ("reset", 502, "gateway_bad_answer"),
        ("hang", 504, "gateway_timeout"),
    ] {
        let sidecar = Sidecar::new();
        let (_, code) = sidecar.started().await;
        sidecar.faults(&[&format!("watch:{fault}")]);
        for tag in ["*", "\"other\""] {
            let (answer, took) = timed(wait_from(&sidecar, &code, "wait=30", tag)).await;
            assert_error(&answer, status, error);
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_about(took, 30.0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_gets_too_old_during_a_wait_is_not_given_at_its_end() {
    let sidecar = Sidecar::with(&[("watch.stale_for", "1m")]);
    let (_, code) = sidecar.started().await;
    sidecar.watch(&code).await;
    sidecar.faults(&["watch:status=500"]);
    pass(30.0).await;
    let (answer, took) = timed(wait(&sidecar, &code, "wait=28")).await;
    assert_status(&answer, "created");
    assert_about(took, 28.0);
    assert_error(
        &wait(&sidecar, &code, "wait=40").await,
        502,
        "gateway_bad_answer",
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_old_already_is_not_given_either() {
    for (query, tag) in [
        ("wait=1", "\"other\""),
        ("wait=60", "\"other\""),
        ("wait=1", "*"),
        ("wait=60", "*"),
    ] {
        let sidecar = Sidecar::with(&[("watch.stale_for", "1m")]);
        let (_, code) = sidecar.started().await;
        sidecar.watch(&code).await;
        pass(120.0).await;
        sidecar.faults(&["watch:status=500"]);
        let answer = wait_from(&sidecar, &code, query, tag).await;
        assert_error(&answer, 502, "gateway_bad_answer");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_something_else_is_told_what_was_known_long_ago_as_soon_as_the_gateway_says_it_again()
 {
    let sidecar = Sidecar::with(&[("watch.stale_for", "1m")]);
    let (_, code) = sidecar.started().await;
    let known = sidecar.watch(&code).await;
    pass(120.0).await;
    sidecar.faults(&["watch:status=500,count=2"]);
    let (answer, took) = timed(wait_from(&sidecar, &code, "wait=60", "\"other\"")).await;
    assert_eq!(
        (answer.status, &answer.body),
        (200, &known.body),
        "{answer:?}"
    );
    assert!(
        answer.header("age").parse::<u64>().unwrap() <= 2,
        "too old: {answer:?}"
    );
    assert!(took > seconds(1.0) && took < seconds(20.0), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_hangs_for_longer_than_the_wait_does_not_make_it_longer() {
    let sidecar = Sidecar::with(&[
        ("gateway.timeout", "10m"),
        ("watch.stale_for", "1h"),
        ("watch.max_wait", "60s"),
    ]);
    let (_, code) = sidecar.started().await;
    let known = sidecar.watch(&code).await;
    sidecar.faults(&["watch:hang"]);
    // It hangs from the first question on.
    pass(20.0).await;
    for time in [1.0, 5.0, 60.0] {
        let (answer, took) = timed(wait(&sidecar, &code, &format!("wait={time}"))).await;
        assert_eq!(
            (answer.status, &answer.body),
            (200, &known.body),
            "{answer:?}"
        );
        assert_about(took, time);
        let (answer, took) = timed(wait_from(
            &sidecar,
            &code,
            &format!("wait={time}"),
            known.header("etag"),
        ))
        .await;
        assert_eq!(answer.status, 304, "{answer:?}");
        assert_about(took, time);
    }
    // All of them joined one call.
    assert_eq!(sidecar.gateway_watches(), 2);
    // From a question on that the wait itself asked.
    let (_, code) = sidecar.started().await;
    sidecar.faults(&[]);
    let waiting = timed_while(wait(&sidecar, &code, "wait=30"), 5.0, || {
        sidecar.faults(&["watch:hang"])
    });
    let (answer, took) = waiting.await;
    assert_status(&answer, "created");
    assert_about(took, 30.0);
    assert!(
        answer.header("age").parse::<u64>().unwrap() >= 23,
        "{answer:?}"
    );
}

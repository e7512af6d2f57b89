//! `GET /watch/{watch_code}` as server-sent events.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use hyper::Method;
use tokio::time::{Instant, sleep, timeout};

use crate::dice::Dice;
use crate::harness::{
    Answer, Block, Program, Sidecar, Stream, address_of, call, get, get_at, get_stream, settles,
    start_at,
};
use crate::paused::{FAILURES, HOUR, POLL, SLACK, assert_about, pass, seconds, timed};

/// A stream of this payment, after its beginning.
async fn open(sidecar: &Sidecar, watch_code: &str) -> Stream {
    open_after(sidecar, watch_code, None).await
}

/// The same of a client who comes back.
async fn open_after(sidecar: &Sidecar, watch_code: &str, last_event_id: Option<&str>) -> Stream {
    let (mut stream, took) =
        timed(sidecar.stream(&format!("/watch/{watch_code}"), last_event_id)).await;
    assert_eq!(stream.status, 200);
    let beginning = stream.block().await.expect("a beginning");
    assert_eq!(
        beginning,
        Block {
            retry: "1000".to_owned(),
            ..Block::default()
        }
    );
    assert_about(took, 0.0);
    stream
}

/// The next event, which has to come within so many seconds, and how long it took.
async fn next(stream: &mut Stream, within: f64) -> (Block, Duration) {
    let (event, took) = timed(timeout(seconds(within) + SLACK, stream.event())).await;
    (
        event
            .expect("an event in time")
            .expect("an event before the end"),
        took,
    )
}

/// The same: a state of the payment. Gives its id.
async fn told(stream: &mut Stream, status: &str, within: f64) -> String {
    let (event, _) = next(stream, within).await;
    assert_eq!(
        (event.event.as_str(), event.json()["status"].as_str()),
        ("payment", Some(status)),
        "{event:?}"
    );
    event.id
}

/// Nothing is told for so many seconds, and the stream goes on.
async fn silent(stream: &mut Stream, time: f64) {
    if let Ok(event) = timeout(seconds(time), stream.event()).await {
        panic!("not silent: {event:?}");
    }
}

/// Nothing more comes, not even a comment.
async fn ended(stream: &mut Stream) {
    let (block, took) = timed(timeout(HOUR, stream.block())).await;
    assert_eq!(block.expect("an end"), None);
    assert_about(took, 0.0);
}

/// Streams that are open.
async fn streams(sidecar: &Sidecar) -> u64 {
    sidecar.metric("tillgate_waiters{kind=\"stream\"}").await
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_every_state_and_ends_with_the_final_one() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let path = format!("/watch/{watch_code}");
    let mut stream = sidecar.stream(&path, None).await;
    assert_eq!(stream.block().await.unwrap().retry, "1000");
    let first = stream.block().await.unwrap();
    assert_eq!(
        (first.event.as_str(), &first.json()["status"]),
        ("payment", &"created".into())
    );
    sidecar.pay(&code);
    let last = stream.event().await.unwrap();
    assert_eq!(last.json()["status"], "completed");
    assert_eq!(stream.event().await, None);
    assert_eq!(
        format!("\"{}\"", last.id),
        sidecar.watch(&watch_code).await.header("etag")
    );
    assert_eq!(sidecar.stream(&path, Some(&last.id)).await.status, 204);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_the_answer_of_a_get_and_its_id_the_tag_without_quotes() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let mut stream = open(&sidecar, &watch_code).await;
    for paid in [false, true] {
        if paid {
            sidecar.pay(&code);
        }
        let (event, _) = next(&mut stream, 2.0).await;
        let answer = sidecar.watch(&watch_code).await;
        assert_eq!(
            (&event.data, format!("\"{}\"", event.id).as_str()),
            (&answer.body, answer.header("etag"))
        );
        let bare = Block {
            event: "payment".to_owned(),
            id: event.id.clone(),
            data: event.data.clone(),
            ..Block::default()
        };
        assert_eq!(event, bare);
    }
    ended(&mut stream).await;
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_kept_by_nobody_on_its_way() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    let stream = sidecar.stream(&format!("/watch/{code}"), None).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(stream.headers[name], value);
    }
    assert!(!stream.headers["x-request-id"].is_empty());
    for name in [
        "etag",
        "age",
        "cache-status",
        "content-length",
        "content-encoding",
    ] {
        assert!(!stream.headers.contains_key(name), "{:?}", stream.headers);
    }
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_stream_waits_for_no_gateway_and_the_state_comes_as_soon_as_it_is_known() {
    // `open` asserts that the head comes at once.
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:delay=3s,count=1"]);
    let mut stream = open(&sidecar, &code).await;
    silent(&mut stream, 2.9).await;
    assert_eq!(sidecar.gateway_watches(), 1);
    let (event, took) = next(&mut stream, 0.1).await;
    assert_eq!(event.json()["status"], "created");
    assert_about(took, 0.1);
    drop(stream);

    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:hang,count=1"]);
    let mut stream = open(&sidecar, &code).await;
    let (event, took) = next(&mut stream, 15.0).await;
    assert_eq!(event.json()["status"], "created");
    // After gateway.timeout.
    assert!(took > seconds(10.0), "{took:?}");
    drop(stream);

    // From memory.
    sidecar.watch(&code).await;
    sidecar.faults(&["watch:hang"]);
    let mut stream = open(&sidecar, &code).await;
    assert_about(next(&mut stream, 0.0).await.1, 0.0);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_is_slower_than_the_comments_keeps_no_state_from_a_stream() {
    let sidecar = Sidecar::with(&[("gateway.timeout", "2m")]);
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:delay=50s,count=1"]);
    let mut stream = open(&sidecar, &code).await;
    let began = Instant::now();
    for n in 1..=3 {
        let block = stream.block().await.unwrap();
        assert!(!block.comment.is_empty(), "{block:?}");
        assert_about(began.elapsed(), f64::from(n) * 15.0);
    }
    assert_eq!(sidecar.gateway_watches(), 1);
    told(&mut stream, "created", 5.0).await;
    assert_about(began.elapsed(), 50.0);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_every_change_within_two_seconds_however_old_the_payment() {
    for age in [0.0, 300.0, 20.0 * 3600.0] {
        let sidecar = Sidecar::new();
        let (code, watch_code) = sidecar.started().await;
        pass(age).await;
        let mut stream = open(&sidecar, &watch_code).await;
        let created = told(&mut stream, "created", 0.0).await;
        silent(&mut stream, 100.0).await;
        sidecar.faults(&["watch:unknown-status"]);
        let on_hold = told(&mut stream, "on_hold", 2.0).await;
        silent(&mut stream, 100.0).await;
        // Back to what it was is a change too.
        sidecar.faults(&[]);
        assert_eq!(told(&mut stream, "created", 2.0).await, created);
        sidecar.faults(&["watch:wrong-amount"]);
        let wrong_amount = told(&mut stream, "created", 2.0).await;
        sidecar.faults(&[]);
        assert_eq!(told(&mut stream, "created", 2.0).await, created);
        sidecar.pay(&code);
        let completed = told(&mut stream, "completed", 2.0).await;
        ended(&mut stream).await;
        let mut ids = vec![created, on_hold, wrong_amount, completed];
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 4, "{ids:?}");
        drop(stream);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_says_every_fifteen_seconds_that_it_is_still_there() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let mut stream = open(&sidecar, &watch_code).await;
    told(&mut stream, "created", 0.0).await;
    for _ in 0..20 {
        let (block, took) = timed(stream.block()).await;
        let block = block.unwrap();
        assert!(!block.comment.is_empty(), "{block:?}");
        assert_eq!(
            block,
            Block {
                comment: block.comment.clone(),
                ..Block::default()
            }
        );
        assert_about(took, 15.0);
    }
    // Of a gateway that says nothing, too.
    sidecar.faults(&["watch:hang"]);
    for _ in 0..20 {
        let (block, took) = timed(stream.block()).await;
        assert!(!block.unwrap().comment.is_empty());
        assert_about(took, 15.0);
    }
    sidecar.faults(&[]);
    sidecar.pay(&code);
    told(&mut stream, "completed", 75.0).await;
    ended(&mut stream).await;
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_payment_that_is_over_tells_that_and_ends() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    sidecar.pay(&code);
    for _ in 0..3 {
        let mut stream = open(&sidecar, &watch_code).await;
        told(&mut stream, "completed", 0.0).await;
        ended(&mut stream).await;
        // Not even as long as its reader keeps it.
        pass(3600.0).await;
        assert_eq!(sidecar.gateway_watches(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn completed_is_never_taken_back_in_a_stream() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let mut stream = open(&sidecar, &watch_code).await;
    told(&mut stream, "created", 0.0).await;
    // Paid, and the gateway will not say so yet.
    sidecar.faults(&["watch:reopen"]);
    sidecar.pay(&code);
    silent(&mut stream, 30.0).await;
    sidecar.faults(&[]);
    let completed = told(&mut stream, "completed", 2.0).await;
    sidecar.faults(&["watch:reopen"]);
    ended(&mut stream).await;
    for time in [0.0, 2.0, 3600.0, 100_000.0] {
        pass(time).await;
        let mut stream = open(&sidecar, &watch_code).await;
        assert_eq!(told(&mut stream, "completed", 0.0).await, completed);
        ended(&mut stream).await;
        let again = sidecar
            .stream(&format!("/watch/{watch_code}"), Some(&completed))
            .await;
        assert_eq!(again.status, 204);
    }
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_the_final_state_is_told_that_there_is_nothing_more() {
    let sidecar = Sidecar::with(&[("watch.max_tracked", "1")]);
    let (code, watch_code) = sidecar.started().await;
    let path = format!("/watch/{watch_code}");
    sidecar.pay(&code);
    let mut stream = open(&sidecar, &watch_code).await;
    let id = told(&mut stream, "completed", 0.0).await;
    drop(stream);
    // It is known.
    let again = sidecar.stream(&path, Some(&id)).await;
    assert_eq!(
        (again.status, again.headers.get("content-type")),
        (204, None)
    );
    assert!(!again.headers["x-request-id"].is_empty());
    assert_eq!((sidecar.gateway_watches(), sidecar.followed()), (1, 0));
    drop(again);
    // Nothing is known of it any more: it was let go for another.
    sidecar.started().await;
    assert_eq!(sidecar.stream(&path, Some(&id)).await.status, 204);
    assert_eq!(sidecar.gateway_watches(), 2);
    // Other ids are of no state, or of an older one.
    for other in [
        "something-else",
        "\"",
        &id[1..],
        &format!("{id}0"),
        &id.to_uppercase(),
    ] {
        let mut stream = open_after(&sidecar, &watch_code, Some(other)).await;
        assert_eq!(told(&mut stream, "completed", 0.0).await, id, "{other}");
        ended(&mut stream).await;
    }
    let mut stream = open_after(&sidecar, &watch_code, Some("")).await;
    told(&mut stream, "completed", 0.0).await;
    drop(stream);
    assert_eq!(sidecar.gateway_watches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_opened_again_begins_although_the_gateway_says_nothing() {
    let sidecar = Sidecar::with(&[("gateway.timeout", "60s")]);
    let (code, watch_code) = sidecar.started().await;
    sidecar.faults(&["watch:hang,count=1"]);
    let path = format!("/watch/{watch_code}");
    let (mut stream, took) = timed(sidecar.stream(&path, Some("an-older-state"))).await;
    assert_eq!(stream.status, 200);
    assert_about(took, 1.0);
    sidecar.pay(&code);
    told(&mut stream, "completed", 120.0).await;
    ended(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_has_the_final_state_is_told_so_by_a_sidecar_that_has_an_older_one() {
    let sidecar = Sidecar::with(&[("watch.max_tracked", "1")]);
    let (code, watch_code) = sidecar.started().await;
    sidecar.pay(&code);
    let mut stream = open(&sidecar, &watch_code).await;
    let id = told(&mut stream, "completed", 0.0).await;
    drop(stream);
    // As in another sidecar, which was asked before the payer paid: let go, and seen anew.
    sidecar.started().await;
    sidecar.faults(&["watch:reopen,count=1"]);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "created");
    pass(30.0).await;
    assert_eq!(
        sidecar
            .stream(&format!("/watch/{watch_code}"), Some(&id))
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn a_sidecar_that_has_never_heard_of_a_payment_knows_whether_its_last_event_was_the_final_one()
 {
    let (_sandbox, url) = Program::sandbox(&[]).await;
    let (_one, first, _) = Program::sidecar(&url, &[]).await;
    let started = start_at(first, r#"{"amount": 1000}"#).await;
    let path = format!("/watch/{}", started.text("watch_code"));
    let complete = format!("/_sandbox/payments/{}/complete", started.text("code"));
    assert_eq!(
        call(address_of(&url), Method::POST, &complete, &[], "")
            .await
            .status,
        200
    );
    let paid = get_at(first, &path).await;
    let id = paid.header("etag").trim_matches('"');
    let (_other, second, _) = Program::sidecar(&url, &[]).await;
    let stream = [("accept", "text/event-stream"), ("last-event-id", id)];
    let again = call(second, Method::GET, &path, &stream, "").await;
    assert_eq!((again.status, &*again.body), (204, ""), "{again:?}");
    // Without it, the stream of a payment that is over comes to its end by itself.
    let whole = call(second, Method::GET, &path, &stream[..1], "").await;
    assert_eq!(whole.header("content-type"), "text/event-stream");
    assert_eq!(
        whole.body,
        format!(
            "retry: 1000\n\nevent: payment\nid: {id}\ndata: {}\n\n",
            paid.body
        )
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_has_an_older_state_is_told_the_present_one_and_what_follows() {
    let sidecar = Sidecar::with(&[("watch.max_tracked", "1")]);
    let (code, watch_code) = sidecar.started().await;
    let mut stream = open(&sidecar, &watch_code).await;
    let created = told(&mut stream, "created", 0.0).await;
    drop(stream);
    // Nothing has changed.
    let mut stream = open_after(&sidecar, &watch_code, Some(&created)).await;
    assert_eq!(told(&mut stream, "created", 0.0).await, created);
    drop(stream);
    // Paid while nobody looked.
    sidecar.pay(&code);
    pass(100.0).await;
    let mut stream = open_after(&sidecar, &watch_code, Some(&created)).await;
    told(&mut stream, "completed", 2.0).await;
    ended(&mut stream).await;
    drop(stream);
    // Of a sidecar that has not heard of it.
    let (code, other) = sidecar.started().await;
    sidecar.watch(&other).await;
    let (_, third) = sidecar.started().await;
    sidecar.watch(&third).await;
    let mut stream = open_after(&sidecar, &other, Some(&created)).await;
    told(&mut stream, "created", 0.0).await;
    sidecar.pay(&code);
    told(&mut stream, "completed", 2.0).await;
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_code_that_nobody_heard_of_is_one_problem_and_the_end() {
    let sidecar = Sidecar::new();
    for last_event_id in [None, Some("something")] {
        let mut stream = open_after(&sidecar, "unheard-of", last_event_id).await;
        let (event, took) = next(&mut stream, 0.0).await;
        assert_about(took, 0.0);
        assert_eq!((event.event.as_str(), event.id.as_str()), ("problem", ""));
        let problem = event.json();
        assert_eq!(problem["type"], "urn:tillgate:error:unknown_watch_code");
        assert_eq!(
            (&problem["error"], &problem["status"]),
            (&"unknown_watch_code".into(), &404.into())
        );
        assert_eq!(
            (&problem["source"], &problem["retryable"]),
            (&"gateway".into(), &false.into())
        );
        assert_eq!(
            problem["request_id"],
            stream.headers["x-request-id"].to_str().unwrap()
        );
        assert!(
            problem.get("outcome").is_none()
                && problem["detail"].is_string()
                && problem["title"].is_string()
        );
        ended(&mut stream).await;
        drop(stream);
        // Remembered, as for a plain GET.
        assert_eq!(sidecar.gateway_watches(), 1);
    }
    pass(3600.0).await;
    assert_eq!((sidecar.gateway_watches(), sidecar.followed()), (1, 0));
    // As soon as the gateway can say so.
    sidecar.faults(&["watch:status=500,count=2"]);
    let mut stream = open(&sidecar, "nor-this-one").await;
    let (event, took) = next(&mut stream, 14.0).await;
    assert_eq!(
        (event.event.as_str(), &event.json()["error"]),
        ("problem", &"unknown_watch_code".into())
    );
    assert!(took > seconds(1.0), "{took:?}");
    ended(&mut stream).await;
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_at_the_gateway_is_no_event_and_may_pass() {
    for fault in FAILURES {
        let sidecar = Sidecar::new();
        let (code, watch_code) = sidecar.started().await;
        // At the beginning.
        sidecar.faults(&[&format!("watch:{fault}")]);
        let mut stream = open(&sidecar, &watch_code).await;
        silent(&mut stream, 20.0).await;
        sidecar.faults(&[]);
        told(&mut stream, "created", 75.0).await;
        // Later on.
        sidecar.faults(&[&format!("watch:{fault}")]);
        silent(&mut stream, 20.0).await;
        sidecar.pay(&code);
        silent(&mut stream, 20.0).await;
        sidecar.faults(&[]);
        told(&mut stream, "completed", 75.0).await;
        ended(&mut stream).await;
        drop(stream);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_known_long_ago_is_told_as_soon_as_the_gateway_says_it_again() {
    let sidecar = Sidecar::with(&[("watch.stale_for", "1m")]);
    let (_, code) = sidecar.started().await;
    sidecar.watch(&code).await;
    pass(120.0).await;
    sidecar.faults(&["watch:status=500,count=1"]);
    let mut stream = open(&sidecar, &code).await;
    let block = stream.block().await.unwrap();
    assert_eq!(
        block.event, "payment",
        "the second question was answered before this: {block:?}"
    );
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_told_while_the_gateway_fails() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let known = sidecar.watch(&watch_code).await;
    pass(60.0).await;
    sidecar.faults(&["watch:status=500"]);
    let mut stream = open(&sidecar, &watch_code).await;
    let (event, _) = next(&mut stream, 0.0).await;
    assert_eq!(event.data, known.body);
    sidecar.faults(&[]);
    sidecar.pay(&code);
    told(&mut stream, "completed", 10.0).await;
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_every_stream_and_tells_its_reader_to_come_back() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    let mut streams = Vec::new();
    for _ in 0..30 {
        let mut stream = open(&sidecar, &code).await;
        told(&mut stream, "created", 0.0).await;
        streams.push(stream);
    }
    // One whose first question is under way, and one whose reader has read nothing yet.
    sidecar.faults(&["watch:hang"]);
    let (_, other) = sidecar.started().await;
    let mut asking = open(&sidecar, &other).await;
    silent(&mut asking, 1.0).await;
    streams.push(asking);
    let mut unread = sidecar.stream(&format!("/watch/{code}"), None).await;
    sidecar.drain();
    assert_eq!(unread.block().await.unwrap().retry, "1000");
    streams.push(unread);
    let mut retries = Vec::new();
    for stream in &mut streams {
        let (block, took) = timed(stream.block()).await;
        assert_about(took, 0.0);
        let block = block.unwrap();
        assert_eq!(
            block,
            Block {
                retry: block.retry.clone(),
                ..Block::default()
            }
        );
        retries.push(block.retry.parse::<u64>().expect("milliseconds"));
        ended(stream).await;
    }
    // Not all at once, and soon.
    assert!(
        retries.iter().all(|retry| (1000..=3000).contains(retry)),
        "{retries:?}"
    );
    retries.dedup();
    assert!(retries.len() > 10, "all at once: {retries:?}");
    drop(streams);
    assert_eq!(sidecar.followed(), 0);
    assert_eq!(
        sidecar.stream(&format!("/watch/{code}"), None).await.status,
        503
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_client_who_comes_back_while_the_gateway_is_slow() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:hang"]);
    let path = format!("/watch/{code}");
    let mut stream = Box::pin(sidecar.stream(&path, Some("something")));
    // Head or no head yet.
    let early = timeout(seconds(1.0), &mut stream).await;
    sidecar.drain();
    let stream = async {
        match early {
            Ok(stream) => stream,
            Err(_) => stream.await,
        }
    };
    let (stream, took) = timed(stream).await;
    assert_about(took, 0.0);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_polled_for_a_stream_that_was_dropped() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    let path = format!("/watch/{code}");
    let gone = async |calls: u64| {
        assert_eq!((sidecar.followed(), streams(&sidecar).await), (0, 0));
        sleep(3 * HOUR).await;
        assert_eq!((sidecar.followed(), sidecar.gateway_watches()), (0, calls));
    };
    // In the middle.
    let mut stream = open(&sidecar, &code).await;
    told(&mut stream, "created", 0.0).await;
    silent(&mut stream, 40.0).await;
    assert_eq!((sidecar.followed(), streams(&sidecar).await), (1, 1));
    let calls = sidecar.gateway_watches();
    assert!(calls > 20, "{calls}");
    drop(stream);
    gone(calls).await;
    // Before anything was read.
    let stream = sidecar.stream(&path, None).await;
    assert_eq!(sidecar.followed(), 1);
    drop(stream);
    gone(calls).await;
    // While its first question is under way.
    sidecar.faults(&["watch:delay=3s"]);
    let mut stream = open(&sidecar, &code).await;
    silent(&mut stream, 0.5).await;
    assert_eq!(sidecar.gateway_watches(), calls + 1);
    drop(stream);
    gone(calls + 1).await;
    // While it is polled.
    let mut stream = open(&sidecar, &code).await;
    told(&mut stream, "created", 3.0).await;
    silent(&mut stream, 2.0).await;
    settles(|| sidecar.gateway_watches() == calls + 3).await;
    drop(stream);
    gone(calls + 3).await;
    // Before its head, which waits for the gateway to tell whether this was the last.
    let (_, other) = sidecar.started().await;
    let other = format!("/watch/{other}");
    let mut stream = Box::pin(sidecar.stream(&other, Some("something")));
    assert!((&mut stream).now_or_never().is_none());
    drop(stream);
    gone(calls + 4).await;
}

#[tokio::test(start_paused = true)]
async fn however_many_stream_a_payment_it_is_polled_once_and_all_are_told() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let mut all = Vec::new();
    for _ in 0..200 {
        all.push(open(&sidecar, &watch_code).await);
    }
    join_all(all.iter_mut().map(|stream| told(stream, "created", 0.0))).await;
    assert_eq!((sidecar.gateway_watches(), sidecar.followed()), (1, 1));
    assert_eq!(streams(&sidecar).await, 200);
    join_all(all.iter_mut().map(|stream| silent(stream, 30.0))).await;
    let calls = sidecar.gateway_watches();
    assert!((15..=31).contains(&calls), "{calls}");
    // Half of them go.
    drop(all.split_off(100));
    sidecar.pay(&code);
    let (ids, took) = timed(join_all(
        all.iter_mut().map(|stream| told(stream, "completed", 2.0)),
    ))
    .await;
    assert!(took < POLL + SLACK, "{took:?}");
    assert!(ids.iter().all(|id| *id == ids[0]));
    join_all(all.iter_mut().map(ended)).await;
    assert!(sidecar.gateway_watches() <= calls + 2);
    drop(all);
}

#[tokio::test(start_paused = true)]
async fn whenever_the_payer_pays_a_stream_tells_it_once() {
    for paid_at in (0..60).map(|n| f64::from(n) * 0.07) {
        for faults in [&[][..], &["watch:delay=700ms"]] {
            let sidecar = Sidecar::new();
            let (code, watch_code) = sidecar.started().await;
            sidecar.faults(faults);
            let pay = async {
                pass(paid_at).await;
                sidecar.pay(&code);
            };
            let read = async {
                let mut stream = open(&sidecar, &watch_code).await;
                let mut told = Vec::new();
                while let Some(event) = timeout(seconds(60.0), stream.event())
                    .await
                    .expect("an end")
                {
                    told.push(event.json()["status"].as_str().unwrap().to_owned());
                }
                told
            };
            let ((told, took), ()) = tokio::join!(timed(read), pay);
            let without_created = paid_at < SLACK.as_secs_f64() && told == ["completed"];
            assert!(
                without_created || told == ["created", "completed"],
                "{paid_at}: {told:?}"
            );
            // The call that is under way, and the next one.
            assert!(
                took >= seconds(paid_at) && took < seconds(paid_at + 1.0 + 1.5) + SLACK,
                "{took:?} for {paid_at}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_a_wait_and_a_get_share_what_the_gateway_says() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let mut stream = open(&sidecar, &watch_code).await;
    let tag = format!("\"{}\"", told(&mut stream, "created", 0.0).await);
    sidecar.faults(&["watch:delay=2s"]);
    // A poll is under way.
    silent(&mut stream, 1.5).await;
    assert_eq!(sidecar.gateway_watches(), 2);
    sidecar.faults(&[]);
    sidecar.pay(&code);
    let mut wait = get(&format!("/watch/{watch_code}?wait=60"));
    wait.headers_mut()
        .insert("if-none-match", tag.parse().unwrap());
    let (plain, forced, waited, ()) = tokio::join!(
        sidecar.watch(&watch_code),
        sidecar.watch_with(&watch_code, "cache-control", "no-cache"),
        sidecar.api(wait),
        async {
            pass(1.0).await;
            assert_eq!(sidecar.gateway_watches(), 2);
        }
    );
    // Two joined a call that had looked before.
    for answer in [plain, forced] {
        assert_eq!(
            (answer.text("status"), answer.header("cache-status")),
            ("created", "tillgate; fwd=stale; collapsed")
        );
    }
    assert_eq!(waited.text("status"), "completed");
    told(&mut stream, "completed", 0.0).await;
    assert_eq!(sidecar.gateway_watches(), 3);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_payment_that_is_not_polled_any_more_tells_what_others_learn() {
    let sidecar = Sidecar::with(&[("watch.give_up_after", "10m")]);
    let (code, watch_code) = sidecar.started().await;
    let mut stream = open(&sidecar, &watch_code).await;
    told(&mut stream, "created", 0.0).await;
    silent(&mut stream, 590.0).await;
    let calls = sidecar.gateway_watches();
    assert!(calls > 250, "{calls}");
    silent(&mut stream, 15.0).await;
    let calls = sidecar.gateway_watches();
    sidecar.pay(&code);
    silent(&mut stream, 3600.0).await;
    assert_eq!(sidecar.gateway_watches(), calls);
    // A GET still asks.
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    told(&mut stream, "completed", 0.0).await;
    ended(&mut stream).await;
    drop(stream);
    // As does a new stream, once.
    let (_, watch_code) = sidecar.started().await;
    pass(700.0).await;
    let calls = sidecar.gateway_watches();
    let mut stream = open(&sidecar, &watch_code).await;
    told(&mut stream, "created", 0.0).await;
    silent(&mut stream, 600.0).await;
    assert_eq!(sidecar.gateway_watches(), calls + 1);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn streams_of_many_payments_are_all_told() {
    let sidecar = Sidecar::with(&[
        ("watch.poll_rate", "5"),
        ("start.burst", "100"),
        ("gateway.timeout", "60s"),
    ]);
    let mut payments = Vec::new();
    let mut all = Vec::new();
    for _ in 0..40 {
        payments.push(sidecar.started().await);
    }
    for (_, watch_code) in &payments {
        all.push(open(&sidecar, watch_code).await);
    }
    // Eight seconds for a round of all of them; nobody is left out for long.
    let ids = join_all(all.iter_mut().map(|stream| told(stream, "created", 24.0))).await;
    assert_eq!(ids.len(), 40);
    join_all(all.iter_mut().map(|stream| silent(stream, 60.0))).await;
    let calls = sidecar.gateway_watches();
    assert!((200..=5 * 86).contains(&calls), "{calls}");
    for (code, _) in payments.iter().step_by(2) {
        sidecar.pay(code);
    }
    let (paid, open): (Vec<_>, Vec<_>) = all.iter_mut().enumerate().partition(|(i, _)| i % 2 == 0);
    let paid = paid.into_iter().map(|(_, stream)| async {
        told(stream, "completed", 24.0).await;
        ended(stream).await;
    });
    tokio::join!(
        join_all(paid),
        join_all(open.into_iter().map(|(_, stream)| silent(stream, 60.0)))
    );
    assert_eq!(sidecar.followed(), 20);
    drop(all);
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_for_those_who_ask_for_it_and_not_rather_for_json() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    sidecar.pay(&code);
    let asked = async |accept: &[&str]| {
        let mut request = get(&format!("/watch/{watch_code}"));
        for value in accept {
            request
                .headers_mut()
                .append("accept", value.parse().unwrap());
        }
        let answer = sidecar.api(request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("content-type").to_owned()
    };
    for accept in [
        &["text/event-stream"][..],
        &["Text/Event-Stream"],
        &["text/event-stream; charset=utf-8"],
        &["text/event-stream;q=0.5"],
        &["text/event-stream;charset=utf-8;q=0.5"],
        &["text/event-stream;q=0.001"],
        &["text/event-stream, application/json;q=0.9"],
        &["application/json;q=0.1,text/event-stream;q=0.2"],
        &["application/json; q=0.1", "text/event-stream; q=0.2"],
        &["text/event-stream, */*;q=0.1"],
        &["text/html, text/event-stream"],
        &["application/json;q=0, text/event-stream"],
    ] {
        assert_eq!(asked(accept).await, "text/event-stream", "{accept:?}");
    }
    for accept in [
        &[][..],
        &[""],
        &["*/*"],
        &["text/*"],
        &["application/json"],
        &["application/*"],
        &["application/json, text/event-stream"],
        &["text/event-stream, application/json"],
        &["text/event-stream;q=0.5, application/json"],
        &["text/event-stream", "application/json"],
        &["text/event-stream;q=0"],
        &["text/event-stream; q=0.0"],
        &["text/event-stream;Q=0"],
        &["text/event-stream;q=0, */*"],
        &["text/event-streams"],
        &["xtext/event-stream"],
        &["text/html"],
    ] {
        assert_eq!(asked(accept).await, "application/json", "{accept:?}");
    }
    assert_eq!(sidecar.gateway_watches(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_request_is_told_as_json() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    for (path, status, error) in [
        ("/watch/", 400, "invalid_watch_code"),
        ("/watch/a%2Fb", 400, "invalid_watch_code"),
        ("/watch/..", 400, "invalid_watch_code"),
        (&format!("/watch/{code}?wait=x"), 400, "invalid_wait"),
    ] {
        for last_event_id in [None, Some("something")] {
            let answer = sidecar.api(get_stream(path, last_event_id)).await;
            assert_eq!(
                (answer.status, answer.text("error")),
                (status, error),
                "{answer:?}"
            );
            assert_eq!(answer.header("content-type"), "application/problem+json");
        }
    }
    assert_eq!((sidecar.gateway_watches(), sidecar.followed()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_somebody_streams_is_not_let_go() {
    let sidecar = Sidecar::with(&[("watch.max_tracked", "2")]);
    let (code, watch_code) = sidecar.started().await;
    let mut stream = open(&sidecar, &watch_code).await;
    let created = told(&mut stream, "created", 0.0).await;
    for _ in 0..3 {
        sidecar.started().await;
    }
    // Known still: this is a failure, and no unheard-of code.
    sidecar.faults(&["watch:status=404,count=1"]);
    assert_eq!(
        sidecar
            .watch_with(&watch_code, "cache-control", "no-cache")
            .await
            .text("status"),
        "created"
    );
    for _ in 0..10 {
        let (_, other) = sidecar.started().await;
        sidecar.watch(&other).await;
        silent(&mut stream, 5.0).await;
    }
    assert_eq!(sidecar.followed(), 1);
    // It is what it was, to whoever comes later too.
    let mut later = open(&sidecar, &watch_code).await;
    assert_eq!(told(&mut later, "created", 2.0).await, created);
    sidecar.faults(&["watch:status=404"]);
    tokio::join!(silent(&mut stream, 5.0), silent(&mut later, 5.0));
    sidecar.faults(&[]);
    sidecar.pay(&code);
    tokio::join!(
        told(&mut stream, "completed", 10.0),
        told(&mut later, "completed", 10.0)
    );
    drop((stream, later));
}

/// `GET /watch/{watch_code}?wait=3600`
fn waiting<'a>(
    sidecar: &'a Sidecar,
    watch_code: &str,
) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
    sidecar
        .api(get(&format!("/watch/{watch_code}?wait=3600")))
        .boxed()
}

/// Reads up to the final state, and the end.
async fn finish(stream: &mut Stream) {
    let read = async {
        let mut last = None;
        while let Some(event) = stream.event().await {
            assert_eq!(event.event, "payment", "{event:?}");
            last = Some(event);
        }
        last.expect("an event")
    };
    let last = timeout(seconds(120.0), read).await.expect("an end in time");
    assert_eq!(last.json()["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn in_whatever_order_they_come_and_go_all_who_stay_are_told_and_nothing_is_left() {
    for seed in 0..150 {
        let mut dice = Dice::new(seed);
        let sidecar = Sidecar::with(&[("watch.max_wait", "1h"), ("watch.poll_rate", "4")]);
        let payments = [
            sidecar.started().await,
            sidecar.started().await,
            sidecar.started().await,
        ];
        let (mut streams, mut waits) = (Vec::new(), Vec::new());
        let mut doing = Vec::new();
        for _ in 0..60 {
            let (_, watch_code) = &payments[dice.index(3)];
            let what = dice.below(9);
            doing.push(what);
            match what {
                0 => streams.push(open(&sidecar, watch_code).await),
                1 => {
                    let mut waiting = waiting(&sidecar, watch_code);
                    assert!((&mut waiting).now_or_never().is_none());
                    waits.push(waiting);
                }
                2 => drop(dice.take(&mut streams)),
                3 => drop(dice.take(&mut waits)),
                4 => drop(timeout(seconds(0.3), sidecar.watch(watch_code)).await),
                5 => drop(
                    timeout(
                        seconds(0.3),
                        sidecar.watch_with(watch_code, "cache-control", "no-cache"),
                    )
                    .await,
                ),
                6 => sidecar.faults(&[&format!("watch:{}", FAILURES[dice.index(FAILURES.len())])]),
                7 => {
                    sidecar.faults(&[]);
                    if let Some(stream) = streams.last_mut() {
                        drop(timeout(seconds(0.7), stream.event()).await);
                    }
                }
                _ => pass(dice.below(5000) as f64 / 1000.0).await,
            }
        }
        sidecar.faults(&[]);
        for (code, _) in &payments {
            sidecar.pay(code);
        }
        let waits = join_all(
            waits
                .into_iter()
                .map(|waiting| timeout(seconds(120.0), waiting)),
        );
        let (answers, _) = tokio::join!(waits, join_all(streams.iter_mut().map(finish)));
        for answer in answers {
            let answer = answer.unwrap_or_else(|_| panic!("no answer: seed {seed}, {doing:?}"));
            assert_eq!(
                (answer.status, answer.text("status")),
                (200, "completed"),
                "seed {seed}"
            );
        }
        drop(streams);
        assert_eq!(sidecar.followed(), 0, "seed {seed}, {doing:?}");
        // What was asked for by those who have gone.
        sidecar.idle().await;
        let calls = sidecar.gateway_watches();
        sleep(3 * HOUR).await;
        assert_eq!(sidecar.gateway_watches(), calls, "seed {seed}, {doing:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads_all_who_stay_are_told_and_nothing_is_left() {
    let sidecar = Arc::new(Sidecar::with(&[
        ("watch.poll_rate", "1000"),
        ("start.burst", "100"),
    ]));
    let mut tasks = Vec::new();
    for n in 0..30 {
        let (code, watch_code) = sidecar.started().await;
        let paying = sidecar.clone();
        tasks.push(tokio::spawn(async move {
            sleep(Duration::from_millis(n * 40)).await;
            paying.pay(&code);
        }));
        for m in 0..4 {
            let (sidecar, watch_code) = (sidecar.clone(), watch_code.clone());
            tasks.push(tokio::spawn(async move {
                let mut dice = Dice::new(n * 4 + m);
                // Some come and go.
                for _ in 0..30 {
                    let patience = Duration::from_millis(dice.below(20));
                    match dice.below(4) {
                        0 => drop(timeout(patience, waiting(&sidecar, &watch_code)).await),
                        1 => drop(
                            timeout(
                                patience,
                                sidecar.watch_with(&watch_code, "cache-control", "no-cache"),
                            )
                            .await,
                        ),
                        2 => drop(timeout(patience, sidecar.watch(&watch_code)).await),
                        _ => {
                            let path = format!("/watch/{watch_code}");
                            let mut stream = sidecar.stream(&path, None).await;
                            drop(
                                timeout(patience, async {
                                    while stream.event().await.is_some() {}
                                })
                                .await,
                            );
                        }
                    }
                }
                // And stay in the end.
                let path = format!("/watch/{watch_code}");
                finish(&mut sidecar.stream(&path, None).await).await;
                assert_eq!(
                    waiting(&sidecar, &watch_code).await.text("status"),
                    "completed"
                );
            }));
        }
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    drop(Arc::into_inner(sidecar).expect("nobody has it any more"));
}

//! `GET /watch/{watch_code}` as server-sent events.

mod together;

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

/// A stream of this payment.
async fn open(sidecar: &Sidecar, watch_code: &str) -> Stream {
    open_after(sidecar, watch_code, None).await
}

/// The same of a client who comes back.
async fn open_after(sidecar: &Sidecar, watch_code: &str, last_event_id: Option<&str>) -> Stream {
    let (stream, took) =
        timed(sidecar.stream(&format!("/watch/{watch_code}"), last_event_id)).await;
    assert_eq!(stream.status, 200);
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
    let first = stream.block().await.unwrap();
    assert_eq!(stream.retry, "1000");
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
    for n in 1..=12 {
        let block = stream.block().await.unwrap();
        assert!(!block.comment.is_empty(), "{block:?}");
        assert_eq!(stream.retry, "1000");
        assert_about(began.elapsed(), f64::from(n) * 4.0);
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
async fn a_silent_stream_says_every_four_seconds_that_it_is_still_there() {
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
        assert_about(took, 4.0);
    }
    // Of a gateway that says nothing, too.
    sidecar.faults(&["watch:hang"]);
    for _ in 0..20 {
        let (block, took) = timed(stream.block()).await;
        assert!(!block.unwrap().comment.is_empty());
        assert_about(took, 4.0);
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
            "retry: 1000\nevent: payment\nid: {id}\ndata: {}\n\n",
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
async fn what_is_fresh_is_told_at_once_although_nothing_stale_is() {
    let sidecar = Sidecar::with(&[("watch.stale_for", "0s")]);
    let (code, watch_code) = sidecar.started().await;
    sidecar.watch(&watch_code).await;
    sidecar.faults(&["watch:hang"]);
    let mut stream = open(&sidecar, &watch_code).await;
    told(&mut stream, "created", 0.0).await;
    sidecar.faults(&[]);
    sidecar.pay(&code);
    told(&mut stream, "completed", 75.0).await;
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
    streams.push(sidecar.stream(&format!("/watch/{code}"), None).await);
    sidecar.drain();
    let mut retries = Vec::new();
    for stream in &mut streams {
        let (block, took) = timed(stream.block()).await;
        assert_about(took, 0.0);
        let block = block.unwrap();
        assert_eq!(
            block,
            Block {
                comment: block.comment.clone(),
                ..Block::default()
            }
        );
        retries.push(stream.retry.parse::<u64>().expect("milliseconds"));
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

//! `GET /events`: everything that happens to the payments started here, as one stream.

use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::harness::{Block, Sidecar, Stream, get, settles};
use crate::paused::{MANY, pass};

/// Changes that can be resumed from.
const REACH: usize = 4096;

/// Opens the stream.
async fn open(sidecar: &Sidecar, last_event_id: Option<&str>) -> Stream {
    let stream = sidecar.stream("/events", last_event_id).await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    assert_eq!(stream.headers["cache-control"], "no-store");
    stream
}

/// The next event, which must come within an hour.
async fn next(stream: &mut Stream) -> Block {
    let event = timeout(Duration::from_secs(3600), stream.event())
        .await
        .expect("an event in time")
        .expect("no end");
    assert_eq!(event.event, "payment");
    assert!(!event.id.is_empty());
    event
}

async fn next_of(stream: &mut Stream, count: usize) -> Vec<Block> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(next(stream).await);
    }
    events
}

/// The present state: all events up to the mark behind them, which is an id without data; and that id.
async fn present(stream: &mut Stream) -> (Vec<Block>, String) {
    let mut events = Vec::new();
    loop {
        let block = stream.block().await.expect("no end");
        assert!(!block.id.is_empty());
        if block.data.is_empty() {
            assert_eq!(block.event, "");
            assert_eq!(stream.retry, "1000");
            return (events, block.id);
        }
        assert_eq!(block.comment, "");
        events.push(block);
    }
}

/// Asserts that there is nothing to be read before time passes.
async fn assert_quiet(stream: &mut Stream) {
    for _ in 0..100 {
        assert_eq!(stream.block().now_or_never(), None);
        tokio::task::yield_now().await;
    }
}

fn member(events: &[Block], name: &str) -> Vec<Value> {
    events
        .iter()
        .map(|event| event.json()[name].clone())
        .collect()
}

fn watch_codes(events: &[Block]) -> Vec<String> {
    events
        .iter()
        .map(|event| event.json()["watch_code"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn first_comes_the_present_state_of_what_is_open_and_then_every_change() {
    let sidecar = Sidecar::dev(&[]);
    let (a, watch_a) = sidecar.started().await;
    let (b, watch_b) = sidecar.started().await;
    let (c, watch_c) = sidecar.started().await;
    sidecar.pay(&b);
    assert_eq!(sidecar.watch(&watch_b).await.text("status"), "completed");
    assert_eq!(sidecar.watch(&watch_c).await.text("status"), "created");

    let mut stream = open(&sidecar, None).await;
    let (events, _) = present(&mut stream).await;
    assert_eq!(
        events.len(),
        2,
        "the finished one is none of them: {events:?}"
    );
    assert!(events.iter().all(|event| event.event == "payment"));
    let unknown = json!({
        "status": "created", "amount": 1000, "merchant": null, "created_at": null, "completed_at": null,
        "code": a, "watch_code": watch_a, "reference": null, "requested_amount": 1000, "paid_twice_with": null,
    });
    assert_eq!(events[0].json(), unknown);
    let known = events[1].json();
    assert_eq!(
        (&known["merchant"], &known["code"]),
        (&"Sandbox Shop".into(), &(*c).into())
    );
    assert!(known["created_at"].is_string() && known["completed_at"].is_null());
    assert_eq!(known.as_object().unwrap().len(), 10, "{known}");

    // The first poll tells more of the first one, and nothing new of the other.
    let polled = next(&mut stream).await.json();
    assert_eq!(
        (&polled["code"], &polled["merchant"]),
        (&(*a).into(), &"Sandbox Shop".into())
    );
    assert!(
        timeout(Duration::from_secs(14), stream.event())
            .await
            .is_err()
    );

    let (d, watch_d) = sidecar.started().await;
    let new = next(&mut stream).await.json();
    assert_eq!(
        (&new["code"], &new["watch_code"]),
        (&(*d).into(), &(*watch_d).into())
    );
    assert_eq!(
        (&new["status"], &new["merchant"]),
        (&"created".into(), &Value::Null)
    );
    assert_eq!(next(&mut stream).await.json()["merchant"], "Sandbox Shop");

    sidecar.pay(&c);
    let paid = next(&mut stream).await.json();
    assert_eq!(
        (&paid["code"], &paid["status"]),
        (&(*c).into(), &"completed".into())
    );
    assert!(paid["completed_at"].is_string());
    assert_eq!(paid.as_object().unwrap().len(), 10, "{paid}");
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn what_else_the_gateway_tells_stands_in_the_data_too() {
    let sidecar = Sidecar::dev(&[]);
    sidecar.faults(&["watch:echo-secret"]);
    let (code, _) = sidecar.started().await;
    let mut stream = open(&sidecar, None).await;
    present(&mut stream).await;
    let data = next(&mut stream).await.json();
    assert_eq!(data["code"], code);
    assert_eq!(data["note"], "Asked on behalf of [redacted]");
    sidecar.faults(&["watch:unknown-status"]);
    assert_eq!(next(&mut stream).await.json()["status"], "on_hold");
    // It is not final: who comes now is told of it.
    let mut second = open(&sidecar, None).await;
    assert_eq!(member(&present(&mut second).await.0, "status"), ["on_hold"]);
    drop((stream, second));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_goes_on_after_the_last_event_without_a_gap_or_a_repeat() {
    let sidecar = Sidecar::dev(&[]);
    let mut stream = open(&sidecar, None).await;
    let (none, mark) = present(&mut stream).await;
    assert_eq!(none, []);
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(sidecar.started().await);
    }
    let mut events = next_of(&mut stream, 10).await;
    for (code, _) in &codes[..3] {
        sidecar.pay(code);
        events.push(next(&mut stream).await);
    }
    drop(stream);
    let ids: std::collections::HashSet<_> = events.iter().map(|event| &event.id).collect();
    assert_eq!(ids.len(), events.len(), "ids are told apart");
    for (i, id) in std::iter::once(&mark)
        .chain(events.iter().map(|event| &event.id))
        .enumerate()
    {
        let mut resumed = open(&sidecar, Some(id)).await;
        assert_eq!(
            next_of(&mut resumed, events.len() - i).await,
            events[i..],
            "after {id}"
        );
        assert_quiet(&mut resumed).await;
    }

    // Nobody listens, and things happen.
    let last = events.last().unwrap().id.clone();
    sidecar.pay(&codes[3].0);
    pass(5.0).await;
    assert_eq!(sidecar.watch(&codes[3].1).await.text("status"), "completed");
    let (_, new) = sidecar.started().await;
    let mut resumed = open(&sidecar, Some(&last)).await;
    let missed = next_of(&mut resumed, 2).await;
    assert_eq!(watch_codes(&missed), [&*codes[3].1, &*new]);
    assert_eq!(member(&missed, "status"), ["completed", "created"]);
    // And what is new then.
    sidecar.pay(&codes[4].0);
    let live = next_of(&mut resumed, 2).await;
    assert!(
        member(&live, "status").contains(&"completed".into()),
        "{live:?}"
    );
    drop(resumed);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_names_no_place_in_the_changes_gets_the_present_state_again() {
    let other = Sidecar::dev(&[]);
    other.started().await;
    let mut stream = open(&other, None).await;
    let elsewhere = present(&mut stream).await.1;
    drop(stream);

    let sidecar = Sidecar::dev(&[]);
    let mut codes = Vec::new();
    for _ in 0..3 {
        let (_, code) = sidecar.started().await;
        // So that no poll tells anything new.
        sidecar.watch(&code).await;
        codes.push(code);
    }
    let mut stream = open(&sidecar, None).await;
    let (events, mark) = present(&mut stream).await;
    drop(stream);
    let run = mark.rsplit_once('-').unwrap().0;
    // Within the present state: that once more, up to the same mark.
    let mut ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
    ids.push(elsewhere);
    ids.extend(["x", "-", "0", "1", "-1", "*", "\"\"", "null"].map(str::to_owned));
    let ends = [
        "-7",
        "-18446744073709551615",
        "-18446744073709551616",
        "--1",
        "-",
        "",
        "-7.5",
        "-.1",
        "-1x",
        "- 1",
        "-1-1",
    ];
    ids.extend(ends.map(|end| format!("{run}{end}")));
    ids.push(format!("x{mark}"));
    ids.push("x".repeat(4000));
    for id in ids {
        let mut stream = open(&sidecar, Some(&id)).await;
        let (again, last) = present(&mut stream).await;
        assert_eq!(watch_codes(&again), codes, "{id}");
        assert_eq!(last, mark, "{id}");
        assert_quiet(&mut stream).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_the_journals_reach_is_made_up_for_by_the_present_state() {
    let sidecar = Sidecar::dev(&MANY);
    // So that nothing changes by polls.
    sidecar.faults(&["watch:hang"]);
    let (_, first) = sidecar.started().await;
    let mut stream = open(&sidecar, None).await;
    let (_, mark) = present(&mut stream).await;
    drop(stream);
    let mut codes = Vec::new();
    for _ in 0..REACH {
        codes.push(sidecar.started().await.1);
    }
    // As far as it goes: the one that the caller knows is not repeated.
    let mut stream = open(&sidecar, Some(&mark)).await;
    let resumed = next_of(&mut stream, REACH).await;
    assert_eq!(watch_codes(&resumed), codes);
    assert_quiet(&mut stream).await;
    drop(stream);
    // One too many.
    codes.push(sidecar.started().await.1);
    let mut stream = open(&sidecar, Some(&mark)).await;
    let (again, _) = present(&mut stream).await;
    codes.insert(0, first);
    assert_eq!(watch_codes(&again), codes);
    drop(stream);
    // From the next it can be resumed still.
    let mut stream = open(&sidecar, Some(&resumed[0].id)).await;
    assert_eq!(watch_codes(&next_of(&mut stream, REACH).await), codes[2..]);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn while_there_is_a_reader_all_that_is_open_is_polled_and_then_no_more() {
    let sidecar = Sidecar::dev(&[]);
    let (a, watch_a) = sidecar.started().await;
    pass(100.0).await;
    assert_eq!((sidecar.gateway_watches(), sidecar.followed()), (0, 0));
    let mut stream = open(&sidecar, None).await;
    settles(|| sidecar.gateway_watches() == 1).await;
    let (b, watch_b) = sidecar.started().await;
    settles(|| sidecar.gateway_watches() == 2 && sidecar.followed() == 2).await;
    // Nobody reads the stream: that is not what keeps them polled.
    for code in [&a, &b] {
        sidecar.pay(code);
    }
    pass(15.0).await;
    assert_eq!(
        sidecar.followed(),
        0,
        "what is finished is not polled any more"
    );
    let (_, watch_c) = sidecar.started().await;
    settles(|| sidecar.followed() == 1).await;
    present(&mut stream).await;
    let mut last = std::collections::HashMap::new();
    for event in next_of(&mut stream, 7).await {
        let data = event.json();
        last.insert(
            data["watch_code"].as_str().unwrap().to_owned(),
            data["status"].clone(),
        );
    }
    assert_eq!(
        (&last[&watch_a], &last[&watch_b], &last[&watch_c]),
        (&"completed".into(), &"completed".into(), &"created".into())
    );
    assert_quiet(&mut stream).await;

    let second = open(&sidecar, None).await;
    drop(stream);
    let before = sidecar.gateway_watches();
    pass(10.0).await;
    assert!(
        sidecar.gateway_watches() > before,
        "there is another reader"
    );
    drop(second);
    assert_eq!(sidecar.followed(), 0);
    let before = sidecar.gateway_watches();
    let d = sidecar.started().await;
    pass(3600.0).await;
    assert_eq!(sidecar.gateway_watches(), before);
    // The next reader finds all of them.
    let third = open(&sidecar, None).await;
    settles(|| sidecar.followed() == 2 && sidecar.gateway_watches() == before + 2).await;
    drop((third, d));
}

#[tokio::test(start_paused = true)]
async fn all_readers_are_told_the_same() {
    let sidecar = Sidecar::dev(&[]);
    for _ in 0..3 {
        sidecar.started().await;
    }
    let (mut one, mut other) = (open(&sidecar, None).await, open(&sidecar, None).await);
    let (present_one, present_other) = (present(&mut one).await, present(&mut other).await);
    assert_eq!(present_one, present_other);
    let mut told = next_of(&mut one, 3).await;
    for _ in 0..5 {
        let (code, _) = sidecar.started().await;
        told.extend(next_of(&mut one, 2).await);
        sidecar.pay(&code);
        told.push(next(&mut one).await);
    }
    // One reads at once, the other later.
    assert_eq!(next_of(&mut other, told.len()).await, told);
    assert_quiet(&mut other).await;
    drop((one, other));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_says_every_four_seconds_that_it_is_there() {
    let sidecar = Sidecar::dev(&[]);
    let mut stream = open(&sidecar, None).await;
    present(&mut stream).await;
    let from = Instant::now();
    for i in 1..=4 {
        let block = stream.block().await.unwrap();
        assert!(
            !block.comment.is_empty() && block.data.is_empty() && block.id.is_empty(),
            "{block:?}"
        );
        let passed = from.elapsed();
        assert!(
            (4_000 * i..4_000 * i + 10 * i).contains(&passed.as_millis()),
            "{passed:?}"
        );
    }
    // Not instead of what there is to tell.
    pass(7.0).await;
    sidecar.started().await;
    assert_eq!(next(&mut stream).await.json()["merchant"], Value::Null);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn when_the_sidecar_ends_its_readers_are_told_when_to_come_back() {
    let sidecar = Sidecar::dev(&[]);
    sidecar.started().await;
    // One in the middle of the present state, one behind it.
    let (mut early, mut late) = (open(&sidecar, None).await, open(&sidecar, None).await);
    present(&mut late).await;
    sidecar.drain();
    for stream in [&mut early, &mut late] {
        let last = stream.block().await.unwrap();
        assert!(!last.comment.is_empty() && last.id.is_empty(), "{last:?}");
        let retry: u64 = stream.retry.parse().unwrap();
        assert!((1000..=3000).contains(&retry), "{retry}");
        assert_eq!(stream.block().await, None);
    }
    drop((early, late));
    let refused = sidecar.api(get("/events")).await;
    assert_eq!((refused.status, refused.text("error")), (503, "draining"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_reads_nothing_is_left_behind_and_no_other() {
    let sidecar = Sidecar::dev(&MANY);
    // So that nothing changes by polls.
    sidecar.faults(&["watch:hang"]);
    let mut slow = open(&sidecar, None).await;
    let mut fast = open(&sidecar, None).await;
    let mark = present(&mut fast).await.1;
    assert_eq!(present(&mut slow).await.1, mark);
    let mut codes = Vec::new();
    let mut told = Vec::new();
    for _ in 0..REACH + 10 {
        codes.push(sidecar.started().await.1);
        told.push(next(&mut fast).await);
    }
    assert_eq!(watch_codes(&told), codes);
    // Not a silent gap: what it gets is whole, and then it ends.
    let mut last = mark;
    let mut got = Vec::new();
    while let Some(event) = timeout(Duration::from_secs(60), slow.block())
        .await
        .expect("an end")
    {
        last.clone_from(&event.id);
        got.push(event);
        assert!(got.len() < 1000, "it should have ended: {}", got.len());
    }
    assert_eq!(got, told[..got.len()]);
    assert_eq!(sidecar.metric("tillgate_waiters{kind=\"events\"}").await, 1);
    drop(slow);
    // It comes back, and is told how things stand.
    let mut back = open(&sidecar, Some(&last)).await;
    assert_eq!(watch_codes(&present(&mut back).await.0), codes);
    codes.push(sidecar.started().await.1);
    assert_eq!(
        next(&mut fast).await.json()["watch_code"],
        *codes.last().unwrap()
    );
    drop((back, fast));
}

#[tokio::test(start_paused = true)]
async fn codes_are_listed_only_to_those_with_a_token() {
    let without = Sidecar::with(&[]);
    for path in ["/events", "/payments"] {
        let refused = without.api(get(path)).await;
        assert_eq!(
            (refused.status, refused.text("error")),
            (403, "token_required"),
            "{path}: {refused:?}"
        );
        assert!(
            refused.text("detail").contains("listen.token_file"),
            "{refused:?}"
        );
        assert!(!refused.body.contains("outcome"), "{refused:?}");
        assert_eq!(refused.json()["retryable"], false);
    }

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, "token-for-the-reader\n").unwrap();
    let with = Sidecar::with(&[("listen.token_file", file.to_str().unwrap())]);
    for path in ["/events", "/payments"] {
        assert_eq!(with.api(get(path)).await.status, 401, "{path}");
    }
    let request = |path| {
        let mut request = get(path);
        request.headers_mut().insert(
            "authorization",
            "Bearer token-for-the-reader".parse().unwrap(),
        );
        request
    };
    let mut stream = with.stream_of(request("/events")).await;
    assert_eq!(stream.status, 200);
    assert_eq!(present(&mut stream).await.0, []);
    drop(stream);
    assert_eq!(
        with.api(request("/payments")).await.json()["payments"],
        json!([])
    );
}

#[tokio::test(start_paused = true)]
async fn readers_take_seats_as_all_who_wait_do() {
    // Three quarters of four.
    let sidecar = Sidecar::dev(&[("listen.max_connections", "4")]);
    let (_, code) = sidecar.started().await;
    let waiting = async |kind: &str| {
        sidecar
            .metric(&format!("tillgate_waiters{{kind=\"{kind}\"}}"))
            .await
    };
    let watch = format!("/watch/{code}");
    let first = open(&sidecar, None).await;
    assert_eq!(waiting("events").await, 1);
    let second = sidecar.stream(&watch, None).await;
    let path = format!("{watch}?wait=60");
    let mut third = Box::pin(sidecar.api(get(&path)));
    assert!((&mut third).now_or_never().is_none());
    settles(|| {
        assert!((&mut third).now_or_never().is_none());
        sidecar.gateway_watches() > 0
    })
    .await;
    while waiting("long_poll").await != 1 {
        assert!((&mut third).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    let refused = sidecar.api(get("/events")).await;
    assert_eq!(
        (refused.status, refused.text("error")),
        (503, "overloaded"),
        "{refused:?}"
    );
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(sidecar.stream(&watch, None).await.status, 503);
    // Whoever does not wait has room.
    sidecar.started().await;
    assert_eq!(sidecar.api(get("/payments")).await.status, 200);
    drop(second);
    let again = open(&sidecar, None).await;
    assert_eq!(waiting("events").await, 2);
    assert_eq!(sidecar.api(get("/events")).await.status, 503);
    assert_eq!(third.await.status, 200);
    drop((first, again));
    assert_eq!(waiting("events").await, 0);
}

#[tokio::test]
async fn events_are_read_and_nothing_else() {
    let sidecar = Sidecar::dev(&[]);
    for method in ["POST", "HEAD", "DELETE", "OPTIONS"] {
        // Of a stream there is no head without it.
        let mut request = get("/events");
        *request.method_mut() = method.parse().unwrap();
        let answer = sidecar.api(request).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "GET"),
            "{method}: {answer:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn readers_who_come_and_go_while_payments_start_leave_nothing_behind_and_miss_nothing() {
    let sidecar = Sidecar::dev(&MANY);
    let mut codes = Vec::new();
    let mut told = Vec::new();
    let mut stream = open(&sidecar, None).await;
    let mut last = present(&mut stream).await.1;
    for i in 0..200 {
        codes.push(sidecar.started().await.1);
        match i % 4 {
            // Another one that is gone at once; one that reads nothing.
            0 => drop(sidecar.stream("/events", None).await),
            1 => drop(open(&sidecar, Some(&last)).await),
            2 => pass(0.3).await,
            _ => {}
        }
        if i % 7 == 0 {
            // Ends in the middle, and resumes.
            let event = next(&mut stream).await;
            last.clone_from(&event.id);
            told.push(event);
            drop(stream);
            codes.push(sidecar.started().await.1);
            stream = open(&sidecar, Some(&last)).await;
        }
    }
    pass(60.0).await;
    settles(|| sidecar.followed() == codes.len()).await;
    while let Ok(Some(event)) = timeout(Duration::from_secs(10), stream.event()).await {
        told.push(event);
    }
    // A start each, in their order, and what the first poll told, once.
    let (started, polled): (Vec<_>, Vec<_>) = told
        .into_iter()
        .partition(|event| event.json()["merchant"].is_null());
    assert_eq!(watch_codes(&started), codes);
    let mut polled = watch_codes(&polled);
    polled.sort();
    codes.sort();
    assert_eq!(polled, codes);
    drop(stream);
    assert_eq!(sidecar.followed(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_one_payment_and_who_waits_for_all_do_not_get_in_each_others_way() {
    let sidecar = Sidecar::dev(&[]);
    let (code, watch_code) = sidecar.started().await;
    let path = format!("/watch/{watch_code}");
    pass(3600.0).await;
    let mut stream = open(&sidecar, None).await;
    present(&mut stream).await;
    next(&mut stream).await;
    for _ in 0..20 {
        let mut one = sidecar.stream(&path, None).await;
        assert_eq!(one.event().await.unwrap().json()["status"], "created");
        let other = sidecar.stream(&path, None).await;
        pass(0.7).await;
        drop(one);
        pass(0.7).await;
        drop(other);
        assert_eq!(
            sidecar.followed(),
            1,
            "the reader of all still waits for it"
        );
    }
    // And the other way round.
    let mut one = sidecar.stream(&path, None).await;
    one.event().await.unwrap();
    for _ in 0..20 {
        drop(stream);
        assert_eq!(sidecar.followed(), 1);
        pass(0.7).await;
        stream = open(&sidecar, None).await;
        pass(0.7).await;
    }
    let (events, _) = present(&mut stream).await;
    assert_eq!(member(&events, "status"), ["created"]);
    let paid_at = Instant::now();
    sidecar.pay(&code);
    assert_eq!(one.event().await.unwrap().json()["status"], "completed");
    assert!(
        paid_at.elapsed() <= Duration::from_millis(2100),
        "{:?}",
        paid_at.elapsed()
    );
    assert_eq!(one.event().await, None);
    assert_eq!(next(&mut stream).await.json()["status"], "completed");
    drop((one, stream));
}

#[tokio::test(start_paused = true)]
async fn what_was_completed_while_nobody_looked_is_seen_by_the_next_reader() {
    let sidecar = Sidecar::dev(&[]);
    let (code, watch_code) = sidecar.started().await;
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "created");
    sidecar.pay(&code);
    pass(7200.0).await;
    let mut stream = open(&sidecar, None).await;
    assert_eq!(
        member(&present(&mut stream).await.0, "status"),
        ["created"],
        "nobody asked yet"
    );
    let from = Instant::now();
    let paid = next(&mut stream).await.json();
    assert_eq!(
        (&paid["status"], &paid["watch_code"]),
        (&"completed".into(), &watch_code.into())
    );
    assert!(from.elapsed() < Duration::from_secs(1));
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_is_let_go_while_it_is_polled_leaves_nothing_behind() {
    let sidecar = Sidecar::dev(&[MANY[0], MANY[1], ("watch.max_tracked", "3")]);
    let mut stream = open(&sidecar, None).await;
    present(&mut stream).await;
    let mut codes = Vec::new();
    for _ in 0..50 {
        codes.push(sidecar.started().await);
        pass(0.4).await;
    }
    // Those that are left are polled still, and told of.
    sidecar.pay(&codes[49].0);
    loop {
        let data = next(&mut stream).await.json();
        if data["status"] == "completed" {
            assert_eq!(data["watch_code"], codes[49].1);
            break;
        }
    }
    pass(120.0).await;
    assert_eq!(sidecar.followed(), 2);
    drop(stream);
    let mut stream = open(&sidecar, None).await;
    assert_eq!(
        watch_codes(&present(&mut stream).await.0),
        [&*codes[47].1, &*codes[48].1]
    );
    drop(stream);
}

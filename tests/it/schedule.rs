//! How the gateway is polled for those who wait: how often, in which order, and never too much.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::time::{Instant, interval, sleep};

use crate::harness::{Sidecar, Stream, get, settles};
use crate::paused::{MANY, pass};

/// The stream of one payment, its first state read.
async fn stream_of(sidecar: &Sidecar, watch_code: &str) -> Stream {
    let mut stream = sidecar.stream(&format!("/watch/{watch_code}"), None).await;
    assert_eq!(stream.event().await.unwrap().json()["status"], "created");
    stream
}

/// A stream of all payments, which nobody reads.
async fn feed(sidecar: &Sidecar) -> Stream {
    let stream = sidecar.stream("/events", None).await;
    assert_eq!(stream.status, 200);
    stream
}

/// When calls came, seen by looking every 10 ms for so long.
async fn arrivals(sidecar: &Sidecar, seconds: u64) -> Vec<(Instant, u64)> {
    let mut ticks = interval(Duration::from_millis(10));
    let (mut before, mut arrivals) = (sidecar.gateway_watches(), Vec::new());
    for _ in 0..seconds * 100 {
        let at = ticks.tick().await;
        let calls = sidecar.gateway_watches();
        if calls > before {
            arrivals.push((at, calls - before));
            before = calls;
        }
    }
    arrivals
}

/// Asserts that there was one call at a time, and how many seconds lay between two.
fn assert_distances(arrivals: &[(Instant, u64)], from: f64, to: f64) {
    assert!(arrivals.iter().all(|(_, calls)| *calls == 1), "two at once");
    for pair in arrivals.windows(2) {
        let distance = (pair[1].0 - pair[0].0).as_secs_f64();
        // As exact as the looks were.
        assert!(
            (from - 0.015..=to + 0.015).contains(&distance),
            "{distance} is not from {from} to {to}"
        );
    }
}

/// How many calls reach the gateway in that time.
async fn calls_in(sidecar: &Sidecar, seconds: f64) -> u64 {
    let before = sidecar.gateway_watches();
    pass(seconds).await;
    sidecar.gateway_watches() - before
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_is_asked_every_one_to_two_seconds_at_any_age() {
    for wait in [false, true] {
        let sidecar = Sidecar::dev(&[]);
        let (code, watch_code) = sidecar.started().await;
        for (age, shortest) in [
            (0.0, 1.0),
            (60.0, 1.8),
            (3600.0, 1.8),
            (6.0 * 3600.0, 1.8),
            (15.0 * 3600.0, 1.8),
        ] {
            pass(age).await;
            let mut stream = None;
            let path = format!("/watch/{watch_code}?wait=60");
            let waiting = async {
                if wait {
                    assert_eq!(sidecar.api(get(&path)).await.status, 200);
                } else {
                    stream = Some(stream_of(&sidecar, &watch_code).await);
                    pass(59.5).await;
                }
            };
            let ((), arrivals) = tokio::join!(waiting, arrivals(&sidecar, 59));
            assert!((29..=60).contains(&arrivals.len()), "{}", arrivals.len());
            assert_distances(&arrivals, shortest, 2.0);
            // Nobody waits any more.
            drop(stream);
            pass(1.0).await;
            assert_eq!(calls_in(&sidecar, 600.0).await, 0);
        }
        sidecar.pay(&code);
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_background_a_payment_is_asked_at_a_tenth_of_its_age_until_it_is_given_up() {
    let sidecar = Sidecar::dev(&[
        ("watch.max_poll_interval", "10m"),
        ("watch.give_up_after", "24h"),
    ]);
    let (code, watch_code) = sidecar.started().await;
    let feed = feed(&sidecar).await;
    let first = arrivals(&sidecar, 9).await;
    assert_distances(&first, 1.0, 1.01);
    assert_eq!(first.len(), 9);
    // A tenth of 100 s, less a tenth at most.
    pass(91.0).await;
    assert_distances(&arrivals(&sidecar, 50).await, 9.0, 15.0);
    pass(850.0).await;
    assert_distances(&arrivals(&sidecar, 500).await, 90.0, 150.0);
    // About ln(6000 / 1500) / ln(1.1) up to the age of 6000 s, and from there on one in ten minutes or a little less.
    let calls = calls_in(&sidecar, 86_400.0 - 1500.0).await;
    assert!((140..=180).contains(&calls), "{calls}");
    // The one that was planned before then may come.
    assert!(calls_in(&sidecar, 600.0).await <= 1);
    assert_eq!(calls_in(&sidecar, 86_400.0).await, 0, "given up");
    assert_eq!(sidecar.followed(), 0);
    // Who asks still gets an answer, and the feed tells what came of it.
    sidecar.pay(&code);
    let answer = sidecar.watch(&watch_code).await;
    assert_eq!(
        (answer.text("status"), answer.header("cache-status")),
        ("completed", "tillgate; fwd=stale")
    );
    drop(feed);
}

#[tokio::test(start_paused = true)]
async fn the_interval_has_the_ceiling_that_is_set() {
    for (ceiling, seconds) in [("30s", 30.0), ("1s", 1.0), ("200ms", 0.2)] {
        let sidecar = Sidecar::dev(&[("watch.max_poll_interval", ceiling)]);
        sidecar.started().await;
        pass(7200.0).await;
        let feed = feed(&sidecar).await;
        pass(1.0).await;
        let calls = calls_in(&sidecar, seconds * 100.0).await;
        assert!((99..=112).contains(&calls), "{ceiling}: {calls}");
        drop(feed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_after_background_polling_has_ended_and_learns_from_who_asks() {
    let sidecar = Sidecar::dev(&[("watch.give_up_after", "10m")]);
    let (code, watch_code) = sidecar.started().await;
    let mut stream = stream_of(&sidecar, &watch_code).await;
    pass(605.0).await;
    assert_eq!(calls_in(&sidecar, 3600.0).await, 0);
    sidecar.pay(&code);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    assert_eq!(
        stream.event().now_or_never().unwrap().unwrap().json()["status"],
        "completed"
    );
    assert_eq!(stream.event().await, None);
    drop(stream);
}

/// Ten thousand open payments of that age with a reader of all, and one that somebody waits for.
async fn ten_thousand(age: f64) {
    let sidecar = Sidecar::dev(&[MANY[0], MANY[1], ("watch.poll_rate", "20")]);
    for _ in 0..10_000 {
        sidecar.started().await;
    }
    pass(age).await;
    let feed = feed(&sidecar).await;
    let calls = calls_in(&sidecar, 60.0).await;
    assert!((60 * 18..=60 * 20 + 20).contains(&calls), "{calls}");
    assert_eq!(sidecar.followed(), 10_000);

    let (code, watch_code) = sidecar.started().await;
    let path = format!("/watch/{watch_code}?wait=60");
    let from = Instant::now();
    let asked = sidecar.watch(&watch_code).await;
    assert_eq!(asked.header("cache-status"), "tillgate; fwd=uri-miss");
    assert!(
        from.elapsed() <= Duration::from_secs(1),
        "{:?}",
        from.elapsed()
    );
    let pay = async {
        pass(10.0).await;
        sidecar.pay(&code);
        Instant::now()
    };
    let seen = sidecar
        .api(get(&path))
        .map(|answer| (Instant::now(), answer));
    let (paid_at, (seen_at, answer)) = tokio::join!(pay, seen);
    let noticed = seen_at.saturating_duration_since(paid_at);
    assert_eq!(
        answer.text("status"),
        "completed",
        "not noticed within {noticed:?}"
    );
    assert!(noticed <= Duration::from_secs(5), "{noticed:?}");
    let busiest = sidecar.gateway_busiest_second();
    assert!((18..=20).contains(&busiest), "{busiest}");
    drop(feed);
    assert_eq!(sidecar.followed(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_waited_for_does_not_stand_in_line_behind_ten_thousand_old_ones() {
    ten_thousand(3600.0).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_waited_for_does_not_stand_in_line_behind_ten_thousand_young_ones() {
    ten_thousand(0.0).await;
}

/// How many seconds ago each was asked for, the newest payment first.
async fn ages(sidecar: &Sidecar) -> Vec<f64> {
    let answer = sidecar.api(get("/payments?limit=1000")).await.json();
    let now = jiff::Timestamp::now();
    let age = |payment: &Value| {
        let polled = payment["last_polled_at"]
            .as_str()
            .unwrap_or_else(|| panic!("never asked for: {payment}"));
        now.duration_since(polled.parse().unwrap()).as_secs_f64()
    };
    answer["payments"]
        .as_array()
        .unwrap()
        .iter()
        .map(age)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn however_many_there_are_each_comes_to_its_turn() {
    let sidecar = Sidecar::dev(&[MANY[0], MANY[1], ("watch.poll_rate", "5")]);
    // Of all ages, the oldest half a day.
    for i in 0..500 {
        sidecar.started().await;
        pass(if i < 250 { 170.0 } else { 0.1 }).await;
    }
    let feed = feed(&sidecar).await;
    pass(600.0).await;
    // A hundred seconds are the least that all of them take. None has to wait for several times its share, and the
    // young do not wait for the old.
    for _ in 0..5 {
        pass(313.0).await;
        let ages = ages(&sidecar).await;
        assert_eq!(ages.len(), 500);
        let oldest = ages.iter().copied().fold(0.0, f64::max);
        assert!(oldest < 1200.0, "{oldest} s");
        let young = ages[..250].iter().copied().fold(0.0, f64::max);
        assert!(young < 300.0, "{young} s");
    }
    assert_eq!(sidecar.gateway_busiest_second(), 5);
    drop(feed);
}

/// Asks for these paths, so many a second, whether they are answered or not. Never ends.
async fn flood(
    sidecar: &Sidecar,
    a_second: u32,
    header: &str,
    path: impl Fn(u32) -> String,
) -> Infallible {
    let mut questions = FuturesUnordered::new();
    let mut ticks = interval(Duration::from_secs(1) / a_second);
    let mut i = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                i += 1;
                let mut request = get(&path(i));
                request.headers_mut().insert("cache-control", header.parse().unwrap());
                questions.push(sidecar.api(request));
            }
            Some(_) = questions.next() => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_questions_leaves_turns_for_the_background() {
    for (header, of_its_own) in [("no-cache", true), ("max-age=0", false)] {
        let sidecar = Sidecar::dev(&[MANY[0], MANY[1], ("watch.poll_rate", "10")]);
        let mut others = Vec::new();
        for _ in 0..100 {
            let (_, other) = sidecar.started().await;
            sidecar.watch(&other).await;
            others.push(other);
        }
        let mut waited = Vec::new();
        for _ in 0..5 {
            let (code, watch_code) = sidecar.started().await;
            waited.push((code, stream_of(&sidecar, &watch_code).await));
        }
        // Five times what the budget has: unheard-of codes, or known ones.
        let path = |i: u32| match others.get(i as usize % 100).filter(|_| of_its_own) {
            Some(other) => format!("/watch/{other}"),
            None => format!("/watch/unheard-of-{i}"),
        };
        let told = async {
            for (code, stream) in &mut waited {
                pass(7.0).await;
                sidecar.pay(code);
                let from = Instant::now();
                assert_eq!(stream.event().await.unwrap().json()["status"], "completed");
                assert!(
                    from.elapsed() <= Duration::from_secs(4),
                    "{:?}",
                    from.elapsed()
                );
            }
        };
        tokio::select! {
            () = told => {}
            never = flood(&sidecar, 50, header, path) => match never {},
        }
        assert_eq!(sidecar.gateway_busiest_second(), 10);
        drop(waited);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_for_unheard_of_codes_leaves_turns_for_those_who_want_a_newer_answer() {
    let sidecar = Sidecar::dev(&[("watch.poll_rate", "10")]);
    let (_, code) = sidecar.started().await;
    assert_eq!(sidecar.watch(&code).await.status, 200);
    let fresh = async {
        for _ in 0..30 {
            pass(1.5).await;
            let answer = sidecar.watch(&code).await;
            assert_eq!(
                answer.header("cache-status"),
                "tillgate; fwd=stale",
                "{answer:?}"
            );
        }
    };
    tokio::select! {
        () = fresh => {}
        never = flood(&sidecar, 100, "x", |i| format!("/watch/unheard-of-{i}")) => match never {},
    }
    assert_eq!(sidecar.gateway_busiest_second(), 10);
}

#[tokio::test(start_paused = true)]
async fn the_poll_rate_holds_for_all_kinds_of_questions_together() {
    let settings = [
        MANY[0],
        MANY[1],
        ("watch.poll_rate", "7"),
        ("start.queue_for", "1s"),
    ];
    let sidecar = Sidecar::dev(&settings);
    let mut codes = Vec::new();
    for _ in 0..50 {
        codes.push(sidecar.started().await.1);
    }
    let feed = feed(&sidecar).await;
    let mut streams = Vec::new();
    for code in &codes[..10] {
        streams.push(sidecar.stream(&format!("/watch/{code}"), None).await);
    }
    let troubles = async {
        for faults in [
            &["watch:reset,rate=0.5"][..],
            &["watch:delay=900ms,rate=0.3", "watch:truncate,rate=0.1"],
            &["watch:status=500,rate=0.2", "watch:delay=20ms"],
            &["watch:hang,count=3"],
            &[],
        ] {
            sidecar.faults(faults);
            pass(31.7).await;
        }
    };
    let calls = async {
        tokio::join!(
            async {
                sidecar
                    .api(get(&format!("/watch/{}?wait=60", codes[20])))
                    .await
            },
            async {
                sidecar
                    .api(get(&format!("/watch/{}?wait=60", codes[0])))
                    .await
            },
        );
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(troubles, calls) } => {}
        never = flood(&sidecar, 3, "no-cache", |i| format!("/watch/{}", codes[i as usize % 50])) => match never {},
        never = flood(&sidecar, 3, "x", |i| format!("/watch/unheard-of-{i}")) => match never {},
    }
    assert_eq!(sidecar.gateway_busiest_second(), 7);
    drop((feed, streams));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_in_trouble_is_left_alone_and_comes_back_by_itself() {
    for fault in [
        "status=500",
        "status=503",
        "status=429,retry-after=30",
        "hang",
        "reset",
        "status=401",
    ] {
        let sidecar = Sidecar::dev(&MANY);
        let (code, watch_code) = sidecar.started().await;
        let mut stream = stream_of(&sidecar, &watch_code).await;
        for _ in 0..49 {
            sidecar.started().await;
        }
        let feed = feed(&sidecar).await;
        pass(10.0).await;
        sidecar.faults(&[&format!("watch:{fault}")]);
        let before = sidecar.gateway_watches();
        pass(30.0).await;
        let calls = calls_in(&sidecar, 600.0).await;
        // Twelve thousand within the budget; here repeats count too.
        assert!((5..=60).contains(&calls), "{fault}: {calls}");
        let all = sidecar.gateway_watches() - before;
        assert!(all <= 200, "{fault}: {all}");

        // Who has nothing to fall back on is not kept waiting for that.
        let (_, new) = sidecar.started().await;
        let before = sidecar.gateway_watches();
        let answer = sidecar.watch(&new).await;
        assert!(
            answer.status >= 500 && answer.text("error").starts_with("gateway_"),
            "{fault}: {answer:?}"
        );
        assert!(sidecar.gateway_watches() > before, "{fault}");

        sidecar.faults(&[]);
        sidecar.pay(&code);
        let from = Instant::now();
        assert_eq!(stream.event().await.unwrap().json()["status"], "completed");
        let took = from.elapsed();
        assert!(took <= Duration::from_secs(80), "{fault}: {took:?}");
        // And everything is as it was before.
        pass(120.0).await;
        let calls = calls_in(&sidecar, 60.0).await;
        assert!(calls >= 20, "{fault}: {calls}");
        drop((stream, feed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_asks_for_patience_gets_it() {
    for status in [429, 503] {
        let sidecar = Sidecar::dev(&MANY);
        for _ in 0..20 {
            sidecar.started().await;
        }
        let feed = feed(&sidecar).await;
        pass(5.0).await;
        sidecar.faults(&[&format!("watch:status={status},retry-after=30")]);
        // Those that were under way together.
        pass(2.0).await;
        let arrivals = arrivals(&sidecar, 400).await;
        // Thirty seconds and soon a minute: what it asks for, or what its failures add up to.
        assert!(
            (6..=14).contains(&arrivals.len()),
            "{status}: {}",
            arrivals.len()
        );
        assert_distances(&arrivals, 30.0, 60.0 * 1.1);
        drop(feed);
    }
}

#[tokio::test(start_paused = true)]
async fn no_patience_is_longer_than_five_minutes_and_who_has_no_answer_asks_all_the_same() {
    for status in [429, 503] {
        let sidecar = Sidecar::dev(&MANY);
        let (_, known) = sidecar.started().await;
        let feed = feed(&sidecar).await;
        pass(5.0).await;
        sidecar.faults(&[&format!("watch:status={status},retry-after=86400")]);
        pass(2.0).await;
        assert_eq!(calls_in(&sidecar, 290.0).await, 0, "{status}");
        let (_, new) = sidecar.started().await;
        let before = sidecar.gateway_watches();
        let answer = sidecar.watch(&new).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (if status == 429 { 503 } else { 502 }, "300")
        );
        assert_eq!(sidecar.gateway_watches(), before + 1, "{status}");
        // That answer asked for patience once more.
        let calls = calls_in(&sidecar, 340.0).await;
        assert!((1..=2).contains(&calls), "{status}: {calls}");
        sidecar.faults(&[]);
        pass(340.0).await;
        assert_eq!(sidecar.watch(&known).await.status, 200, "{status}");
        drop(feed);
    }
}

#[tokio::test(start_paused = true)]
async fn patience_that_is_asked_for_in_the_middle_of_a_pause_is_given_too() {
    for status in [429, 503] {
        let sidecar = Sidecar::dev(&MANY);
        let (_, code) = sidecar.started().await;
        let feed = feed(&sidecar).await;
        pass(5.0).await;
        // The background pauses for a second or a little more, and meanwhile somebody asks.
        sidecar.faults(&["watch:status=500,count=1"]);
        let before = sidecar.gateway_watches();
        settles_in(async || sidecar.gateway_watches() > before).await;
        pass(0.3).await;
        sidecar.faults(&[&format!("watch:status={status},retry-after=60")]);
        assert_eq!(
            sidecar
                .watch_with(&code, "cache-control", "no-cache")
                .await
                .status,
            200
        );
        assert_eq!(calls_in(&sidecar, 59.0).await, 0, "{status}");
        drop(feed);
    }
}

/// Lets time pass in small steps until this holds.
async fn settles_in(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..60_000 {
        if holds().await {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to that");
}

#[tokio::test(start_paused = true)]
async fn one_call_that_hangs_or_fails_does_not_slow_down_the_others() {
    for fault in ["hang", "status=404", "not-json", "missing-field", "huge"] {
        let sidecar = Sidecar::dev(&MANY);
        let (code, watch_code) = sidecar.started().await;
        let (_, bad) = sidecar.started().await;
        let mut stream = stream_of(&sidecar, &watch_code).await;
        assert_eq!(sidecar.watch(&bad).await.status, 200);
        pass(100.5).await;
        // Only of this one, again and again.
        let failing = async {
            let mut failed = 0;
            for _ in 0..20 {
                sidecar.faults(&[&format!("watch:{fault},count=1")]);
                let answer = sidecar.watch_with(&bad, "cache-control", "no-cache").await;
                // But for one that a poll of the other took, in the same moment.
                failed += usize::from(
                    answer
                        .header("cache-status")
                        .ends_with("detail=stale-if-error"),
                );
                pass(0.1).await;
            }
            assert!(failed >= 18, "{fault}: {failed}");
        };
        let before = sidecar.gateway_watches();
        let from = Instant::now();
        failing.await;
        pass(10.0).await;
        let calls = sidecar.gateway_watches() - before - 20;
        // A time-out could be the gateway's trouble: that costs a second or two each time.
        let least = from.elapsed().as_secs_f64() / if fault == "hang" { 4.0 } else { 2.1 };
        assert!(
            calls as f64 >= least.floor(),
            "{fault}: {calls} calls in {:?}",
            from.elapsed()
        );
        let from = Instant::now();
        sidecar.pay(&code);
        assert_eq!(stream.event().await.unwrap().json()["status"], "completed");
        assert!(
            from.elapsed() <= Duration::from_millis(2100),
            "{fault}: {:?}",
            from.elapsed()
        );
        drop(stream);
    }
}

#[tokio::test(start_paused = true)]
async fn a_payment_whose_answers_cannot_be_used_is_asked_less_and_less_often() {
    let sidecar = Sidecar::dev(&[]);
    let (code, watch_code) = sidecar.started().await;
    let mut stream = stream_of(&sidecar, &watch_code).await;
    sidecar.faults(&["watch:not-json"]);
    pass(100.0).await;
    // Somebody waits for it: at most ten seconds, at least nine tenths of them.
    assert_distances(&arrivals(&sidecar, 300).await, 9.0, 10.0);
    sidecar.faults(&[]);
    sidecar.pay(&code);
    let from = Instant::now();
    assert_eq!(stream.event().await.unwrap().json()["status"], "completed");
    assert!(
        from.elapsed() <= Duration::from_secs(11),
        "{:?}",
        from.elapsed()
    );
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn readers_who_come_and_go_do_not_make_a_payment_be_asked_more_than_once_a_second() {
    for fault in ["delay=1ms", "not-json"] {
        let sidecar = Sidecar::dev(&[]);
        sidecar.started().await;
        sidecar.faults(&[&format!("watch:{fault}")]);
        for _ in 0..50 {
            let feed = feed(&sidecar).await;
            pass(0.1).await;
            drop(feed);
        }
        let busiest = sidecar.gateway_busiest_second();
        assert!(busiest <= 2, "{fault}: {busiest}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_is_never_let_go_and_no_start_is_refused_for_it() {
    let sidecar = Sidecar::dev(&[MANY[0], MANY[1], ("watch.max_tracked", "2")]);
    let mut waited = Vec::new();
    for _ in 0..5 {
        let (code, watch_code) = sidecar.started().await;
        waited.push((code, stream_of(&sidecar, &watch_code).await));
    }
    let let_go = async || sidecar.metric("tillgate_payments_let_go_total").await;
    assert_eq!(let_go().await, 0);
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(sidecar.started().await.1);
    }
    // Each for the next; the last one is there still.
    assert_eq!(let_go().await, 9);
    let listed = sidecar.api(get("/payments")).await.json();
    assert_eq!(listed["payments"].as_array().unwrap().len(), 6);
    assert_eq!(listed["payments"][0]["watch_code"], others[9]);
    assert_eq!(sidecar.followed(), 5);
    // The gateway still knows those that were let go.
    assert_eq!(sidecar.watch(&others[0]).await.text("status"), "created");
    for (code, stream) in &mut waited {
        sidecar.pay(code);
        assert_eq!(stream.event().await.unwrap().json()["status"], "completed");
        assert_eq!(stream.event().await, None);
    }
    drop(waited);
    // Nobody waits any more: with the next starts it is two again.
    sidecar.started().await;
    assert_eq!(tracked(&sidecar).await, 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_only_asked_for_stays_too_while_somebody_waits_for_it() {
    let sidecar = Sidecar::dev(&[MANY[0], MANY[1], ("watch.max_tracked", "2")]);
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(sidecar.started().await.1);
    }
    // The gateway knows it, and it is not known any more that it was started here.
    let stream = stream_of(&sidecar, &codes[0]).await;
    let others = [
        stream_of(&sidecar, &codes[1]).await,
        stream_of(&sidecar, &codes[2]).await,
    ];
    drop(others);
    for _ in 0..5 {
        sidecar.started().await;
    }
    // From memory, whatever the gateway says.
    sidecar.faults(&["watch:status=500"]);
    assert_eq!(
        sidecar
            .watch_with(&codes[0], "cache-control", "no-cache")
            .await
            .status,
        200
    );
    assert_eq!(sidecar.watch(&codes[1]).await.status, 502);
    drop(stream);
}

/// Watch codes in memory.
async fn tracked(sidecar: &Sidecar) -> u64 {
    let metrics = sidecar.admin("/metrics").await.body;
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("tillgate_payments_tracked{"));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[tokio::test(start_paused = true)]
async fn what_is_only_asked_for_takes_no_more_room_than_there_is() {
    let gateway = Sidecar::dev(&[MANY[0], MANY[1], ("watch.max_tracked", "3")]);
    // Started here, and let go: as after a restart, the gateway knows them and we do not.
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(gateway.started().await.1);
    }
    assert_eq!(tracked(&gateway).await, 3);
    for code in &codes[..17] {
        assert_eq!(gateway.watch(code).await.text("status"), "created");
        assert_eq!(tracked(&gateway).await, 3, "{code}");
        pass(0.1).await;
    }
    // Those are the first to go.
    let mut new = Vec::new();
    for _ in 0..3 {
        new.insert(0, gateway.started().await.1);
    }
    assert_eq!(tracked(&gateway).await, 3);
    let listed = gateway.api(get("/payments")).await.json();
    let listed: Vec<_> = listed["payments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|payment| &payment["watch_code"])
        .collect();
    assert_eq!(listed, new.iter().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_was_let_go_is_not_polled_any_more_even_if_it_is_asked_for() {
    let sidecar = Sidecar::dev(&[MANY[0], MANY[1], ("watch.max_tracked", "3")]);
    let (_, first) = sidecar.started().await;
    let feed = feed(&sidecar).await;
    pass(100.0).await;
    for _ in 0..3 {
        sidecar.started().await;
    }
    assert_eq!(sidecar.watch(&first).await.text("status"), "created");
    pass(120.0).await;
    let listed = sidecar.api(get("/payments")).await.json();
    assert_eq!(
        sidecar.followed(),
        listed["payments"].as_array().unwrap().len()
    );
    drop(feed);
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_oldest_open_payment_is_told() {
    let sidecar = Sidecar::dev(&[]);
    let oldest = async || sidecar.metric("tillgate_oldest_open_payment_seconds").await;
    assert_eq!(oldest().await, 0);
    let (first, first_watch) = sidecar.started().await;
    pass(3600.0).await;
    let (second, second_watch) = sidecar.started().await;
    pass(60.0).await;
    assert_eq!(oldest().await, 3660);
    // Finished is what is known to be.
    sidecar.pay(&first);
    assert_eq!(oldest().await, 3660);
    sidecar.watch(&first_watch).await;
    assert_eq!(oldest().await, 60);
    sidecar.pay(&second);
    sidecar.watch(&second_watch).await;
    assert_eq!(oldest().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_under_way_when_its_waiter_leaves_ends_by_itself() {
    let sidecar = Sidecar::dev(&[]);
    let (_, code) = sidecar.started().await;
    let mut stream = stream_of(&sidecar, &code).await;
    sidecar.faults(&["watch:hang"]);
    let before = sidecar.gateway_watches();
    settles_in(async || sidecar.gateway_watches() > before).await;
    assert_eq!(stream.event().now_or_never(), None);
    drop(stream);
    let feed = feed(&sidecar).await;
    pass(1.0).await;
    assert_eq!(
        sidecar.gateway_watches(),
        before + 1,
        "the feed's call would be a second one"
    );
    drop(feed);
    settles(|| sidecar.followed() == 0).await;
}

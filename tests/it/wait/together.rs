//! Many who wait: what they share, what they leave to others, and what a shutdown tells them.

use super::*;

#[tokio::test(start_paused = true)]
async fn however_many_wait_for_a_payment_it_is_polled_once_and_all_hear_of_the_change() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let waits = join_all((0..1000).map(|_| timed(wait(&sidecar, &watch_code, "wait=60"))));
    let look_and_pay = async {
        pass(30.0).await;
        assert_eq!(waiters(&sidecar).await, 1000);
        assert_eq!(sidecar.followed(), 1);
        sidecar.pay(&code);
    };
    let (answers, ()) = tokio::join!(waits, look_and_pay);
    for (answer, took) in &answers {
        assert_status(answer, "completed");
        assert!(
            *took >= seconds(30.0) && *took < seconds(30.0) + POLL + SLACK,
            "{took:?}"
        );
    }
    // One every second, at most.
    let calls = sidecar.gateway_watches();
    assert!((15..=33).contains(&calls), "{calls}");
    assert_eq!(waiters(&sidecar).await, 0);
    pass(3600.0).await;
    assert_eq!(sidecar.gateway_watches(), calls);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_polled_for_those_who_have_gone() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    // In the middle of the wait.
    let mut waiting = Box::pin(wait(&sidecar, &code, "wait=60"));
    assert_waits(&mut waiting, 5.0).await;
    assert_eq!((sidecar.followed(), waiters(&sidecar).await), (1, 1));
    drop(waiting);
    assert_eq!((sidecar.followed(), waiters(&sidecar).await), (0, 0));
    let calls = sidecar.gateway_watches();
    sleep(3 * HOUR).await;
    assert_eq!(sidecar.gateway_watches(), calls);
    // While the first question is under way.
    sidecar.faults(&["watch:delay=3s"]);
    let mut waiting = Box::pin(wait(&sidecar, &code, "wait=60"));
    assert_waits(&mut waiting, 1.0).await;
    drop(waiting);
    sleep(3 * HOUR).await;
    assert_eq!(
        (sidecar.followed(), sidecar.gateway_watches()),
        (0, calls + 1)
    );
    // While it is polled.
    let mut waiting = Box::pin(wait(&sidecar, &code, "wait=60"));
    while sidecar.gateway_watches() < calls + 3 {
        assert_waits(&mut waiting, 0.1).await;
    }
    drop(waiting);
    sleep(3 * HOUR).await;
    assert_eq!(
        (sidecar.followed(), sidecar.gateway_watches()),
        (0, calls + 3)
    );
}

#[tokio::test(start_paused = true)]
async fn those_who_go_take_nothing_from_those_who_stay() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    let mut going: Vec<_> = (0..100)
        .map(|_| Box::pin(wait(&sidecar, &watch_code, "wait=60")))
        .collect();
    let mut staying: Vec<_> = (0..100)
        .map(|_| Box::pin(wait(&sidecar, &watch_code, "wait=60")))
        .collect();
    for one in going.iter_mut().chain(&mut staying) {
        assert!(one.now_or_never().is_none());
    }
    let all = join_all(staying);
    let go = async {
        // One after the other.
        for mut one in going {
            assert_waits(&mut one, 0.1).await;
        }
        assert_eq!(sidecar.followed(), 1);
        sidecar.pay(&code);
    };
    let ((answers, took), ()) = tokio::join!(timed(all), go);
    assert_eq!(answers.len(), 100);
    for answer in answers {
        assert_status(&answer, "completed");
    }
    assert!(took < seconds(10.0) + POLL + SLACK, "{took:?}");
}

/// When each call reached the gateway, to 10 ms.
async fn call_times(sidecar: &Sidecar, times: &mut Vec<Instant>) {
    let mut ticks = interval(Duration::from_millis(10));
    let mut seen = sidecar.gateway_watches();
    loop {
        let at = ticks.tick().await;
        let calls = sidecar.gateway_watches();
        times.extend((seen..calls).map(|_| at));
        seen = calls;
    }
}

#[tokio::test(start_paused = true)]
async fn while_somebody_waits_the_gateway_is_asked_at_most_every_second_and_at_least_every_two() {
    for age in [0.0, 300.0, 20.0 * 3600.0] {
        let sidecar = Sidecar::new();
        let (_, code) = sidecar.started().await;
        pass(age).await;
        let mut times = Vec::new();
        let client = async {
            let mut tag = String::from("*");
            for time in [25, 60, 1, 7, 1, 1, 60] {
                let answer = wait_from(&sidecar, &code, &format!("wait={time}"), &tag).await;
                assert_eq!(answer.status, 304, "{answer:?}");
                answer.header("etag").clone_into(&mut tag);
            }
        };
        tokio::select! {
            biased;
            () = call_times(&sidecar, &mut times) => {}
            () = client => {}
        }
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.len() > 70, "{gaps:?}");
        let (at_least, at_most) = (seconds(1.0) - SLACK, POLL + SLACK);
        assert!(
            gaps.iter().all(|gap| (at_least..=at_most).contains(gap)),
            "{age}: {gaps:?}"
        );
    }
}

/// How long after each other the gateway is asked during a wait while this goes wrong.
async fn gaps_with(fault: &str, known: bool) -> Vec<Duration> {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    if known {
        sidecar.watch(&code).await;
    }
    pass(30.0).await;
    sidecar.faults(&[&format!("watch:{fault}")]);
    let mut times = Vec::new();
    tokio::select! {
        biased;
        () = call_times(&sidecar, &mut times) => {}
        _ = wait_from(&sidecar, &code, "wait=60", "*") => {}
    }
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(!gaps.is_empty(), "{fault}: it is not asked again");
    gaps
}

/// Those that another payment's question would meet too, and that are not repeated within a call.
const TROUBLE: [&str; 5] = [
    "status=500",
    "status=503,retry-after=3",
    "status=429",
    "status=401",
    "hang",
];

/// Those about one payment.
const OF_ONE_PAYMENT: [&str; 4] = ["status=404", "not-json", "missing-field", "redirect"];

#[tokio::test(start_paused = true)]
async fn a_payment_that_the_gateway_will_not_tell_of_is_not_asked_for_twice_in_a_second() {
    let unknown = TROUBLE
        .into_iter()
        .chain(OF_ONE_PAYMENT)
        .map(|fault| (fault, false));
    for (fault, known) in TROUBLE
        .into_iter()
        .map(|fault| (fault, true))
        .chain(unknown)
    {
        let gaps = gaps_with(fault, known).await;
        assert!(
            gaps.iter().all(|gap| *gap >= seconds(1.0) - SLACK),
            "{fault}, {known}: {gaps:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_payment_of_which_something_old_is_known_is_not_asked_for_twice_in_a_second_either() {
    for fault in OF_ONE_PAYMENT {
        let gaps = gaps_with(fault, true).await;
        assert!(
            gaps.iter().all(|gap| *gap >= seconds(1.0) - SLACK),
            "{fault}: {gaps:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_asks_for_patience_is_not_polled_for_those_who_wait() {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    sidecar.watch(&watch_code).await;
    pass(5.0).await;
    sidecar.faults(&["watch:status=429,retry-after=40,count=1"]);
    let waiting = timed(wait(&sidecar, &watch_code, "wait=60"));
    let look = async {
        pass(1.0).await;
        sidecar.pay(&code);
        pass(38.9).await;
        assert_eq!(sidecar.gateway_watches(), 2);
    };
    let ((answer, took), ()) = tokio::join!(waiting, look);
    assert_status(&answer, "completed");
    assert!(took >= seconds(40.0) && took < seconds(46.0), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_leave_a_quarter_of_the_connections_to_others() {
    for (connections, seats) in [("8", 6), ("10", 7), ("2", 1), ("1", 1)] {
        let sidecar = Sidecar::with(&[
            ("listen.max_connections", connections),
            ("watch.fresh_for", "1h"),
        ]);
        let (_, code) = sidecar.started().await;
        let (paid, paid_watch_code) = sidecar.started().await;
        sidecar.pay(&paid);
        let first = sidecar.watch(&code).await;
        // Streams and waits together.
        let path = format!("/watch/{code}");
        let streams = join_all((0..seats / 2).map(|_| sidecar.stream(&path, None))).await;
        assert!(streams.iter().all(|stream| stream.status == 200));
        let mut waits: Vec<_> = (streams.len()..seats)
            .map(|_| Box::pin(wait(&sidecar, &code, "wait=60")))
            .collect();
        for waiting in &mut waits {
            assert_waits(waiting, 0.1).await;
        }
        assert_eq!(waiters(&sidecar).await, waits.len() as u64);
        for tag in ["*", first.header("etag")] {
            let (refused, took) = timed(wait_from(&sidecar, &code, "wait=60", tag)).await;
            assert_error(&refused, 503, "overloaded");
            assert_eq!(refused.json()["retryable"], true);
            assert!(
                refused
                    .header("retry-after")
                    .parse::<u64>()
                    .expect("whole seconds")
                    >= 1
            );
            assert_about(took, 0.0);
        }
        assert_error(&wait(&sidecar, &code, "wait=1").await, 503, "overloaded");
        let refused = sidecar.stream(&path, None).await;
        assert_eq!(
            (
                refused.status,
                refused.headers["retry-after"].to_str().unwrap()
            ),
            (503, "1")
        );
        drop(refused);
        // What is answered at once needs no seat.
        assert_status(
            &wait_from(&sidecar, &code, "wait=60", "\"other\"").await,
            "created",
        );
        assert_status(
            &wait(&sidecar, &paid_watch_code, "wait=60").await,
            "completed",
        );
        assert_eq!(wait(&sidecar, &code, "wait=0").await.status, 200);
        assert_error(
            &wait(&sidecar, "unheard-of", "wait=60").await,
            404,
            "unknown_watch_code",
        );
        assert_error(&wait(&sidecar, &code, "wait=x").await, 400, "invalid_wait");
        assert_status(&sidecar.watch(&code).await, "created");
        // Who goes makes room.
        drop(waits.pop());
        let (answer, took) = timed(wait(&sidecar, &code, "wait=5")).await;
        assert_status(&answer, "created");
        assert_about(took, 5.0);
        drop((waits, streams));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_answers_all_who_wait_with_what_is_known() {
    for fault in ["delay=1ms", "hang", "status=500"] {
        let sidecar = Sidecar::new();
        let (_, code) = sidecar.started().await;
        let first = sidecar.watch(&code).await;
        sidecar.faults(&[&format!("watch:{fault}")]);
        // For "hang" the first question is under way, for the others it was answered, or failed.
        pass(5.0).await;
        let mut without = Box::pin(wait(&sidecar, &code, "wait=60"));
        let mut with = Box::pin(wait_from(&sidecar, &code, "wait=60", first.header("etag")));
        for waiting in [
            &mut without as &mut (dyn Future<Output = Answer> + Unpin),
            &mut with,
        ] {
            assert!(timeout(seconds(2.0), waiting).await.is_err(), "{fault}");
        }
        sidecar.drain();
        let ((without, with), took) = timed(async { tokio::join!(without, with) }).await;
        assert_about(took, 0.0);
        assert_eq!(
            (without.status, &without.body),
            (200, &first.body),
            "{fault}"
        );
        assert_eq!(
            (with.status, with.header("etag")),
            (304, first.header("etag")),
            "{fault}"
        );
        assert_eq!(with.header("connection"), "close");
        assert_eq!(sidecar.followed(), 0);
        let calls = sidecar.gateway_watches();
        assert_error(&wait(&sidecar, &code, "wait=60").await, 503, "draining");
        pass(3600.0).await;
        assert_eq!(sidecar.gateway_watches(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_what_is_told_where_nothing_is_known() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:hang"]);
    let mut waits: Vec<_> = (0..10)
        .map(|_| Box::pin(wait(&sidecar, &code, "wait=60")))
        .collect();
    for waiting in &mut waits {
        assert_waits(waiting, 0.1).await;
    }
    sidecar.drain();
    let (answers, took) = timed(join_all(waits)).await;
    assert_about(took, 0.0);
    for answer in answers {
        assert_error(&answer, 503, "draining");
        assert!(
            answer
                .header("retry-after")
                .parse::<u64>()
                .expect("whole seconds")
                >= 1
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_what_is_told_where_only_failures_are_known() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:status=500"]);
    let mut waiting = Box::pin(wait(&sidecar, &code, "wait=60"));
    assert_waits(&mut waiting, 20.0).await;
    sidecar.drain();
    let (answer, took) = timed(waiting).await;
    assert_about(took, 0.0);
    assert_error(&answer, 503, "draining");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_wait_whose_time_is_over() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    sidecar.faults(&["watch:hang"]);
    let mut waiting = Box::pin(wait(&sidecar, &code, "wait=1"));
    // Nothing is known that could be answered at its end.
    assert_waits(&mut waiting, 3.0).await;
    sidecar.drain();
    let (answer, took) = timed(waiting).await;
    assert_about(took, 0.0);
    assert_error(&answer, 503, "draining");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_will_not_have_it_from_memory_is_told_at_once_what_the_gateway_says() {
    let sidecar = Sidecar::with(&[("watch.fresh_for", "1h"), ("watch.max_wait", "10m")]);
    let (code, watch_code) = sidecar.started().await;
    let first = sidecar.watch(&watch_code).await;
    let tag = first.header("etag");
    let forced = [("if-none-match", tag), ("cache-control", "no-cache")];
    let calls = sidecar.gateway_watches();
    let mut waiting = Box::pin(wait_with(&sidecar, &watch_code, "wait=10", &forced));
    assert_waits(&mut waiting, 0.1).await;
    assert_eq!(sidecar.gateway_watches(), calls + 1);
    let (answer, took) = timed(waiting).await;
    assert_eq!(answer.status, 304, "{answer:?}");
    assert_about(took, 9.9);
    sidecar.pay(&code);
    let (answer, took) = timed(wait_with(&sidecar, &watch_code, "wait=60", &forced)).await;
    assert_status(&answer, "completed");
    assert_about(took, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_the_guide_does_not_know_is_a_change_and_not_the_end() {
    let sidecar = Sidecar::with(&[("watch.max_wait", "60s")]);
    let (code, watch_code) = sidecar.started().await;
    let hold = || sidecar.faults(&["watch:unknown-status"]);
    let (on_hold, took) = timed_while(wait(&sidecar, &watch_code, "wait=60"), 10.0, hold).await;
    assert_status(&on_hold, "on_hold");
    assert!(
        took >= seconds(10.0) && took < seconds(10.0) + POLL + SLACK,
        "{took:?}"
    );
    // It may last.
    let (answer, took) = timed(wait_from(
        &sidecar,
        &watch_code,
        "wait=60",
        on_hold.header("etag"),
    ))
    .await;
    assert_eq!(answer.status, 304, "{answer:?}");
    assert_about(took, 60.0);
    // Back to what it was.
    let waiting = wait_from(&sidecar, &watch_code, "wait=60", on_hold.header("etag"));
    let (created, _) = timed_while(waiting, 10.0, || sidecar.faults(&[])).await;
    assert_status(&created, "created");
    let (paid, _) = timed_while(wait(&sidecar, &watch_code, "wait=60"), 10.0, || {
        sidecar.pay(&code)
    })
    .await;
    assert_status(&paid, "completed");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_while_others_wait_joins_the_call_that_is_under_way_and_tells_them_what_is_new()
 {
    let sidecar = Sidecar::new();
    let (code, watch_code) = sidecar.started().await;
    sidecar.faults(&["watch:delay=3s,count=2"]);
    let waits = join_all((0..50).map(|_| wait(&sidecar, &watch_code, "wait=60")));
    let asks = async {
        // The first question was answered, and the first poll is under way.
        while sidecar.gateway_watches() < 2 {
            pass(0.1).await;
        }
        pass(1.5).await;
        let plain = (0..50).map(|_| sidecar.watch(&watch_code).boxed_local());
        let forced = (0..50).map(|_| {
            sidecar
                .watch_with(&watch_code, "cache-control", "no-cache")
                .boxed_local()
        });
        let look = async {
            pass(1.0).await;
            assert_eq!(sidecar.gateway_watches(), 2);
        };
        let (answers, ()) = tokio::join!(join_all(plain.chain(forced)), look);
        for answer in answers {
            assert_status(&answer, "created");
            assert_eq!(
                answer.header("cache-status"),
                "tillgate; fwd=stale; collapsed"
            );
        }
        pass(0.5).await;
        sidecar.pay(&code);
        assert_status(
            &sidecar
                .watch_with(&watch_code, "cache-control", "no-cache")
                .await,
            "completed",
        );
        Instant::now()
    };
    let waits = async {
        let answers = waits.await;
        (answers, Instant::now())
    };
    let ((answers, answered), learned) = tokio::join!(waits, asks);
    for answer in answers {
        assert_status(&answer, "completed");
    }
    assert_eq!(answered, learned);
}

#[tokio::test(start_paused = true)]
async fn what_another_caller_learns_is_told_to_those_who_wait_even_when_nothing_is_polled_any_more()
{
    let sidecar = Sidecar::with(&[("watch.give_up_after", "1m")]);
    let (code, watch_code) = sidecar.started().await;
    pass(120.0).await;
    let asks = async {
        pass(10.0).await;
        // Its own question, and no poll.
        assert_eq!(sidecar.gateway_watches(), 1);
        sidecar.pay(&code);
        pass(20.0).await;
        assert_eq!(sidecar.gateway_watches(), 1);
        assert_status(&sidecar.watch(&watch_code).await, "completed");
    };
    let ((answer, took), ()) = tokio::join!(timed(wait(&sidecar, &watch_code, "wait=60")), asks);
    assert_status(&answer, "completed");
    assert_about(took, 30.0);
}

#[tokio::test(start_paused = true)]
async fn many_who_wait_for_many_payments_share_the_budget() {
    let settings = [
        ("watch.poll_rate", "5"),
        ("start.burst", "100"),
        ("watch.max_wait", "5m"),
        ("gateway.timeout", "60s"),
    ];
    let sidecar = Sidecar::with(&settings);
    let mut payments = Vec::new();
    for _ in 0..40 {
        payments.push(sidecar.started().await);
    }
    let mut times = Vec::new();
    let all = async {
        let waits = join_all(
            payments
                .iter()
                .map(|(_, watch_code)| timed(wait(&sidecar, watch_code, "wait=300"))),
        );
        let pay = async {
            pass(60.0).await;
            assert_eq!(sidecar.followed(), 40);
            for (code, _) in &payments {
                sidecar.pay(code);
            }
        };
        let (answers, ()) = tokio::join!(waits, pay);
        for (answer, took) in answers {
            assert_status(&answer, "completed");
            // Eight seconds for a round of all of them; nobody is left out for long.
            assert!(
                took >= seconds(60.0) && took < seconds(60.0 + 3.0 * 8.0),
                "{took:?}"
            );
        }
    };
    tokio::select! {
        biased;
        () = call_times(&sidecar, &mut times) => {}
        () = all => {}
    }
    for window in times.windows(6) {
        assert!(
            window[5] - window[0] >= seconds(1.0) - SLACK,
            "six calls in a second"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_somebody_waits_for_is_not_let_go() {
    let sidecar = Sidecar::with(&[("watch.max_tracked", "1")]);
    let (code, watch_code) = sidecar.started().await;
    let others = async {
        pass(3.0).await;
        for _ in 0..5 {
            let (_, other) = sidecar.started().await;
            assert_status(&sidecar.watch(&other).await, "created");
        }
        // Known still: this is a failure, and no unheard-of code.
        sidecar.faults(&["watch:status=404"]);
        assert_status(
            &sidecar
                .watch_with(&watch_code, "cache-control", "no-cache")
                .await,
            "created",
        );
        pass(10.0).await;
        sidecar.faults(&[]);
        sidecar.pay(&code);
    };
    let ((answer, took), ()) = tokio::join!(timed(wait(&sidecar, &watch_code, "wait=60")), others);
    assert_status(&answer, "completed");
    assert!(took >= seconds(13.0) && took < seconds(50.0), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_code_that_was_heard_of_after_all_is_unheard_of_no_more() {
    let sidecar = Sidecar::with(&[("watch.max_tracked", "1"), ("watch.fresh_for", "100ms")]);
    let (_, code) = sidecar.started().await;
    // Let go for another.
    sidecar.started().await;
    sidecar.faults(&["watch:status=404,count=1"]);
    assert_error(&sidecar.watch(&code).await, 404, "unknown_watch_code");
    assert_status(
        &sidecar.watch_with(&code, "cache-control", "no-cache").await,
        "created",
    );
    pass(1.0).await;
    assert_status(&sidecar.watch(&code).await, "created");
    let (answer, took) = timed(wait(&sidecar, &code, "wait=2")).await;
    assert_status(&answer, "created");
    assert_about(took, 2.0);
}

#[tokio::test(start_paused = true)]
async fn no_more_codes_are_kept_than_there_is_room_for() {
    let sidecar = Sidecar::with(&[("watch.max_tracked", "2")]);
    let mut codes = Vec::new();
    for _ in 0..10 {
        codes.push(sidecar.started().await.1);
    }
    for code in &codes {
        assert_status(&wait(&sidecar, code, "wait=1").await, "created");
        let kept = sidecar
            .metric("tillgate_payments_tracked{status=\"created\"}")
            .await;
        assert_eq!(kept, 2);
    }
}

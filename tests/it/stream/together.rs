//! Many streams: what they share, and that nothing of them is left.

use super::*;

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
    // The question was not sent yet, and is not sent any more.
    gone(calls + 3).await;
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

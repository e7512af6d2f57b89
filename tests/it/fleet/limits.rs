//! `start.rate`, `start.burst` and `watch.poll_rate` are those of the fleet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::replica::{codes, order};
use super::{Fleet, MANY, USER, until};

#[tokio::test]
async fn the_burst_is_that_of_the_fleet_whichever_replicas_use_it() {
    // Nothing is filled up again within the test.
    let settings = [
        ("start.rate", "0.001"),
        ("start.burst", "10"),
        ("start.queue_for", "0s"),
    ];
    let Some(fleet) = Fleet::new(3, &settings).await else {
        return;
    };
    // One may have more than its share of it.
    for _ in 0..7 {
        codes(&fleet[0].start(None, &order(1000)).await);
    }
    let body = order(1000);
    let starts = (0..8).map(|_| fleet[1].start(None, &body));
    let answers = join_all(starts).await;
    let started = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(started, 3, "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        let found = (answer.status, answer.text("error"), answer.text("outcome"));
        assert_eq!(found, (429, "rate_limited", "not_sent"), "{answer:?}");
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 100);
    }
    for replica in &fleet.replicas {
        assert_eq!(replica.start(None, &order(1000)).await.status, 429);
    }
    assert_eq!(fleet.gateway.starts(), 10);
}

#[tokio::test]
async fn starts_through_three_replicas_stay_within_the_rate() {
    let settings = [("start.rate", "20"), ("start.burst", "10")];
    let Some(fleet) = Fleet::new(3, &settings).await else {
        return;
    };
    let (began, is_over) = (Instant::now(), AtomicBool::new(false));
    let hammer = async |number: usize| {
        let mut refused = 0;
        while !is_over.load(Ordering::Relaxed) {
            let answer = fleet[number % 3].start(None, &order(1000)).await;
            match answer.status {
                200 => {}
                429 => refused += 1,
                // The machine is too busy for the database to answer in time.
                503 => assert_eq!(answer.text("error"), "store_unavailable", "{answer:?}"),
                _ => panic!("{answer:?}"),
            }
        }
        refused
    };
    // More than find a place in the queue of two seconds.
    let (refused, ()) = tokio::join!(join_all((0..90).map(hammer)), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        is_over.store(true, Ordering::Relaxed);
    });
    let (started, seconds) = (fleet.gateway.starts(), began.elapsed().as_secs_f64());
    let refused: usize = refused.into_iter().sum();
    assert!(refused > 0, "{started} starts in {seconds} s, none refused");
    let most = 10.0 + 20.0 * seconds;
    assert!(
        started as f64 <= most,
        "{started} starts in {seconds} s, at most {most}"
    );
}

#[tokio::test]
async fn turns_that_a_replica_slept_through_are_void() {
    let settings = [
        ("start.rate", "0.5"),
        ("start.burst", "1"),
        ("start.queue_for", "8s"),
        ("gateway.timeout", "60s"),
    ];
    let Some(fleet) = Fleet::new(2, &settings).await else {
        return;
    };
    let body = order(1000);
    let queued = join_all((0..4).map(|_| fleet[0].start(None, &body)));
    let sleep = async {
        until("the first start", async || {
            (fleet.gateway.starts() > 0).then_some(())
        })
        .await;
        fleet[0].pause();
        // A turn that comes after all of those.
        let before = fleet.gateway.starts();
        while fleet.gateway.starts() == before {
            let answer = fleet[1].start(None, &body).await;
            assert!(matches!(answer.status, 200 | 429), "{answer:?}");
        }
        fleet[0].resume();
    };
    let (answers, ()) = tokio::join!(queued, sleep);
    for answer in answers {
        // What was under way when it fell asleep may have taken too long.
        assert!(matches!(answer.status, 200 | 429 | 503), "{answer:?}");
    }
    // However long each was on its way on a busy machine: two seconds are allowed for that.
    let calls = fleet.gateway.calls();
    let starts = calls.iter().filter(|call| call.watch_code.is_none());
    let starts: Vec<_> = starts.map(|call| call.at).collect();
    for (first, begin) in starts.iter().enumerate() {
        for (last, end) in starts.iter().enumerate().skip(first) {
            let (number, seconds) = (last - first + 1, (*end - *begin).as_secs_f64());
            let most = 1.0 + 0.5 * (seconds + 2.0);
            assert!(number as f64 <= most, "{number} starts in {seconds} s");
        }
    }
}

/// Code and watch code of payments that are started on all replicas.
async fn thirty_payments(fleet: &Fleet) -> Vec<(String, String)> {
    let starts = (0..30).map(|number| fleet[number % 3].started(1000));
    join_all(starts).await
}

/// Three callers wait for each payment. All are paid once each was polled `polls` times. Returns the most polls that there
/// were within a second.
async fn polls_while_ninety_wait(
    fleet: &Fleet,
    payments: &[(String, String)],
    polls: usize,
) -> u64 {
    let wait = async |number: usize| {
        let watch_code = &payments[number / 3].1;
        fleet[number % 3].waits_for_completion(watch_code).await;
    };
    let pay = async {
        until("calls of all payments", async || {
            let all = payments
                .iter()
                .all(|(_, watch_code)| fleet.gateway.watches(watch_code) >= polls);
            all.then_some(())
        })
        .await;
        for (code, _) in payments {
            fleet.gateway.pay(code).await;
        }
    };
    tokio::join!(join_all((0..90).map(wait)), pay);
    let (_, most) = fleet.gateway.busiest_second().await;
    most
}

#[tokio::test]
async fn ninety_waiters_on_three_replicas_never_ask_more_than_ten_times_a_second() {
    let settings = [
        ("start.rate", "1000000"),
        ("start.burst", "100000"),
        ("watch.poll_rate", "10"),
    ];
    let Some(fleet) = Fleet::new(3, &settings).await else {
        return;
    };
    let payments = thirty_payments(&fleet).await;
    // Everyone waits, and everything was asked for once.
    let most = polls_while_ninety_wait(&fleet, &payments, 1).await;
    assert!(most <= 10, "{most} polls within a second");
}

#[tokio::test]
async fn what_is_waited_for_is_polled_when_other_payments_have_every_place_but_the_first_fifth() {
    let settings = [("watch.poll_rate", "10")];
    let Some(fleet) = Fleet::new(2, &settings).await else {
        return;
    };
    let (code, watch_code) = fleet[0].started(1000).await;
    let mut taking = fleet.server.connect(USER).await;
    let others = taking.transaction().await.unwrap();
    let taken = "select n from tillgate.places where n > 2 for update";
    assert_eq!(others.query(taken, &[]).await.unwrap().len(), 8);
    let pay = async {
        until("many calls", async || {
            (fleet.gateway.watches(&watch_code) >= 4).then_some(())
        })
        .await;
        fleet.gateway.pay(&code).await;
    };
    tokio::join!(fleet[0].waits_for_completion(&watch_code), pay);
}

#[tokio::test]
async fn a_payment_that_is_waited_for_on_three_replicas_is_polled_as_by_one() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    let starts = (0..8).map(|number| fleet[number % 3].started(1000));
    let payments = join_all(starts).await;
    let (by_one, by_all) = payments.split_at(4);
    let calls = |payments: &[(String, String)]| {
        let watches = payments
            .iter()
            .map(|(_, watch_code)| fleet.gateway.watches(watch_code));
        watches.sum::<usize>()
    };
    let wait_at = async |replica: usize, watch_code: &str| {
        fleet[replica].waits_for_completion(watch_code).await;
    };
    let ones = by_one.iter().zip(0..).map(|(payment, i)| (i % 3, payment));
    let alls = by_all
        .iter()
        .flat_map(|payment| (0..3).map(move |i| (i, payment)));
    let waits = ones
        .chain(alls)
        .map(|(replica, (_, watch_code))| wait_at(replica, watch_code));
    let pay = async {
        until("many calls", async || (calls(by_one) >= 40).then_some(())).await;
        let polled = (calls(by_one), calls(by_all));
        for (code, _) in &payments {
            fleet.gateway.pay(code).await;
        }
        polled
    };
    let (_, (by_one, by_all)) = tokio::join!(join_all(waits), pay);
    // Three times as many would be theirs if each asked for itself. The moments are random.
    assert!(
        by_all <= by_one + by_one / 3,
        "{by_all} calls where three wait, {by_one} where one does"
    );
}

#[tokio::test]
async fn a_fleet_with_a_replica_that_is_cut_off_polls_less_than_twice_as_often() {
    let settings = [
        ("start.rate", "1000000"),
        ("start.burst", "100000"),
        ("watch.poll_rate", "12"),
    ];
    let Some(fleet) = Fleet::new(3, &settings).await else {
        return;
    };
    let payments = thirty_payments(&fleet).await;
    fleet[0].proxy.close();
    fleet[0].has_store(false).await;
    let most = polls_while_ninety_wait(&fleet, &payments, 2).await;
    // Those that are left have all of it, and the one that knows nothing of theirs a third of it.
    assert!(most < 24, "{most} polls within a second");
}

//! One key and one reference have one payment, whichever replicas are asked, killed or paused.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::postgres::Options;
use super::replica::{codes, order, order_of};
use super::{Fleet, MANY, in_time, until};
use crate::harness::Answer;

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == "true"
}

/// The one code that all of these show.
#[track_caller]
fn one_code(answers: &[Answer]) -> String {
    let shown: HashSet<_> = answers.iter().map(|answer| codes(answer).0).collect();
    assert_eq!(shown.len(), 1, "{shown:?}");
    shown.into_iter().next().expect("one")
}

/// All replicas list these codes and no others.
async fn assert_listed(fleet: &Fleet, expected: &[&str]) {
    for replica in &fleet.replicas {
        until(&format!("{} lists them", replica.name), async || {
            let listed = replica.payments().await;
            let listed: HashSet<_> = listed
                .iter()
                .map(|payment| payment["code"].as_str().unwrap().to_owned())
                .collect();
            let expected: HashSet<_> = expected.iter().map(|code| (*code).to_owned()).collect();
            (listed == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn sixty_starts_of_one_key_on_three_replicas_at_once_show_one_code() {
    let Some(fleet) = Fleet::new(3, &[]).await else {
        return;
    };
    // Long enough for all of them to come while the first runs.
    fleet.gateway.faults(&["start:delay=500ms"]).await;
    let body = order(1000);
    let starts = (0..60).map(|number| fleet[number % 3].start(Some("order-1"), &body));
    let code = one_code(&join_all(starts).await);
    assert!(fleet.gateway.starts() <= 2, "{}", fleet.gateway.starts());
    for replica in &fleet.replicas {
        let again = replica.start(Some("order-1"), &body).await;
        assert_eq!((codes(&again).0, is_replayed(&again)), (code.clone(), true));
    }
    assert_listed(&fleet, &[&code]).await;
}

#[tokio::test]
async fn sixty_starts_of_one_reference_on_three_replicas_at_once_show_one_code() {
    let Some(fleet) = Fleet::new(3, &[]).await else {
        return;
    };
    fleet.gateway.faults(&["start:delay=500ms"]).await;
    let body = order_of("7", 1000);
    let keys: Vec<_> = (0..60).map(|number| format!("order-{number}")).collect();
    // Some with a key of their own.
    let key = |number: usize| number.is_multiple_of(4).then(|| keys[number].as_str());
    let starts = (0..60).map(|number| fleet[number % 3].start(key(number), &body));
    let code = one_code(&join_all(starts).await);
    assert!(fleet.gateway.starts() <= 2, "{}", fleet.gateway.starts());
    // Each of those keys has kept it, for all replicas.
    for (number, replica) in fleet.replicas.iter().enumerate() {
        let again = replica.start(Some(&keys[4 * number]), &body).await;
        assert_eq!((codes(&again).0, is_replayed(&again)), (code.clone(), true));
    }
    assert_listed(&fleet, &[&code]).await;
}

#[tokio::test]
async fn many_keys_at_once_on_all_replicas_have_a_payment_each() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    let starts = (0..90).map(async |number: usize| {
        let key = format!("order-{}", number / 3);
        let started = fleet[number % 3].start(Some(&key), &order(1000)).await;
        (key, codes(&started).0)
    });
    let shown: HashSet<_> = join_all(starts).await.into_iter().collect();
    assert_eq!(shown.len(), 30, "{shown:?}");
    let shown: Vec<_> = shown.iter().map(|(_, code)| code.as_str()).collect();
    assert_listed(&fleet, &shown).await;
}

#[tokio::test]
async fn one_key_with_two_requests_on_two_replicas_is_one_payment_and_one_mismatch() {
    let Some(fleet) = Fleet::new(2, &[]).await else {
        return;
    };
    for round in 0..5 {
        let key = format!("order-{round}");
        let (mine, other) = (order(1000), order(1001));
        let answers = tokio::join!(
            fleet[0].start(Some(&key), &mine),
            fleet[1].start(Some(&key), &other)
        );
        let [good, bad] = if answers.0.status == 200 {
            [&answers.0, &answers.1]
        } else {
            [&answers.1, &answers.0]
        };
        let (code, watch_code) = codes(good);
        assert_eq!(bad.status, 422, "{answers:?}");
        assert_eq!(bad.text("error"), "idempotency_mismatch", "{bad:?}");
        assert!(!bad.body.contains(&code), "{bad:?}");
        // And for good, on both.
        let taken = if answers.0.status == 200 { 1000 } else { 1001 };
        for replica in &fleet.replicas {
            let again = replica.start(Some(&key), &order(taken)).await;
            assert_eq!(codes(&again), (code.clone(), watch_code.clone()));
            let other = replica.start(Some(&key), &order(2001 - taken)).await;
            assert_eq!(other.status, 422, "{other:?}");
        }
    }
}

#[tokio::test]
async fn a_reference_whose_payment_another_replica_saw_paid_is_paid() {
    let Some(fleet) = Fleet::new(2, &[]).await else {
        return;
    };
    let started = fleet[0].start(None, &order_of("7", 1000)).await;
    let (code, watch_code) = codes(&started);
    let mismatch = fleet[1].start(None, &order_of("7", 1200)).await;
    let found = (mismatch.status, mismatch.text("error"));
    assert_eq!(found, (422, "reference_mismatch"), "{mismatch:?}");
    assert_eq!(mismatch.text("watch_code"), watch_code);
    fleet.gateway.pay(&code).await;
    fleet[0].waits_for_completion(&watch_code).await;
    until("the other knows that it is paid", async || {
        let paid = fleet[1].start(None, &order_of("7", 1000)).await;
        if paid.status == 200 {
            assert_eq!(paid.text("code"), code);
            return None;
        }
        let found = (paid.status, paid.text("error"), paid.text("watch_code"));
        assert_eq!(found, (409, "reference_paid", &*watch_code), "{paid:?}");
        Some(())
    })
    .await;
    assert_eq!(fleet.gateway.starts(), 1);
}

#[tokio::test]
async fn a_start_that_fails_on_one_replica_leaves_its_key_free_for_all() {
    let Some(fleet) = Fleet::new(3, &[]).await else {
        return;
    };
    fleet.gateway.faults(&["start:status=500"]).await;
    for replica in &fleet.replicas {
        let failed = replica.start(Some("order-1"), &order(1000)).await;
        let found = (failed.status, failed.text("error"));
        assert_eq!(found, (502, "gateway_bad_answer"), "{failed:?}");
    }
    fleet.gateway.faults(&[]).await;
    // With another request, too.
    let started = fleet[0].start(Some("order-1"), &order(1001)).await;
    assert!(!is_replayed(&started));
    let again = fleet[2].start(Some("order-1"), &order(1001)).await;
    assert_eq!(codes(&again), codes(&started));
}

/// A start on the first replica that the gateway has and does not answer yet.
async fn begin<'a>(fleet: &'a Fleet, body: &'a str) -> impl Future<Output = Option<Answer>> + 'a {
    fleet.gateway.faults(&["start:delay=3s"]).await;
    let before = fleet.gateway.starts();
    let mut start = Box::pin(async move {
        let method = hyper::Method::POST;
        let key = [("idempotency-key", "order-1")];
        let patience = std::time::Duration::from_secs(80);
        fleet[0]
            .try_call(method, "/api/start_payment", &key, body, patience)
            .await
    });
    let comes = until("the start reaches the gateway", async || {
        (fleet.gateway.starts() > before).then_some(())
    });
    tokio::select! {
        () = comes => {}
        answer = &mut start => panic!("answered before: {answer:?}"),
    }
    fleet.gateway.faults(&[]).await;
    start
}

#[tokio::test]
async fn a_start_whose_replica_is_killed_is_begun_anew_by_another() {
    for body in [order(1000), order_of("7", 1000)] {
        let Some(fleet) = Fleet::new(3, &[]).await else {
            return;
        };
        let start = begin(&fleet, &body).await;
        fleet[0].kill().await;
        assert!(start.await.is_none(), "nobody was answered");
        let retry = fleet[1].start_at_last("order-1", &body).await;
        let (code, _) = codes(&retry);
        let again = fleet[2].start(Some("order-1"), &body).await;
        assert_eq!((codes(&again).0, is_replayed(&again)), (code.clone(), true));
        fleet[0].restart().await;
        let again = fleet[0].start(Some("order-1"), &body).await;
        assert_eq!((codes(&again).0, is_replayed(&again)), (code.clone(), true));
        assert_listed(&fleet, &[&code]).await;
        assert_eq!(fleet.gateway.starts(), 2);
    }
}

#[tokio::test]
async fn a_replica_that_was_paused_in_a_start_replays_what_another_revealed_meanwhile() {
    for body in [order(1000), order_of("7", 1000)] {
        // It may sleep for as long as it likes: its own patience is not what is tested.
        let Some(fleet) = Fleet::new(3, &[("gateway.timeout", "120s")]).await else {
            return;
        };
        let start = begin(&fleet, &body).await;
        fleet[0].pause();
        let started = fleet[1].start_at_last("order-1", &body).await;
        let (code, _) = codes(&started);
        fleet[0].resume();
        let woken = in_time("an answer of the one that slept", start).await;
        let woken = woken.expect("an answer");
        assert_eq!((codes(&woken).0, is_replayed(&woken)), (code.clone(), true));
        assert_listed(&fleet, &[&code]).await;
        assert_eq!(fleet.gateway.starts(), 2);
    }
}

#[tokio::test]
async fn a_replica_that_says_that_it_is_ready_starts_payments() {
    let Some(fleet) = Fleet::new(1, &MANY).await else {
        return;
    };
    for round in 0..10 {
        fleet[0].kill().await;
        fleet[0].launch();
        fleet[0].is_ready().await;
        let key = format!("order-{round}");
        codes(&fleet[0].start(Some(&key), &order(1000)).await);
    }
}

#[tokio::test]
async fn a_start_that_runs_on_another_replica_is_joined() {
    let Some(fleet) = Fleet::new(2, &[]).await else {
        return;
    };
    let body = order(1000);
    let start = begin(&fleet, &body).await;
    let (first, joined) = tokio::join!(start, fleet[1].start(Some("order-1"), &body));
    let first = first.expect("an answer");
    assert_eq!(codes(&joined), codes(&first));
    assert!(is_replayed(&joined) && !is_replayed(&first));
    assert_eq!(fleet.gateway.starts(), 1);
}

#[tokio::test]
async fn a_hundred_starts_of_one_key_on_ten_replicas_at_once_are_one_payment() {
    let Some(fleet) = Fleet::new(10, &[]).await else {
        return;
    };
    fleet.gateway.faults(&["start:delay=500ms"]).await;
    let body = order_of("7", 1000);
    let starts = (0..100).map(|number| fleet[number % 10].start(Some("order-1"), &body));
    let code = one_code(&join_all(starts).await);
    assert!(fleet.gateway.starts() <= 2, "{}", fleet.gateway.starts());
    assert_listed(&fleet, &[&code]).await;
    assert_eq!(fleet.server.connections().await, 20);
    // Those that are left go on.
    join_all(fleet.replicas[2..].iter().map(|replica| replica.stop())).await;
    until("two are left", async || {
        (fleet[0].members().await.len() == 2 && fleet.server.connections().await == 4).then_some(())
    })
    .await;
    let (_, watch_code) = fleet[1].started(1000).await;
    assert_eq!(fleet[0].watch(&watch_code).await.status, 200);
}

#[tokio::test]
async fn a_key_that_has_had_its_time_is_free_for_all_and_has_one_payment_again() {
    let settings = [
        ("start.idempotency_ttl", "2s"),
        ("store.keep_for", "2s"),
        ("start.rate", "1000000"),
        ("start.burst", "100000"),
    ];
    let Some(fleet) = Fleet::new(3, &settings).await else {
        return;
    };
    let body = order(1000);
    let first = codes(&fleet[0].start(Some("order-1"), &body).await).0;
    // All ask at once, again and again, until it is free.
    let second = until("another payment", async || {
        let starts = (0..9).map(|number| fleet[number % 3].start(Some("order-1"), &body));
        let answers = join_all(starts).await;
        let shown: HashSet<_> = answers.iter().map(|answer| codes(answer).0).collect();
        let others: Vec<_> = shown.into_iter().filter(|code| *code != first).collect();
        assert!(others.len() < 2, "{others:?}");
        others.into_iter().next()
    })
    .await;
    for replica in &fleet.replicas {
        let again = codes(&replica.start(Some("order-1"), &body).await).0;
        assert_eq!(again, second, "{}", replica.name);
    }
}

#[tokio::test]
async fn a_store_that_is_full_is_so_for_all_replicas_until_something_may_go() {
    let settings = [
        ("store.max_bytes", "1MiB"),
        ("store.keep_for", "1s"),
        ("start.idempotency_ttl", "1s"),
    ];
    let Some(mut fleet) = Fleet::prepare(2, Options::default()).await else {
        return;
    };
    fleet.set_all(&MANY);
    fleet.set_all(&settings);
    fleet.run().await;
    let mut open = Vec::new();
    let refused = loop {
        assert!(open.len() < 20_000, "it is never full");
        let body = order(1000);
        let starts = (0..20).map(|number| fleet[number % 2].start(None, &body));
        let answers = join_all(starts).await;
        open.extend(answers.iter().filter(|one| one.status == 200).map(codes));
        if let Some(refused) = answers.into_iter().find(|one| one.status != 200) {
            break refused;
        }
    };
    let found = (
        refused.status,
        refused.text("error"),
        refused.text("outcome"),
    );
    assert_eq!(found, (503, "overloaded", "not_sent"), "{refused:?}");
    // One that begins now finds it full, and has all of it.
    fleet[1].kill().await;
    fleet[1].restart().await;
    for replica in &fleet.replicas {
        until(&format!("{} is full", replica.name), async || {
            let refused = replica.start(None, &order(1000)).await;
            if refused.status == 200 {
                open.push(codes(&refused));
                return None;
            }
            assert_eq!(refused.text("error"), "overloaded", "{refused:?}");
            Some(())
        })
        .await;
    }
    let listed = fleet[1].payments().await.len();
    assert_eq!(listed, open.len());
    // Half of them are paid, and leave when they have had their time.
    for (code, watch_code) in open.iter().take(open.len() / 2) {
        fleet.gateway.pay(code).await;
        fleet[0].watch_anew(watch_code).await;
    }
    for replica in &fleet.replicas {
        replica.start_at_last("order-1", &order(1000)).await;
    }
}

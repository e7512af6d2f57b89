//! The database is away, and comes back: starts are refused before anything is sent, everything else goes on.

use std::collections::HashSet;

use super::gateway::Gateway;
use super::postgres::{Options, Postgres, has_postgres};
use super::replica::{Replica, assert_away, codes, order, order_of};
use super::{Fleet, MANY, in_time, until};
use crate::receiver::{Mood, Receiver};

/// Starts of every kind are refused, and none reaches the gateway.
pub async fn assert_no_start(fleet: &Fleet, replica: &Replica) {
    let before = fleet.gateway.starts();
    for (key, body) in [
        (None, order(1000)),
        (Some("order-away"), order(1000)),
        (None, order_of("away", 1000)),
        (Some("order-away-too"), order_of("away-too", 1000)),
    ] {
        assert_away(&replica.start(key, &body).await, "not_sent");
    }
    assert_eq!(fleet.gateway.starts(), before);
}

/// What is not served while the store is away.
pub async fn assert_no_lists(replica: &Replica) {
    for path in ["/payments", "/payments?status=completed", "/deliveries"] {
        let answer = replica.get(path).await;
        let found = (answer.status, answer.text("error"));
        assert_eq!(found, (503, "store_unavailable"), "{path}: {answer:?}");
    }
}

/// A replica that was ready stays so, and says that its store is not.
pub async fn assert_ready_without_store(replica: &Replica) {
    assert_eq!(replica.probe("/livez").await, Some(200));
    assert_eq!(replica.probe("/readyz").await, Some(200));
    let store = replica.admin("/readyz/store").await;
    assert_eq!(store.status, 503, "{store:?}");
    assert!(store.body.contains("away"), "{store:?}");
    let verbose = replica.admin("/readyz?verbose").await;
    assert!(verbose.body.contains("away"), "{verbose:?}");
    assert_eq!(replica.metric("tillgate_store_up").await, 0);
}

#[tokio::test]
async fn a_replica_whose_database_is_down_at_boot_runs_and_is_ready_when_it_comes() {
    if !has_postgres() {
        return;
    }
    let server = Postgres::stopped(Options::default()).await;
    let mut fleet = Fleet::over(2, server, Gateway::new().await).await;
    fleet.set_all(&MANY);
    for replica in &fleet.replicas {
        replica.launch();
        replica.is_up().await;
        assert_eq!(replica.probe("/readyz").await, Some(503));
        assert_eq!(replica.probe("/readyz/store").await, Some(503));
        assert_eq!(replica.probe("/livez").await, Some(200));
    }
    // A payment that somebody else has started.
    let body = format!(
        r#"{{"amount":1000,"merchant_secret":"{}"}}"#,
        tillgate::sandbox::DEFAULT_SECRET
    );
    let gateway = crate::harness::address_of(&fleet.gateway.sandbox);
    let started = crate::harness::start_at(gateway, &body).await;
    let watch_code = started.text("watch_code");
    for replica in &fleet.replicas {
        let watched = replica.watch(watch_code).await;
        let found = (watched.status, watched.text("status"));
        assert_eq!(found, (200, "created"), "{watched:?}");
        assert_no_start(&fleet, replica).await;
        assert_no_lists(replica).await;
    }
    fleet.server.start().await;
    for replica in &fleet.replicas {
        replica.is_ready().await;
        assert_eq!(replica.probe("/readyz/store").await, Some(200));
        let (_, watch_code) = replica.started(1000).await;
        assert_eq!(replica.watch(&watch_code).await.status, 200);
        assert_eq!(replica.metric("tillgate_store_up").await, 1);
    }
}

#[tokio::test]
async fn while_the_database_is_down_starts_are_refused_unsent_and_watches_go_on() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    let kept = fleet[0].start(Some("order-1"), &order(1000)).await;
    let by_reference = fleet[0].start(None, &order_of("7", 1000)).await;
    let (code, watch_code) = codes(&kept);
    let mut events = fleet[0].stream("/events", None).await;
    let last_id = in_time("an event", events.event()).await.unwrap().id;
    fleet.server.stop().await;
    for replica in &fleet.replicas {
        assert_no_start(&fleet, replica).await;
        // Of a payment that this one has started, and of one that it has only heard of.
        let watched = replica.watch_anew(&watch_code).await;
        assert_eq!(watched.text("status"), "created", "{watched:?}");
        assert_no_lists(replica).await;
        assert_ready_without_store(replica).await;
        let resumed = replica.stream("/events", Some(&last_id)).await;
        assert_eq!(resumed.status, 503);
    }
    // What this one has answered, it answers.
    let again = fleet[0].start(Some("order-1"), &order(1000)).await;
    assert_eq!(again.body, kept.body);
    let again = fleet[0].start(None, &order_of("7", 1000)).await;
    assert_eq!(codes(&again), codes(&by_reference));
    // And it hears what it asks for itself.
    fleet.gateway.pay(&code).await;
    for replica in &fleet.replicas {
        replica.waits_for_completion(&watch_code).await;
    }
    fleet.server.start().await;
    fleet.have_store(true).await;
    // The stream is still open. Its events have their places in one journal, which the database has.
    loop {
        let event = in_time("an event", events.event()).await.unwrap().json();
        if event["code"] == code && event["status"] == "completed" {
            break;
        }
    }
    for (number, replica) in fleet.replicas.iter().enumerate() {
        let key = format!("order-after-{number}");
        codes(&replica.start(Some(&key), &order(1000)).await);
        let again = replica.start(Some("order-1"), &order(1000)).await;
        assert_eq!(codes(&again).0, code);
        until("it lists what was seen meanwhile", async || {
            let all = replica.payments().await;
            let paid = all.iter().find(|payment| payment["code"] == *code)?;
            (paid["status"] == "completed").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_was_seen_while_the_database_was_away_is_written_and_told_once() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(mut fleet) = Fleet::prepare(3, Options::default()).await else {
        return;
    };
    fleet.set_all(&MANY);
    fleet.post_to(&receiver.url());
    fleet.run().await;
    let mut events = fleet[1].stream("/events", None).await;
    let mut payments = Vec::new();
    for number in 0..6 {
        payments.push(fleet[number % 3].started(1000).await);
    }
    let last_id = loop {
        let event = in_time("an event", events.event()).await.unwrap();
        if event.json()["code"] == payments[5].0 {
            break event.id;
        }
    };
    fleet.server.stop().await;
    for (code, watch_code) in &payments {
        fleet.gateway.pay(code).await;
        // All three see it, each for itself.
        for replica in &fleet.replicas {
            replica.waits_for_completion(watch_code).await;
        }
    }
    assert!(receiver.messages().is_empty(), "{:?}", receiver.messages());
    fleet.server.start().await;
    fleet.have_store(true).await;
    let codes: HashSet<_> = payments.iter().map(|(code, _)| code.clone()).collect();
    until("every payment is delivered", async || {
        (receiver.taken("payment.completed") == codes).then_some(())
    })
    .await;
    for replica in &fleet.replicas {
        until("nothing is owed", async || {
            let all = replica.deliveries().await;
            let done = all.iter().all(|delivery| delivery["state"] == "delivered");
            (all.len() == codes.len() && done).then_some(())
        })
        .await;
    }
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), codes.len());
    // Once for each payment, in the events too.
    let mut events = fleet[2].stream("/events", Some(&last_id)).await;
    let (code, _) = fleet[2].started(1000).await;
    let mut told = Vec::new();
    loop {
        let event = in_time("an event", events.event()).await.unwrap().json();
        if event["code"] == code {
            break;
        }
        if event["status"] == "completed" {
            told.push(event["code"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(told.len(), codes.len(), "{told:?}");
    assert_eq!(told.into_iter().collect::<HashSet<_>>(), codes);
}

#[tokio::test]
async fn a_replica_without_the_database_ends_in_order() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let (_, watch_code) = fleet[0].started(1000).await;
    fleet.server.stop().await;
    fleet.have_store(false).await;
    let path = format!("/watch/{watch_code}?wait=55");
    let wait = fleet[0].get(&path);
    let stop = async {
        until("it waits", async || {
            let waiters = "tillgate_waiters{kind=\"long_poll\"}";
            (fleet[0].metric(waiters).await == 1).then_some(())
        })
        .await;
        fleet[0].stop().await;
    };
    let (answer, ()) = tokio::join!(wait, stop);
    assert_eq!(answer.text("status"), "created", "{answer:?}");
    // One that has never seen it, too.
    fleet[1].kill().await;
    fleet[1].launch();
    fleet[1].is_up().await;
    fleet[1].stop().await;
}

#[tokio::test]
async fn one_replica_that_is_cut_off_is_replaced_by_the_others() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(mut fleet) = Fleet::prepare(3, Options::default()).await else {
        return;
    };
    fleet.set_all(&MANY);
    fleet.post_to(&receiver.url());
    fleet.run().await;
    let mut payments = Vec::new();
    for _ in 0..6 {
        payments.push(fleet[0].started(1000).await);
    }
    fleet[0].proxy.close();
    fleet[0].has_store(false).await;
    assert_no_start(&fleet, &fleet[0]).await;
    assert_ready_without_store(&fleet[0]).await;
    for (number, (code, watch_code)) in payments.iter().enumerate() {
        fleet.gateway.pay(code).await;
        // It goes on to watch, and the others deliver.
        if number % 2 == 0 {
            fleet[0].waits_for_completion(watch_code).await;
        }
        codes(&fleet[1 + number % 2].start(None, &order(1000)).await);
    }
    let paid: HashSet<_> = payments.iter().map(|(code, _)| code.clone()).collect();
    until("every payment is delivered", async || {
        (receiver.taken("payment.completed") == paid).then_some(())
    })
    .await;
    fleet[0].proxy.open();
    fleet[0].has_store(true).await;
    codes(&fleet[0].start(None, &order(1000)).await);
    until("it knows what the others did", async || {
        let all = fleet[0].deliveries().await;
        let done = all.iter().all(|delivery| delivery["state"] == "delivered");
        (all.len() == paid.len() && done && fleet[0].payments().await.len() == 13).then_some(())
    })
    .await;
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), paid.len());
}

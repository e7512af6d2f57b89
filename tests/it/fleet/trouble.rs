//! What a database does wrong while it is there: it hangs, takes no writes, has no room or no place, forgets, is slow.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;

use super::away::{assert_no_lists, assert_no_start, assert_ready_without_store};
use super::postgres::{Options, USER, has_small_disks};
use super::proxy::Way;
use super::replica::{Replica, codes, order};
use super::{Fleet, MANY, until};
use crate::receiver::{Mood, Receiver};

/// The store is back for all: starts work, and everything that was revealed is there.
async fn assert_back(fleet: &Fleet, revealed: &[(String, String)]) {
    fleet.have_store(true).await;
    for (number, replica) in fleet.replicas.iter().enumerate() {
        let key = format!("order-back-{number}");
        let started = replica.start_at_last(&key, &order(1000)).await;
        codes(&started);
        until(&format!("{} lists everything", replica.name), async || {
            let codes = replica.payments().await;
            let codes: HashSet<_> = codes.iter().map(|one| one["code"].as_str()).collect();
            let mut all = revealed.iter();
            all.all(|(code, _)| codes.contains(&Some(code.as_str())))
                .then_some(())
        })
        .await;
        for (_, watch_code) in revealed.iter().rev().take(10) {
            until(&format!("{} asks again", replica.name), async || {
                (replica.watch(watch_code).await.status == 200).then_some(())
            })
            .await;
        }
    }
}

/// Watches go on at all replicas while starts are refused.
async fn assert_away_for_all(fleet: &Fleet, revealed: &[(String, String)]) {
    for replica in &fleet.replicas {
        assert_no_start(fleet, replica).await;
        for (_, watch_code) in revealed {
            let watched = replica.watch_anew(watch_code).await;
            assert_eq!(watched.text("status"), "created", "{watched:?}");
        }
        assert_no_lists(replica).await;
        assert_ready_without_store(replica).await;
    }
}

async fn three() -> Option<(Fleet, Vec<(String, String)>)> {
    let fleet = Fleet::new(3, &MANY).await?;
    let starts = (0..3).map(|number| fleet[number].started(1000));
    let revealed = join_all(starts).await;
    Some((fleet, revealed))
}

#[tokio::test]
async fn a_database_that_hangs_is_away_until_it_goes_on() {
    let Some((fleet, revealed)) = three().await else {
        return;
    };
    fleet.server.pause();
    assert_away_for_all(&fleet, &revealed).await;
    fleet.server.resume();
    assert_back(&fleet, &revealed).await;
}

#[tokio::test]
async fn a_way_that_drops_everything_is_away_until_it_lets_something_through() {
    let Some((fleet, revealed)) = three().await else {
        return;
    };
    for replica in &fleet.replicas {
        replica.proxy.set(Way::Blocked);
    }
    assert_away_for_all(&fleet, &revealed).await;
    for replica in &fleet.replicas {
        replica.proxy.open();
    }
    assert_back(&fleet, &revealed).await;
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_away_until_it_does() {
    let Some((fleet, revealed)) = three().await else {
        return;
    };
    fleet
        .server
        .set("default_transaction_read_only", "on")
        .await;
    fleet.server.terminate_all().await;
    fleet.have_store(false).await;
    assert_away_for_all(&fleet, &revealed).await;
    let refused = "tillgate_store_errors_total{reason=\"read_only\"}";
    for replica in &fleet.replicas {
        assert!(replica.metric(refused).await > 0);
    }
    fleet
        .server
        .set("default_transaction_read_only", "off")
        .await;
    fleet.server.terminate_all().await;
    assert_back(&fleet, &revealed).await;
}

#[tokio::test]
async fn a_database_without_a_place_is_away_for_those_who_find_none() {
    let options = Options::default()
        .parameter("max_connections", "7")
        .parameter("superuser_reserved_connections", "3")
        .parameter("max_wal_senders", "0")
        .parameter("wal_level", "minimal")
        .parameter("log_connections", "on");
    let Some(mut fleet) = Fleet::prepare(4, options).await else {
        return;
    };
    fleet.set_all(&MANY);
    // Four places are for two of them.
    for number in [0, 1] {
        fleet[number].launch();
        fleet[number].is_ready().await;
    }
    for number in [2, 3] {
        fleet[number].launch();
        fleet[number].is_up().await;
        assert_no_start(&fleet, &fleet[number]).await;
        assert_eq!(fleet[number].probe("/readyz").await, Some(503));
    }
    let (_, watch_code) = fleet[0].started(1000).await;
    assert_eq!(fleet[2].watch(&watch_code).await.status, 200);
    let asked = fleet[2].proxy.accepted();
    // No storm: it waits longer and longer, at random.
    let watched = async || {
        tokio::time::sleep(Duration::from_secs(3)).await;
        fleet[2].proxy.accepted() - asked
    };
    let tries = watched().await;
    assert!(tries < 60, "{tries} connections in three seconds");
    // Two go, and there is room.
    fleet[0].stop().await;
    fleet[1].kill().await;
    for number in [2, 3] {
        fleet[number].is_ready().await;
        fleet[number].start_at_last("order-1", &order(1000)).await;
        assert_eq!(fleet[number].watch(&watch_code).await.status, 200);
    }
}

/// Starts until one is refused for the store; all codes that were shown, by their keys.
async fn start_until_refused(replica: &Replica) -> Vec<(String, (String, String))> {
    let mut revealed = Vec::new();
    for round in 0.. {
        assert!(revealed.len() < 50_000, "it is never full");
        let starts = (0..32).map(async |number| {
            let key = format!("order-{round}-{number}");
            let answer = replica.start(Some(&key), &order(1000)).await;
            (key, answer)
        });
        let mut is_refused = false;
        for (key, answer) in join_all(starts).await {
            if answer.status == 200 {
                revealed.push((key, codes(&answer)));
                continue;
            }
            let found = (answer.status, answer.text("error"));
            assert_eq!(found, (503, "store_unavailable"), "{answer:?}");
            is_refused = true;
        }
        if is_refused {
            break;
        }
    }
    revealed
}

#[tokio::test]
async fn a_full_disk_is_away_until_there_is_room() {
    if !has_small_disks() {
        return;
    }
    let options = Options {
        small_disk: Some(64),
        ..Options::default()
    };
    let Some(mut fleet) = Fleet::prepare(2, options).await else {
        return;
    };
    fleet.set_all(&MANY);
    fleet.run().await;
    let full = fleet.server.fill();
    // What is in the pages that are there has room.
    let revealed = start_until_refused(&fleet[0]).await;
    until("nothing is sent any more", async || {
        let answer = fleet[0].start(None, &order(1000)).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        (answer.text("outcome") == "not_sent").then_some(())
    })
    .await;
    let full_metric = "tillgate_store_errors_total{reason=\"full\"}";
    assert!(fleet[0].metric(full_metric).await > 0);
    assert_eq!(fleet[0].probe("/readyz").await, Some(200));
    for (_, (_, watch_code)) in revealed.iter().rev().take(3) {
        let watched = fleet[0].watch_anew(watch_code).await;
        assert_eq!(watched.text("status"), "created", "{watched:?}");
    }
    drop(full);
    let shown: Vec<_> = revealed.iter().map(|(_, codes)| codes.clone()).collect();
    assert_back(&fleet, &shown).await;
    for (key, shown) in revealed.iter().rev().take(20) {
        let again = fleet[1].start(Some(key), &order(1000)).await;
        assert_eq!(codes(&again), *shown);
    }
}

#[tokio::test]
async fn a_server_that_ends_because_its_log_has_no_room_loses_nothing() {
    if !has_small_disks() {
        return;
    }
    let options = Options {
        small_log_disk: Some(24),
        ..Options::default()
    };
    let Some(mut fleet) = Fleet::prepare(2, options).await else {
        return;
    };
    fleet.set_all(&MANY);
    fleet.run().await;
    let full = fleet.server.fill();
    let revealed = start_until_refused(&fleet[0]).await;
    for (_, (_, watch_code)) in revealed.iter().rev().take(3) {
        assert_eq!(fleet[1].watch_anew(watch_code).await.status, 200);
    }
    drop(full);
    if !fleet.server.answers_or_ended().await {
        fleet.server.start().await;
    }
    let shown: Vec<_> = revealed.into_iter().map(|(_, codes)| codes).collect();
    assert_back(&fleet, &shown).await;
}

#[tokio::test]
async fn a_server_that_crashes_forgets_what_is_courtesy_and_nothing_else() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(mut fleet) = Fleet::prepare(3, Options::default()).await else {
        return;
    };
    fleet.set_all(&MANY);
    fleet.post_to(&receiver.url());
    fleet.run().await;
    let mut revealed = Vec::new();
    let mut keys = Vec::new();
    for round in 0..4 {
        for number in 0..3 {
            let key = format!("order-{round}-{number}");
            let started = fleet[number].start_at_last(&key, &order(1000)).await;
            revealed.push(codes(&started));
            keys.push(key);
        }
        match round {
            0 => fleet.server.crash().await,
            1 => {
                fleet.server.kill().await;
                fleet.server.start().await;
            }
            2 => {
                fleet.server.stop_immediately().await;
                fleet.server.start().await;
            }
            _ => {}
        }
    }
    assert_back(&fleet, &revealed).await;
    for (key, shown) in keys.iter().zip(&revealed) {
        let again = fleet[1].start(Some(key), &order(1000)).await;
        assert_eq!(codes(&again), *shown);
        fleet.gateway.pay(&shown.0).await;
    }
    let paid: HashSet<_> = revealed.into_iter().map(|(code, _)| code).collect();
    until("every payment is delivered", async || {
        (receiver.taken("payment.completed") == paid).then_some(())
    })
    .await;
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), paid.len());
    let members = "select count(*) from tillgate.members";
    until("all three are members again", async || {
        (fleet.server.query_one(members).await == "3").then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_that_are_cut_while_nothing_happens_refuse_no_start() {
    let Some((fleet, mut revealed)) = three().await else {
        return;
    };
    for round in 0..5 {
        for replica in &fleet.replicas {
            let before = replica.proxy.accepted();
            replica.proxy.cut();
            until("it connects anew", async || {
                (replica.proxy.accepted() > before).then_some(())
            })
            .await;
            replica.has_store(true).await;
            let key = format!("{}-{round}", replica.name);
            revealed.push(codes(&replica.start(Some(&key), &order(1000)).await));
        }
    }
    assert_eq!(fleet.gateway.starts(), revealed.len());
    assert_back(&fleet, &revealed).await;
}

#[tokio::test]
async fn connections_that_were_cut_a_moment_ago_refuse_no_start() {
    let Some((fleet, revealed)) = three().await else {
        return;
    };
    for round in 0..8 {
        if round % 2 == 0 {
            fleet.server.terminate_all().await;
        } else {
            fleet.replicas.iter().for_each(|one| one.proxy.cut());
        }
        let starts = fleet.replicas.iter().map(async |replica| {
            let key = format!("{}-{round}", replica.name);
            codes(&replica.start(Some(&key), &order(1000)).await);
        });
        join_all(starts).await;
    }
    assert_eq!(fleet.gateway.starts(), revealed.len() + 24);
    assert_back(&fleet, &revealed).await;
}

#[tokio::test]
async fn connections_that_the_server_ends_are_made_anew() {
    let Some((fleet, revealed)) = three().await else {
        return;
    };
    for _ in 0..5 {
        assert!(fleet.server.terminate_all().await > 0);
        assert_back(&fleet, &revealed).await;
    }
    // Two each, and no more.
    until("two connections each", async || {
        (fleet.server.connections().await == 6).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_slow_database_makes_everything_slower_and_nothing_wrong() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(mut fleet) = Fleet::prepare(3, Options::default()).await else {
        return;
    };
    fleet.set_all(&MANY);
    fleet.post_to(&receiver.url());
    fleet.run().await;
    for replica in &fleet.replicas {
        replica.proxy.delay(Duration::from_millis(150));
    }
    let starts = (0..30).map(async |number: usize| {
        let key = format!("order-{}", number / 3);
        let started = fleet[number % 3].start(Some(&key), &order(1000)).await;
        (key, codes(&started))
    });
    let shown: HashSet<_> = join_all(starts).await.into_iter().collect();
    assert_eq!(shown.len(), 10, "{shown:?}");
    let waits = shown.iter().enumerate().map(async |(number, (_, shown))| {
        fleet.gateway.pay(&shown.0).await;
        fleet[number % 3].waits_for_completion(&shown.1).await;
    });
    join_all(waits).await;
    let paid: HashSet<_> = shown.into_iter().map(|(_, (code, _))| code).collect();
    until("every payment is delivered", async || {
        (receiver.taken("payment.completed") == paid).then_some(())
    })
    .await;
    receiver.check_ids();
    for replica in &fleet.replicas {
        assert_eq!(replica.probe("/readyz/store").await, Some(200));
    }
}

#[tokio::test]
async fn what_the_role_may_not_write_is_away_and_says_so() {
    let Some((fleet, revealed)) = three().await else {
        return;
    };
    let tables = "all tables in schema tillgate";
    let revoke = format!(
        "alter schema tillgate owner to postgres; \
         do $$ declare t text; begin for t in select tablename from pg_tables where schemaname = 'tillgate' loop \
         execute format('alter table tillgate.%I owner to postgres', t); end loop; end $$; \
         grant usage on schema tillgate to {USER}; grant select on {tables} to {USER}"
    );
    fleet.server.query(&revoke).await;
    fleet.server.terminate_all().await;
    fleet.have_store(false).await;
    assert_away_for_all(&fleet, &revealed).await;
    let refused = "tillgate_store_errors_total{reason=\"refused\"}";
    for replica in &fleet.replicas {
        assert!(replica.metric(refused).await > 0);
    }
    let grant = format!("grant select, insert, update, delete, truncate on {tables} to {USER}");
    fleet.server.query(&grant).await;
    assert_back(&fleet, &revealed).await;
}

//! Behind PgBouncer in transaction mode, where nothing may be kept in a session.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;

use super::failover::{Shown, assert_kept, has_shown, start_many};
use super::pool::{PgBouncer, has_pgbouncer};
use super::postgres::Options;
use super::replica::{codes, order, order_of};
use super::{Fleet, MANY, until};
use crate::receiver::{Mood, Receiver};

/// Three replicas that are not started yet, behind a pool with this many connections to the server. `None` where that is missing.
async fn behind(connections: usize) -> Option<(Fleet, PgBouncer)> {
    if !has_pgbouncer() {
        return None;
    }
    let mut fleet = Fleet::prepare(3, Options::default()).await?;
    let pool = PgBouncer::before(&fleet.server, connections).await;
    for replica in &fleet.replicas {
        replica.proxy.lead_to(pool.address);
    }
    fleet.set_all(&MANY);
    Some((fleet, pool))
}

#[tokio::test]
async fn behind_pgbouncer_in_transaction_mode_a_fleet_does_everything() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some((mut fleet, _pool)) = behind(6).await else {
        return;
    };
    fleet.post_to(&receiver.url());
    fleet.run().await;
    // Keys and references, on all at once.
    let starts = (0..60).map(async |number: usize| {
        let body = order_of(&format!("reference-{}", number / 6), 1000);
        let key = format!("order-{}", number / 6);
        let key = number.is_multiple_of(2).then_some(&*key);
        codes(&fleet[number % 3].start(key, &body).await)
    });
    let shown: HashSet<_> = join_all(starts).await.into_iter().collect();
    assert_eq!(shown.len(), 10, "{shown:?}");
    // Watches, waits, lists, webhooks.
    let waits = shown.iter().enumerate().map(async |(number, shown)| {
        let waits = fleet[number % 3].waits_for_completion(&shown.1);
        let pay = async {
            fleet[(number + 1) % 3].watch(&shown.1).await;
            fleet.gateway.pay(&shown.0).await;
        };
        tokio::join!(waits, pay);
    });
    join_all(waits).await;
    let paid: HashSet<_> = shown.into_iter().map(|(code, _)| code).collect();
    until("every payment is delivered", async || {
        (receiver.taken("payment.completed") == paid).then_some(())
    })
    .await;
    for replica in &fleet.replicas {
        until("it lists them as paid", async || {
            let all = replica.json("/payments?status=completed").await;
            (all["payments"].as_array().unwrap().len() == 10).then_some(())
        })
        .await;
    }
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), 10);
    // The server starts anew behind it.
    fleet.server.stop_immediately().await;
    fleet.have_store(false).await;
    fleet.server.start().await;
    for (number, replica) in fleet.replicas.iter().enumerate() {
        let key = format!("order-after-{number}");
        replica.start_at_last(&key, &order(1000)).await;
    }
    let (code, said) = fleet[0].command_output(&["check", "--online"]).await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn answers_that_a_pool_mixes_up_after_a_stall_are_not_believed() {
    let Some((fleet, pool)) = behind(6).await else {
        return;
    };
    fleet.run().await;
    let (shown, is_over) = (Shown::default(), AtomicBool::new(false));
    let stalls = async {
        for round in 1..=6 {
            has_shown(&shown, 20 * round).await;
            if round % 2 == 0 {
                pool.pause();
                fleet.have_store(false).await;
                pool.resume();
            } else {
                fleet.server.pause();
                fleet.have_store(false).await;
                fleet.server.resume();
            }
            fleet.have_store(true).await;
        }
        has_shown(&shown, 140).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let workers = (0..6).map(|name| start_many(&fleet, name, &shown, &is_over));
    tokio::join!(stalls, join_all(workers));
    assert_kept(&fleet, &shown).await;
    for replica in &fleet.replicas {
        until("all are members", async || {
            (replica.members().await.len() == 3).then_some(())
        })
        .await;
        assert!(!replica.log().contains("a bug in tillgate"));
    }
}

#[tokio::test]
async fn replicas_that_share_fewer_server_connections_than_they_have_wait_for_one_another() {
    let Some((fleet, _pool)) = behind(2).await else {
        return;
    };
    fleet.run().await;
    let starts = (0..60).map(async |number: usize| {
        let key = format!("order-{}", number / 3);
        let started = fleet[number % 3].start_at_last(&key, &order(1000)).await;
        (key, codes(&started).0)
    });
    let shown: HashSet<_> = join_all(starts).await.into_iter().collect();
    assert_eq!(shown.len(), 20, "{shown:?}");
}

//! No wall clock decides anything: neither that of the database when it is off, nor that of a replica.

use std::collections::HashSet;

use serde_json::Value;

use super::gateway::Gateway;
use super::postgres::{Options, Postgres, has_postgres};
use super::replica::{codes, order, order_of};
use super::{Fleet, MANY, until};
use crate::faults::{by_clock, faketime};
use crate::harness::skip;
use crate::receiver::{Mood, Receiver};

/// Everything that a fleet does, once: keys, references, limits, waits, lists, webhooks.
async fn assert_all_works(fleet: &Fleet, receiver: &Receiver, name: &str) {
    let before = receiver.messages().len();
    let mut paid = HashSet::new();
    for (number, replica) in fleet.replicas.iter().enumerate() {
        let key = format!("{name}-{number}");
        let body = order_of(&key, 1000);
        // Where the clock has just gone back, there may be too many starts for a moment.
        let (code, watch_code) = codes(&replica.start_at_last(&key, &body).await);
        for other in &fleet.replicas {
            let again = other.start(Some(&key), &body).await;
            assert_eq!(codes(&again).0, code, "{name}: {key}");
            let again = other.start(None, &body).await;
            assert_eq!(codes(&again).0, code, "{name}: {key}");
            assert_eq!(
                other.watch_anew(&watch_code).await.text("status"),
                "created"
            );
        }
        fleet.gateway.pay(&code).await;
        for other in &fleet.replicas {
            other.waits_for_completion(&watch_code).await;
        }
        paid.insert(code);
    }
    until(&format!("{name}: every payment is delivered"), async || {
        paid.is_subset(&receiver.taken("payment.completed"))
            .then_some(())
    })
    .await;
    receiver.check_ids();
    assert_eq!(receiver.messages().len(), before + paid.len(), "{name}");
}

/// A fleet of three whose server and whose second replica each have a clock that can be set.
async fn clocked(receiver: &Receiver) -> Option<Fleet> {
    if !has_postgres() {
        return None;
    }
    let Some(library) = faketime() else {
        skip("libfaketime is not installed");
        return None;
    };
    let clocks = super::postgres::template::directory();
    for name in ["server", "replica"] {
        std::fs::write(clocks.path().join(name), "+0d").unwrap();
    }
    let path = clocks.path().join("server");
    let variables = by_clock(&library, &path)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let server = Postgres::with(Options {
        variables,
        ..Options::default()
    })
    .await;
    let mut fleet = Fleet::over(3, server, Gateway::new().await).await;
    fleet.set_all(&MANY);
    fleet.post_to(&receiver.url());
    let path = clocks.path().join("replica");
    for (name, value) in by_clock(&library, &path) {
        fleet.replicas[1].set(name, value);
    }
    fleet.clocks = Some(clocks);
    fleet.run().await;
    Some(fleet)
}

fn set_clock(fleet: &Fleet, name: &str, clock: &str) {
    let clocks = fleet.clocks.as_ref().expect("clocks");
    std::fs::write(clocks.path().join(name), clock).unwrap();
}

#[tokio::test]
async fn a_server_whose_clock_jumps_by_minutes_stops_nobody() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(fleet) = clocked(&receiver).await else {
        return;
    };
    assert_all_works(&fleet, &receiver, "in-time").await;
    for (clock, name) in [("+5m", "ahead"), ("-5m", "behind"), ("+0d", "again")] {
        let before: i64 = server_clock(&fleet).await;
        set_clock(&fleet, "server", clock);
        until("the clock has jumped", async || {
            ((server_clock(&fleet).await - before).abs() > 200).then_some(())
        })
        .await;
        assert_all_works(&fleet, &receiver, name).await;
    }
}

async fn server_clock(fleet: &Fleet) -> i64 {
    let seconds = "select extract(epoch from clock_timestamp())::bigint";
    fleet.server.query_one(seconds).await.parse().unwrap()
}

#[tokio::test]
async fn a_replica_whose_clock_is_off_by_minutes_is_like_the_others() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some(fleet) = clocked(&receiver).await else {
        return;
    };
    for (clock, name) in [("+5m", "ahead"), ("-5m", "behind"), ("+0d", "again")] {
        set_clock(&fleet, "replica", clock);
        assert_all_works(&fleet, &receiver, name).await;
        // It starts so, too.
        fleet[1].kill().await;
        fleet[1].restart().await;
        assert_all_works(&fleet, &receiver, &format!("{name}-from-the-start")).await;
    }
    // The times that are shown are the database's.
    let first = fleet[1].start(None, &order(1)).await;
    codes(&first);
    let time = |payment: &Value| payment["started_at"].as_str().unwrap().parse().unwrap();
    for replica in &fleet.replicas {
        let list = replica.payments().await;
        let times: Vec<jiff::Timestamp> = list.iter().map(time).collect();
        assert_eq!(times.len(), 19, "{}", replica.name);
        assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    }
}

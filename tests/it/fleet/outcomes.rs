//! A write whose outcome nobody knows: the connection breaks around its commit.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::postgres::Options;
use super::proxy::{Fate, Sprung, Way};
use super::replica::{Replica, assert_away, codes, order, order_of};
use super::{Fleet, MANY, until};
use crate::harness::Answer;
use crate::receiver::{Mood, Receiver};

/// The reference of the start whose write goes wrong; it stands in that write.
const REFERENCE: &str = "cut-me-7";
const KEY: Option<&str> = Some("order-1");

/// Whether this request is a write of the log that has this in it.
fn is_write(request: &str, part: &str) -> bool {
    request.contains("insert into tillgate.log") && request.contains(part)
}

fn body() -> String {
    order_of(REFERENCE, 1000)
}

/// The next write of this replica that starts the payment meets this.
fn trap(replica: &Replica, fate: Fate, then: Way) -> Sprung {
    let matches = |request: &str| is_write(request, REFERENCE);
    replica.proxy.trap(fate, then, matches)
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == "true"
}

/// All replicas give this code for the key and for the reference, and list it alone.
async fn assert_one(fleet: &Fleet, code: &str) {
    fleet.have_store(true).await;
    for replica in &fleet.replicas {
        for key in [KEY, None] {
            let again = replica.start(key, &body()).await;
            assert_eq!(codes(&again).0, code, "{}", replica.name);
            assert!(is_replayed(&again), "{}", replica.name);
        }
        until(&format!("{} lists it alone", replica.name), async || {
            let all = replica.payments().await;
            (all.len() == 1 && all[0]["code"] == code).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_shows_its_code_once() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let sprung = trap(&fleet[0], Fate::AnswerIsLost, Way::Open);
    let started = fleet[0].start(KEY, &body()).await;
    sprung.wait().await;
    assert_one(&fleet, &codes(&started).0).await;
    assert_eq!(fleet.gateway.starts(), 1);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_with_the_database_gives_its_code_later() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let sprung = trap(&fleet[0], Fate::AnswerIsLost, Way::Closed);
    let unknown = fleet[0].start(KEY, &body()).await;
    sprung.wait().await;
    assert_away(&unknown, "unknown");
    // It is the other's answer already, and this one's when it is back.
    let replayed = fleet[1].start(KEY, &body()).await;
    assert!(is_replayed(&replayed), "{replayed:?}");
    fleet[0].proxy.open();
    assert_one(&fleet, &codes(&replayed).0).await;
    assert_eq!(fleet.gateway.starts(), 1);
}

#[tokio::test]
async fn a_commit_whose_replica_is_killed_before_it_hears_of_it_gives_its_code_later() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let sprung = trap(&fleet[0], Fate::AnswerIsLost, Way::Closed);
    let body = body();
    let start = fleet[0].try_call(
        hyper::Method::POST,
        "/api/start_payment",
        &[("idempotency-key", "order-1")],
        &body,
        super::PATIENCE,
    );
    let kill = async {
        sprung.wait().await;
        fleet[0].kill().await;
    };
    // It may have been answered just before.
    let (answer, ()) = tokio::join!(start, kill);
    assert!(answer.is_none_or(|answer| answer.status == 503));
    let replayed = fleet[1].start_at_last("order-1", &body).await;
    fleet[0].proxy.open();
    fleet[0].restart().await;
    assert_one(&fleet, &codes(&replayed).0).await;
    assert_eq!(fleet.gateway.starts(), 1);
}

#[tokio::test]
async fn a_write_that_never_reached_the_database_is_written_again() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let sprung = trap(&fleet[0], Fate::IsLost, Way::Open);
    let started = fleet[0].start(KEY, &body()).await;
    sprung.wait().await;
    if started.status == 200 {
        assert_eq!(fleet.gateway.starts(), 1);
        assert_one(&fleet, &codes(&started).0).await;
    } else {
        // It took too long on this machine.
        assert_away(&started, "unknown");
        let again = fleet[1].start_at_last("order-1", &body()).await;
        assert_one(&fleet, &codes(&again).0).await;
    }
}

#[tokio::test]
async fn a_write_that_never_reached_the_database_leaves_the_key_to_others() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let sprung = trap(&fleet[0], Fate::IsLost, Way::Closed);
    let unknown = fleet[0].start(KEY, &body()).await;
    sprung.wait().await;
    assert_away(&unknown, "unknown");
    let started = fleet[1].start_at_last("order-1", &body()).await;
    assert!(!is_replayed(&started), "{started:?}");
    assert_eq!(fleet.gateway.starts(), 2);
    fleet[0].proxy.open();
    assert_one(&fleet, &codes(&started).0).await;
    let unrevealed = fleet[0].metric("tillgate_unrevealed_total").await;
    assert_eq!(unrevealed, 1);
}

#[tokio::test]
async fn a_write_that_arrives_after_another_replica_has_answered_changes_nothing() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let sprung = trap(&fleet[0], Fate::IsLate, Way::Blocked);
    let body = body();
    let (late, started) = tokio::join!(fleet[0].start(KEY, &body), async {
        sprung.wait().await;
        fleet[1].start_at_last("order-1", &body).await
    });
    assert_away(&late, "unknown");
    let code = codes(&started).0;
    // Now it arrives.
    fleet[0].proxy.open();
    assert_one(&fleet, &code).await;
    assert_eq!(fleet.gateway.starts(), 2);
}

#[tokio::test]
async fn a_write_that_arrives_late_and_first_is_the_answer_of_all() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let sprung = trap(&fleet[0], Fate::IsLate, Way::Blocked);
    let late = fleet[0].start(KEY, &body()).await;
    sprung.wait().await;
    assert_away(&late, "unknown");
    // Nobody has asked for the key meanwhile.
    fleet[0].proxy.open();
    fleet[0].has_store(true).await;
    let again = fleet[1].start_at_last("order-1", &body()).await;
    assert_one(&fleet, &codes(&again).0).await;
}

#[tokio::test]
async fn a_write_that_is_stuck_is_sent_again_over_another_connection() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let sprung = trap(&fleet[0], Fate::IsStuck, Way::Open);
    let first = fleet[0].start(KEY, &body()).await;
    sprung.wait().await;
    if first.status != 200 {
        assert_away(&first, "unknown");
    }
    // Nothing is cut, and the old connection is silent for ever.
    let code = codes(&fleet[0].start_at_last("order-1", &body()).await).0;
    assert_one(&fleet, &code).await;
    // Executed at last, it changes nothing.
    fleet[0].proxy.free();
    assert_one(&fleet, &code).await;
    assert_eq!(fleet.gateway.starts(), 1);
    until("two connections each", async || {
        (fleet.server.connections().await == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn answers_that_are_lost_under_load_show_no_key_two_codes() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    for round in 0..8 {
        let victim = &fleet[round % 3];
        let fate = [Fate::AnswerIsLost, Fate::IsLost][round % 2];
        let any_write = |request: &str| request.contains("insert into tillgate.log");
        let sprung = victim.proxy.trap(fate, Way::Open, any_write);
        let starts = (0..24).map(async |number: usize| {
            let key = format!("order-{round}-{}", number / 4);
            let body = order_of(&key, 1000);
            let started = fleet[number % 3].start_at_last(&key, &body).await;
            (key, codes(&started).0)
        });
        let shown: HashSet<_> = join_all(starts).await.into_iter().collect();
        sprung.wait().await;
        assert_eq!(shown.len(), 6, "{shown:?}");
    }
    fleet.have_store(true).await;
    let lists = until("the same lists", async || {
        let lists = join_all(fleet.replicas.iter().map(Replica::payments)).await;
        let codes: Vec<HashSet<_>> = lists
            .iter()
            .map(|list| list.iter().map(|one| one["code"].to_string()).collect())
            .collect();
        codes.iter().all(|list| *list == codes[0]).then_some(codes)
    })
    .await;
    assert_eq!(lists[0].len(), 48);
}

#[tokio::test]
async fn a_completion_whose_write_is_not_answered_is_told_once() {
    for fate in [Fate::AnswerIsLost, Fate::IsLost] {
        let receiver = Receiver::new(|_| Mood::Take).await;
        let Some(mut fleet) = Fleet::prepare(2, Options::default()).await else {
            return;
        };
        fleet.set_all(&MANY);
        fleet.post_to(&receiver.url());
        fleet.run().await;
        let mut paid = HashSet::new();
        for number in 0..6 {
            let key = format!("order-{number}");
            let started = fleet[number % 2].start_at_last(&key, &order(1000)).await;
            let (code, watch_code) = codes(&started);
            let part = watch_code.to_lowercase();
            // The home of the payment is one of the two.
            let traps: Vec<_> = fleet
                .replicas
                .iter()
                .map(|replica| {
                    let part = part.clone();
                    let matches = move |request: &str| is_write(request, &part);
                    replica.proxy.trap_nth(number % 3, fate, Way::Open, matches)
                })
                .collect();
            fleet.gateway.pay(&code).await;
            paid.insert(code);
            until("it is delivered", async || {
                (receiver.taken("payment.completed") == paid).then_some(())
            })
            .await;
            for replica in &fleet.replicas {
                replica.proxy.disarm();
            }
            drop(traps);
        }
        for replica in &fleet.replicas {
            until("nothing is owed", async || {
                let all = replica.deliveries().await;
                let done = all.iter().all(|delivery| delivery["state"] == "delivered");
                (all.len() == paid.len() && done).then_some(())
            })
            .await;
        }
        receiver.check_ids();
    }
}

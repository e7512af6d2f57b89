//! Another server takes over, or the standby that commits wait for is gone.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;

use super::away::assert_no_start;
use super::postgres::{Options, Postgres, USER};
use super::replica::{assert_away, codes, order, order_of};
use super::{Fleet, MANY, until};
use crate::receiver::{Mood, Receiver};

/// Three replicas over a server with a standby; both are in `store.url`.
async fn pair() -> Option<(Fleet, Postgres)> {
    let mut fleet = Fleet::prepare(3, Options::default()).await?;
    let standby = fleet.server.standby().await;
    let url = format!(
        "postgres://{USER}@{},{}/{USER}",
        fleet.server.address(),
        standby.address()
    );
    fleet.set_all(&MANY);
    fleet.set_all(&[("store.url", &url)]);
    fleet.run().await;
    Some((fleet, standby))
}

/// The code of each key that was shown.
pub type Shown = Mutex<HashMap<String, String>>;

/// Starts payments until it is over, each until it is answered well; twice now and then, on another replica.
pub async fn start_many(fleet: &Fleet, name: usize, shown: &Shown, is_over: &AtomicBool) {
    for order in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("order-{name}-{order}");
        for again in 0..=usize::from(order % 3 == 0) {
            let replica = &fleet[(name + order + again) % 3];
            let started = replica.start_at_last(&key, &order_of(&key, 1000)).await;
            let code = codes(&started).0;
            let before = shown.lock().unwrap().insert(key.clone(), code.clone());
            assert!(before.is_none_or(|before| before == code), "{key}");
        }
    }
}

/// Every key gives the code that it has shown, on every replica, and all of them are listed.
pub async fn assert_kept(fleet: &Fleet, shown: &Shown) {
    fleet.have_store(true).await;
    let shown = shown.lock().unwrap().clone();
    for replica in &fleet.replicas {
        until(&format!("{} lists everything", replica.name), async || {
            let listed = replica.payments().await;
            let listed: HashMap<_, _> = listed
                .iter()
                .filter_map(|payment| Some((payment["reference"].as_str()?, &payment["code"])))
                .collect();
            let mut all = shown.iter();
            all.all(|(key, code)| listed.get(key.as_str()).is_some_and(|one| *one == code))
                .then_some(())
        })
        .await;
        let again = shown.iter().map(async |(key, code)| {
            let again = replica.start(Some(key), &order_of(key, 1000)).await;
            assert_eq!(codes(&again).0, *code, "{}: {key}", replica.name);
        });
        join_all(again).await;
    }
}

pub async fn has_shown(shown: &Shown, number: usize) {
    until(&format!("{number} payments"), async || {
        (shown.lock().unwrap().len() >= number).then_some(())
    })
    .await;
}

/// A fleet whose server is a standby that each commit waits for, and the primary.
async fn synchronous_pair() -> Option<(Fleet, Postgres)> {
    let (mut fleet, standby) = pair().await?;
    fleet.server.make_synchronous().await;
    let primary = std::mem::replace(&mut fleet.server, standby);
    Some((fleet, primary))
}

#[tokio::test]
async fn a_synchronous_standby_that_takes_over_has_everything_that_was_revealed() {
    let Some((fleet, primary)) = synchronous_pair().await else {
        return;
    };
    let (shown, is_over) = (Shown::default(), AtomicBool::new(false));
    let failover = async {
        has_shown(&shown, 100).await;
        primary.kill().await;
        fleet.server.promote().await;
        fleet.have_store(true).await;
        let before = shown.lock().unwrap().len();
        has_shown(&shown, before + 100).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let workers = (0..6).map(|name| start_many(&fleet, name, &shown, &is_over));
    tokio::join!(failover, join_all(workers));
    assert_kept(&fleet, &shown).await;
    // Nothing was written again: nothing was lost.
    for replica in &fleet.replicas {
        assert_eq!(replica.metric("tillgate_store_went_back_total").await, 0);
    }
}

#[tokio::test]
async fn a_primary_that_hangs_with_its_connections_open_is_left_for_the_new_one() {
    let Some((fleet, primary)) = synchronous_pair().await else {
        return;
    };
    let (shown, is_over) = (Shown::default(), AtomicBool::new(false));
    let failover = async {
        has_shown(&shown, 30).await;
        // Its machine still acknowledges what it is sent.
        primary.pause();
        fleet.server.promote().await;
        fleet.have_store(true).await;
        let before = shown.lock().unwrap().len();
        has_shown(&shown, before + 30).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let workers = (0..3).map(|name| start_many(&fleet, name, &shown, &is_over));
    tokio::join!(failover, join_all(workers));
    assert_kept(&fleet, &shown).await;
}

#[tokio::test]
async fn what_an_asynchronous_standby_never_heard_is_written_again_by_those_who_acknowledged_it() {
    let receiver = Receiver::new(|_| Mood::Take).await;
    let Some((mut fleet, standby)) = pair().await else {
        return;
    };
    for replica in &fleet.replicas {
        replica.stop().await;
    }
    fleet.post_to(&receiver.url());
    fleet.run().await;
    let shown = Shown::default();
    let start = async |number: usize| {
        let key = format!("order-{number}");
        let started = fleet.replicas[number % 3]
            .start(Some(&key), &order_of(&key, 1000))
            .await;
        let (code, watch_code) = codes(&started);
        shown.lock().unwrap().insert(key, code.clone());
        (code, watch_code)
    };
    let mut payments = Vec::new();
    for number in 0..9 {
        payments.push(start(number).await);
    }
    standby.detach().await;
    for number in 9..30 {
        payments.push(start(number).await);
    }
    // Some are paid, and seen so, after the standby heard its last.
    for (code, watch_code) in payments.iter().step_by(3) {
        fleet.gateway.pay(code).await;
        fleet.replicas[1].waits_for_completion(watch_code).await;
    }
    let primary = std::mem::replace(&mut fleet.server, standby);
    primary.kill().await;
    fleet.server.promote().await;
    assert_kept(&fleet, &shown).await;
    for replica in &fleet.replicas {
        assert!(replica.metric("tillgate_store_went_back_total").await > 0);
    }
    // What was final is so for all; the others are paid now.
    for (_, watch_code) in payments.iter().step_by(3) {
        for replica in &fleet.replicas {
            replica.waits_for_completion(watch_code).await;
        }
    }
    for (number, (code, _)) in payments.iter().enumerate() {
        if number % 3 != 0 {
            fleet.gateway.pay(code).await;
        }
    }
    let codes = payments.iter().map(|(code, _)| code.clone()).collect();
    until("every payment is delivered", async || {
        (receiver.taken("payment.completed") == codes).then_some(())
    })
    .await;
    // One id for each, for what was written again too.
    receiver.check_each_has_one_id();
}

#[tokio::test]
async fn commits_that_wait_for_a_standby_refuse_starts_and_nothing_else() {
    let Some(fleet) = Fleet::new(3, &MANY).await else {
        return;
    };
    let (_, watch_code) = fleet[0].started(1000).await;
    let standbys = "synchronous_standby_names";
    fleet.server.set(standbys, "nobody").await;
    // Those that are under way: the gateway has started them, and nobody may see them.
    let starts = (0..3).map(async |number: usize| {
        let key = format!("order-{number}");
        fleet[number].start(Some(&key), &order(1000)).await
    });
    for answer in join_all(starts).await {
        if answer.text("outcome") == "not_sent" {
            assert_away(&answer, "not_sent");
        } else {
            assert_away(&answer, "unknown");
        }
    }
    fleet.have_store(false).await;
    let started = fleet.gateway.starts();
    for replica in &fleet.replicas {
        assert_no_start(&fleet, replica).await;
        let watched = replica.watch_anew(&watch_code).await;
        assert_eq!(watched.text("status"), "created", "{watched:?}");
    }
    let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    let waiting: usize = fleet.server.query_one(waiting).await.parse().unwrap();
    assert!((1..=3).contains(&waiting), "{waiting} backends wait");
    fleet.server.set(standbys, "").await;
    fleet.have_store(true).await;
    // What hung is settled: its payment is the key's, and none is started in its place.
    for number in 0..3 {
        let key = format!("order-{number}");
        let first = fleet[number].start_at_last(&key, &order(1000)).await;
        let again = fleet[(number + 1) % 3]
            .start(Some(&key), &order(1000))
            .await;
        assert_eq!(codes(&again), codes(&first));
    }
    let all = fleet.gateway.starts();
    assert!(all <= 4, "{all} starts, {started} of them before");
    for replica in &fleet.replicas {
        until("it lists one payment a key", async || {
            (replica.payments().await.len() == 4).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_no_standby_has_is_shown_by_no_replica() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    fleet[0].started(1000).await;
    let standbys = "synchronous_standby_names";
    fleet.server.set(standbys, "nobody").await;
    let waiting = "from pg_stat_activity where wait_event = 'SyncRep' and query like '%log%'";
    let ends = async {
        until("a commit waits", async || {
            let rows = fleet.server.query(&format!("select 1 {waiting}")).await;
            (!rows.is_empty()).then_some(())
        })
        .await;
        // It is committed, and the standby has not got it: everyone can read it.
        let end = format!("select pg_terminate_backend(pid) {waiting}");
        fleet.server.query(&end).await;
    };
    let body = order(1000);
    let (mine, ()) = tokio::join!(fleet[0].start(Some("order-1"), &body), ends);
    assert_away(&mine, "unknown");
    // The other one has read it by now, or reads it now; it shows it to nobody.
    for _ in 0..3 {
        let other = fleet[1].start(Some("order-1"), &order(1000)).await;
        assert_ne!(other.status, 200, "{other:?}");
    }
    fleet.server.set(standbys, "").await;
    fleet.have_store(true).await;
    let shown = fleet[1].start_at_last("order-1", &order(1000)).await;
    let again = fleet[0].start_at_last("order-1", &order(1000)).await;
    assert_eq!(codes(&again), codes(&shown));
    for replica in &fleet.replicas {
        until("it lists one payment a start", async || {
            (replica.payments().await.len() == 2).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_database_that_is_restored_from_a_backup_is_given_back_what_was_acknowledged_since() {
    let Some(fleet) = Fleet::new(2, &MANY).await else {
        return;
    };
    let shown = Shown::default();
    for number in 0..20 {
        let key = format!("order-{number}");
        if number == 8 {
            let backup = fleet.server.backup().await;
            shown.lock().unwrap().insert(String::new(), backup);
        }
        let started = fleet[number % 2]
            .start_at_last(&key, &order_of(&key, 1000))
            .await;
        shown.lock().unwrap().insert(key, codes(&started).0);
    }
    let backup = shown.lock().unwrap().remove("").expect("it was made");
    let mut events = fleet[0].stream("/events", None).await;
    let last_id = super::in_time("an event", events.event()).await.unwrap().id;
    drop(events);
    fleet.server.restore(&backup).await;
    assert_kept(&fleet, &shown).await;
    for replica in &fleet.replicas {
        assert!(replica.metric("tillgate_store_went_back_total").await > 0);
    }
    // An id from before gets the present state: everything that is open.
    let mut events = fleet[1].stream("/events", Some(&last_id)).await;
    let mut open = std::collections::HashSet::new();
    while open.len() < 20 {
        let event = super::in_time("an event", events.event()).await.unwrap();
        open.insert(event.json()["code"].to_string());
    }
}

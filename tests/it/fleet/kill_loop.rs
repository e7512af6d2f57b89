//! Replicas are killed, paused, restarted and cut off at random, and so is their database: what callers were told holds.
//!
//! With `TILLGATE_TEST_FLEET=100 cargo test fleet_kill_loop -- --nocapture` as many rounds as wanted, and with
//! `TILLGATE_TEST_SEED=N` with the choices of an earlier run, as it printed them. Not with its moments: those are the
//! scheduler's.

mod follower;
mod shop;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;
use serde_json::Value;

use self::follower::Follower;
use self::shop::{Shop, Told};
use super::postgres::{Options, Postgres, has_postgres};
use super::proxy::{Fate, Way};
use super::replica::{Replica, order};
use super::{Fleet, MANY, until};
use crate::dice::Dice;
use crate::receiver::{Mood, Receiver};

/// Unless another number is asked for.
const ROUNDS: u64 = 2;
/// What happens to each replica in a round, and to the database.
const BLOWS: u64 = 12;
const BLOWS_TO_THE_SERVER: u64 = 4;
const WORKERS: u64 = 16;

#[tokio::test]
async fn fleet_kill_loop_no_key_shows_two_codes_and_nothing_that_was_told_is_forgotten() {
    if !has_postgres() {
        return;
    }
    let rounds = std::env::var("TILLGATE_TEST_FLEET")
        .map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let mut dice = Dice::new(Dice::seed("fleet_kill_loop"));
    let mut sums = Sums::default();
    for left in (0..rounds).rev() {
        round(dice.fork(), &mut sums).await;
        let _ = writeln!(
            std::io::stderr(),
            "fleet_kill_loop: {left} rounds left; {sums:?}; TILLGATE_TEST_FLEET=100 for more"
        );
    }
    assert!(
        sums.payments > rounds * 20 && sums.replayed > 0 && sums.paid > 0,
        "too little happened: {sums:?}"
    );
}

/// What happened.
#[derive(Debug, Default)]
struct Sums {
    blows: u64,
    payments: u64,
    replayed: u64,
    paid: usize,
    /// Messages that were taken more often than once: at least once is what is promised where processes are killed.
    taken_twice: usize,
}

/// A fleet's life.
async fn round(mut dice: Dice, sums: &mut Sums) {
    let mut moods = dice.fork();
    let receiver = Receiver::new(move |before| match moods.below(10) {
        // Twice at most, or it would take too long until the last is delivered.
        0 if before < 2 => Mood::Refuse,
        1 if before < 2 => Mood::HangUp,
        _ => Mood::Take,
    })
    .await;
    let fleet = Fleet::prepare(3, Options::default()).await;
    let mut fleet = fleet.expect("PostgreSQL");
    fleet.set_all(&MANY);
    fleet.set_all(&[("gateway.timeout", "2s")]);
    fleet.post_to(&receiver.url());
    fleet.run().await;
    // Every second time the database has a standby that each commit waits for.
    let standby = match dice.percent(50) {
        true => Some(fleet.server.standby().await),
        false => None,
    };
    if standby.is_some() {
        fleet.server.make_synchronous().await;
    }
    let faults = [
        "start:reset,rate=0.05",
        "start:truncate,rate=0.05",
        "start:status=500,rate=0.05",
        "start:delay=300ms,rate=0.3",
        "watch:reset,rate=0.05",
        "watch:delay=100ms,rate=0.2",
    ];
    fleet.gateway.faults(&faults).await;
    let (blows, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (shop, follower) = (Shop::default(), Follower::new(&fleet).await);
    let follows = dice.fork();
    let workers = (0..WORKERS).map(|name| shop.work(&fleet, name, dice.fork(), &is_over));
    let workers: Vec<_> = workers.collect();
    let lanes = fleet.replicas.iter().map(|replica| (replica, dice.fork()));
    let lanes: Vec<_> = lanes
        .map(|(replica, dice)| beat(replica, dice, &blows))
        .collect();
    let trouble = async {
        let server = beat_server(&fleet, standby.as_ref(), dice.fork(), &blows);
        tokio::join!(join_all(lanes), server);
        is_over.store(true, Ordering::Relaxed);
    };
    let follows = follower.follow(&fleet, follows, &is_over);
    tokio::join!(trouble, join_all(workers), follows);
    fleet.gateway.faults(&[]).await;
    let told = shop.told();
    sums.blows += blows.into_inner();
    sums.payments += told.codes.len() as u64;
    sums.replayed += told.replayed;
    sums.paid += told.paid.len();
    fleet.have_store(true).await;
    follower.has_seen_all(&fleet, &told).await;
    sums.taken_twice += check(&fleet, &receiver, &told).await;
}

/// Does one thing after the other to a replica; in the end it runs, and its way is open.
async fn beat(replica: &Replica, mut dice: Dice, blows: &AtomicU64) {
    for _ in 0..BLOWS {
        tokio::time::sleep(dice.milliseconds(50, 600)).await;
        blow(replica, &mut dice).await;
        blows.fetch_add(1, Ordering::Relaxed);
    }
    replica.proxy.disarm();
    replica.proxy.open();
    replica.is_ready().await;
}

async fn blow(replica: &Replica, dice: &mut Dice) {
    let is_write = |request: &str| request.contains("insert into tillgate.log");
    match dice.below(100) {
        0..30 => {
            replica.kill().await;
            tokio::time::sleep(dice.milliseconds(0, 500)).await;
            replica.launch();
        }
        30..38 => {
            // A process that has only just begun does not know what to do with the signal yet.
            replica.is_up().await;
            replica.stop().await;
            replica.launch();
        }
        38..55 => {
            replica.pause();
            // Now and then so long that others take over.
            let longest = if dice.percent(25) { 8000 } else { 1000 };
            tokio::time::sleep(dice.milliseconds(50, longest)).await;
            replica.resume();
        }
        55..70 => replica.proxy.cut(),
        70..80 => {
            if dice.percent(50) {
                replica.proxy.set(Way::Blocked);
            } else {
                // The next write arrives when the way is open again, also where nobody waits for it any more.
                replica.proxy.trap(Fate::IsLate, Way::Open, is_write);
            }
            let longest = if dice.percent(25) { 8000 } else { 1000 };
            tokio::time::sleep(dice.milliseconds(50, longest)).await;
            replica.proxy.disarm();
            replica.proxy.open();
        }
        80..86 => {
            replica.proxy.close();
            tokio::time::sleep(dice.milliseconds(50, 3000)).await;
            replica.proxy.open();
        }
        _ => {
            let fate = match dice.below(3) {
                0 => Fate::IsLost,
                _ => Fate::AnswerIsLost,
            };
            let skip = dice.index(3);
            replica.proxy.trap_nth(skip, fate, Way::Open, is_write);
        }
    }
}

/// The same to the database. Where it has a standby, that takes over at last.
async fn beat_server(fleet: &Fleet, standby: Option<&Postgres>, mut dice: Dice, blows: &AtomicU64) {
    for _ in 0..BLOWS_TO_THE_SERVER {
        tokio::time::sleep(dice.milliseconds(500, 3000)).await;
        match dice.below(5) {
            0 | 1 => _ = fleet.server.terminate_all().await,
            2 => fleet.server.crash().await,
            3 => {
                fleet.server.stop_immediately().await;
                tokio::time::sleep(dice.milliseconds(0, 1500)).await;
                fleet.server.start().await;
            }
            _ => {
                fleet.server.pause();
                tokio::time::sleep(dice.milliseconds(100, 4000)).await;
                fleet.server.resume();
            }
        }
        blows.fetch_add(1, Ordering::Relaxed);
    }
    let Some(standby) = standby else { return };
    // Else it was down for long enough that nothing is under way.
    fleet.server.has_standby().await;
    tokio::time::sleep(dice.milliseconds(500, 3000)).await;
    fleet.server.kill().await;
    standby.promote().await;
    for replica in &fleet.replicas {
        replica.proxy.lead_to(standby.address());
        replica.proxy.cut();
    }
    blows.fetch_add(1, Ordering::Relaxed);
}

/// Everything that was told holds; gives how many messages were taken more often than once.
async fn check(fleet: &Fleet, receiver: &Receiver, told: &Told) -> usize {
    until("every payment that was paid is delivered", async || {
        let taken = receiver.taken("payment.completed");
        told.paid.is_subset(&taken).then_some(())
    })
    .await;
    receiver.check_ids();
    for replica in &fleet.replicas {
        until(&format!("{} lists everything", replica.name), async || {
            told.difference(&replica.payments().await)
                .is_empty()
                .then_some(())
        })
        .await;
        check_list(&replica.payments().await, told);
        nothing_is_owed(replica).await;
    }
    // In peace each new message comes once.
    let before = receiver.messages().len();
    let mut calm = HashSet::new();
    for (number, replica) in fleet.replicas.iter().enumerate() {
        let key = format!("calm-{number}");
        let started = replica.start_at_last(&key, &order(1000)).await;
        fleet.gateway.pay(started.text("code")).await;
        calm.insert(started.text("code").to_owned());
    }
    until("they are delivered", async || {
        calm.is_subset(&receiver.taken("payment.completed"))
            .then_some(())
    })
    .await;
    // What is known to be delivered when processes end in peace is not delivered again, and nobody asks for what is
    // final.
    fleet.gateway.faults(&["watch:status=500"]).await;
    join_all(fleet.replicas.iter().map(nothing_is_owed)).await;
    for replica in &fleet.replicas {
        replica.stop().await;
    }
    let tries = receiver.messages().len();
    fleet.run().await;
    for replica in &fleet.replicas {
        check_list(&replica.payments().await, told);
        for code in &told.paid {
            let watched = replica.watch(&told.codes[code]).await;
            assert_eq!(watched.text("status"), "completed", "{watched:?}");
        }
        nothing_is_owed(replica).await;
    }
    assert_eq!(receiver.messages().len(), tries, "delivered again");
    receiver.check_ids();
    let of_refused = receiver.messages()[before..]
        .iter()
        .filter(|message| !message.taken)
        .count();
    assert_eq!(tries - before - of_refused, calm.len(), "in peace, twice");
    let mut taken: HashMap<_, usize> = HashMap::new();
    for message in receiver.messages() {
        *taken.entry(message.id).or_default() += usize::from(message.taken);
    }
    taken.into_values().filter(|taken| *taken > 1).count()
}

async fn nothing_is_owed(replica: &Replica) {
    until(&format!("{} owes nothing", replica.name), async || {
        let all = replica.deliveries().await;
        let is_owed = |delivery: &Value| delivery["state"] == "pending";
        (!all.iter().any(is_owed)).then_some(())
    })
    .await;
}

/// No payment and no reference is in this list twice, and what was told is in it as it was told.
fn check_list(listed: &[Value], told: &Told) {
    let (mut codes, mut references) = (HashSet::new(), HashMap::new());
    for payment in listed {
        let text = |name: &str| payment[name].as_str().map(str::to_owned);
        assert!(codes.insert(text("code")), "twice: {payment}");
        if let Some(reference) = text("reference") {
            let other = references.insert(reference, payment);
            assert!(other.is_none(), "a reference has two: {payment}, {other:?}");
        }
    }
    let missing = told.difference(listed);
    assert!(missing.is_empty(), "{missing:?}");
}

impl Told {
    /// What was told and is not so in this list.
    fn difference(&self, listed: &[Value]) -> Vec<String> {
        let listed: HashMap<_, _> = listed
            .iter()
            .map(|payment| (payment["code"].as_str().unwrap_or_default(), payment))
            .collect();
        let mut missing = Vec::new();
        for (code, watch_code) in &self.codes {
            let Some(payment) = listed.get(code.as_str()) else {
                missing.push(format!("{code} is forgotten"));
                continue;
            };
            if !watch_code.is_empty() && payment["watch_code"] != **watch_code {
                missing.push(format!("{code} has another watch code: {payment}"));
            }
            if self.paid.contains(code) && payment["status"] != "completed" {
                missing.push(format!("{code} is not completed: {payment}"));
            }
        }
        missing
    }
}

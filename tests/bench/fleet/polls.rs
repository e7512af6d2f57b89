//! How often the gateway is asked about a payment, by its own count, from its start until the app has its message.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::app::App;
use super::postgres::Postgres;
use super::{Fleet, number, row};
use crate::load;

/// When a payment is completed, by the gateway's clock.
const COMPLETED_AFTER: &str = "20s";
/// From one start to the next.
const APART: Duration = Duration::from_millis(50);
const PAYMENTS: usize = 60;
/// More replicas are the machine's limit, not the fleet's.
const MANY: usize = 50;
const PAYMENTS_OF_MANY: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    OneWaiter,
    OneOnEach,
}

pub(super) async fn measure(postgres: &Postgres) {
    for (who, what) in [
        (Who::Nobody, "nobody waits"),
        (Who::OneWaiter, "one waits"),
        (Who::OneOnEach, "one waits at each"),
    ] {
        let mut of_one = None;
        for (replicas, payments) in [
            (1, PAYMENTS),
            (3, PAYMENTS),
            (10, PAYMENTS),
            (MANY, PAYMENTS_OF_MANY),
        ] {
            let measured = polls(postgres, replicas, payments, who, what).await;
            let of_one = *of_one.get_or_insert(measured.each);
            row(
                &format!("{what}, {replicas} replicas: polls for a payment; against 1 replica"),
                &format!(
                    "{:.2}; {:+.1} %",
                    measured.each,
                    (measured.each / of_one - 1.0) * 100.0
                ),
            );
            row(
                &format!("{what}, {replicas} replicas: busiest second; statements a second"),
                &format!("{} polls; {:.0}", measured.busiest, measured.statements),
            );
        }
    }
}

struct Measured {
    /// Polls for each payment.
    each: f64,
    /// Polls in one second, at most.
    busiest: f64,
    /// Of the database, a second.
    statements: f64,
}

async fn polls(
    postgres: &Postgres,
    replicas: usize,
    payments: usize,
    who: Who,
    what: &str,
) -> Measured {
    let app = App::new().await;
    let sandbox = ["--auto-complete", COMPLETED_AFTER];
    let settings = app.settings();
    let settings = [&settings[..], &[("WATCH__POLL_RATE", "200")]].concat();
    let addresses = [postgres.address()];
    let fleet = Fleet::open(postgres, &addresses, replicas, &settings, &sandbox).await;
    let client = postgres.of_stores().await;
    let commits = "select xact_commit from pg_stat_database where datname = 'tillgate'";
    let (began, before) = (Instant::now(), number(&client, commits).await);
    let mut waiters = JoinSet::new();
    for i in 0..payments {
        let payment = load::started(fleet.replica(i).api).await;
        let places = match who {
            Who::Nobody => 0..0,
            // Not where it was started.
            Who::OneWaiter => i + 1..i + 2,
            Who::OneOnEach => 0..replicas,
        };
        for place in places {
            let mut stream = load::connect(fleet.replica(place).api).await;
            let request = load::get(&format!("/watch/{}?wait=55", payment.watch_code));
            waiters.spawn(async move { load::ask(&mut stream, &request, str::to_owned).await });
        }
        tokio::time::sleep(APART).await;
    }
    app.has(payments).await;
    for answer in waiters.join_all().await {
        assert!(answer.contains(r#""status":"completed""#), "{answer}");
    }
    let took = began.elapsed();
    let statements = (number(&client, commits).await - before) / took.as_secs_f64();
    let (polls, busiest) = calls(fleet.gateway).await;
    fleet.end(&format!("{what}, {replicas} replicas"));
    let payments = f64::from(u32::try_from(payments).expect("few"));
    Measured {
        each: polls / payments,
        busiest,
        statements,
    }
}

/// How often the gateway was asked about payments, in all and in the busiest second.
async fn calls(gateway: SocketAddr) -> (f64, f64) {
    let mut stream = load::connect(gateway).await;
    let calls = |answer: &str| {
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str::<serde_json::Value>(body).expect("JSON")
    };
    let calls = load::ask(&mut stream, &load::get("/_sandbox/calls"), calls).await;
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    (
        number(&calls["watch"]),
        number(&calls["busiest_second"]["watch"]),
    )
}

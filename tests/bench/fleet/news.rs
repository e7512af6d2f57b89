//! How long it takes until what one replica has learned reaches those who wait at the others.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::postgres::Postgres;
use super::{Fleet, Spread, milliseconds, row};
use crate::load;

const REPLICAS: usize = 3;
/// Waiters at each replica, and rounds.
const CROWDS: [(usize, usize); 2] = [(1, 100), (100, 20)];

pub(super) async fn measure(postgres: &Postgres) {
    let client = postgres.of_stores().await;
    let fleet = Fleet::open(postgres, &[postgres.address()], REPLICAS, &[], &[]).await;
    for (waiters, rounds) in CROWDS {
        let mut times = Vec::new();
        for number in 0..rounds {
            times.extend(round(&client, &fleet, waiters, number).await);
        }
        let times = Spread::of(times);
        row(
            &format!(
                "written, to the answers elsewhere, {waiters} wait at each: half, 99 of 100, last"
            ),
            &format!(
                "{}, {}, {}",
                milliseconds(times.at(50)),
                milliseconds(times.at(99)),
                milliseconds(times.at(100))
            ),
        );
    }
    fleet.end("news");
}

/// A payment is completed while so many wait for it at each replica, and one replica is asked. Returns how long after the
/// write those at the others have their answers.
async fn round(client: &Client, fleet: &Fleet, waiters: usize, number: usize) -> Vec<Duration> {
    let payment = load::started(fleet.replica(number).api).await;
    let path = format!("/watch/{}", payment.watch_code);
    let mut answers = JoinSet::new();
    for place in 0..REPLICAS {
        for _ in 0..waiters {
            let mut stream = load::connect(fleet.replica(place).api).await;
            let request = load::get(&format!("{path}?wait=30"));
            answers.spawn(async move {
                load::ask(&mut stream, &request, |_| {}).await;
                (place, now())
            });
        }
    }
    for replica in &fleet.replicas {
        while load::waiters(replica.admin, "long_poll") < waiters {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    // Not always at the same moment between two looks at the log.
    tokio::time::sleep(Duration::from_millis(
        100 + 37 * u64::try_from(number % 10).expect("few"),
    ))
    .await;
    load::complete(fleet.gateway, &payment).await;
    let asked = fleet.replica(number + 1);
    let request = load::get_with(&path, "Cache-Control: no-cache\r\n");
    load::ask(&mut load::connect(asked.api).await, &request, |_| {}).await;
    let answers = answers.join_all().await;
    // Another one may have asked the gateway just before.
    let (writer, _) = answers
        .iter()
        .min_by_key(|(_, at)| *at)
        .expect("there are some");
    let written = written(client, &fleet.schema, &payment.watch_code).await;
    let elsewhere = answers.iter().filter(|(place, _)| place != writer);
    elsewhere
        .map(|(_, at)| at.saturating_sub(written))
        .collect()
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock that is set")
}

/// When it was written that this payment is completed, by the same clock.
async fn written(client: &Client, schema: &str, watch_code: &str) -> Duration {
    let statement = format!(
        "select extract(epoch from at)::float8 from {schema}.log
        where events like '%{watch_code}%' order by position desc limit 1"
    );
    let row = client.query_one(&statement, &[]).await.expect("a row");
    Duration::from_secs_f64(row.get(0))
}

//! What a payment takes in the database, and what replicas send to it while nothing happens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::postgres::Postgres;
use super::{Fleet, microseconds, new_start, number, row};
use crate::load::{self, Payment};

const REPLICAS: usize = 3;
const PAYMENTS: usize = 1000;
/// From one step of a payment to the next one's.
const APART: Duration = Duration::from_millis(20);
const QUIET: Duration = Duration::from_secs(20);

const WRITTEN: &str = "select pg_current_wal_insert_lsn() - '0/0'";
const COMMITS: &str = "select xact_commit from pg_stat_database where datname = 'tillgate'";

pub(super) async fn measure(postgres: &Postgres) {
    let client = postgres.of_stores().await;
    let settings = [("WATCH__POLL_RATE", "200")];
    let addresses = [postgres.address()];
    let fleet = Fleet::open(postgres, &addresses, REPLICAS, &settings, &[]).await;
    let at_rest = quiet(postgres, &client, &fleet, "3 replicas at rest").await;
    let payment = load::started(fleet.replica(0).api).await;
    let mut waiters = JoinSet::new();
    let mut stream = load::connect(fleet.replica(1).api).await;
    let request = load::get(&format!("/watch/{}?wait=50", payment.watch_code));
    waiters.spawn(async move { load::ask(&mut stream, &request, |_| {}).await });
    // By then it is asked for every two seconds.
    tokio::time::sleep(Duration::from_secs(21)).await;
    quiet(
        postgres,
        &client,
        &fleet,
        "the same, one waits at one of them",
    )
    .await;
    drop(waiters);
    for when in ["right after a checkpoint", "later"] {
        if when != "later" {
            let made = client.batch_execute("checkpoint").await;
            made.expect("it is made");
        }
        payments(postgres, &client, &fleet, when, at_rest).await;
    }
    for (table, what) in [("rows", "for each payment"), ("log", "for each write")] {
        let schema = &fleet.schema;
        let size = format!("select pg_total_relation_size('{schema}.{table}')");
        let bytes = number(&client, &size).await;
        let of = match table {
            "rows" => "select count(*) from SCHEMA.rows where kind = 0",
            _ => "select count(*) from SCHEMA.log",
        };
        let count = number(&client, &of.replace("SCHEMA", schema)).await;
        row(
            &format!("table {table} with its index, of {count} payments or writes: {what}"),
            &format!("{:.0} bytes", bytes / count),
        );
    }
    fleet.end("size");
}

/// Bytes of the write-ahead log in a second, while nothing happens.
async fn quiet(postgres: &Postgres, client: &Client, fleet: &Fleet, what: &str) -> f64 {
    let (began, before) = (Instant::now(), fleet.statements());
    let (commits, bytes, cpu) = (
        number(client, COMMITS).await,
        number(client, WRITTEN).await,
        (fleet.cpu_time(), postgres.cpu_time()),
    );
    tokio::time::sleep(QUIET).await;
    let cpu = (fleet.cpu_time() - cpu.0, postgres.cpu_time() - cpu.1);
    let bytes = number(client, WRITTEN).await - bytes;
    let commits = number(client, COMMITS).await - commits;
    let (took, after) = (began.elapsed().as_secs_f64(), fleet.statements());
    let counts = difference(&before, &after).into_iter();
    let counts = counts.map(|(name, count)| format!("{name} {:.1}", count / took));
    row(
        &format!("{what}: statements a second, as the database counts them"),
        &format!("{:.1}", commits / took),
    );
    row(
        &format!("{what}: as the replicas count them"),
        &counts.collect::<Vec<_>>().join(", "),
    );
    row(
        &format!("{what}: CPU in a second: sidecars, database"),
        &format!(
            "{}, {}",
            microseconds(cpu.0.div_f64(took)),
            microseconds(cpu.1.div_f64(took))
        ),
    );
    row(
        &format!("{what}: write-ahead log in a second"),
        &format!("{:.0} bytes", bytes / took),
    );
    bytes / took
}

fn difference(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
) -> BTreeMap<String, f64> {
    let since = |(name, count): (&String, &f64)| {
        let count = count - before.get(name).copied().unwrap_or_default();
        (name.clone(), count)
    };
    let all = after.iter().map(since);
    all.filter(|(_, count)| *count > 0.0).collect()
}

/// Payments from their start until they are known as completed.
async fn payments(postgres: &Postgres, client: &Client, fleet: &Fleet, when: &str, at_rest: f64) {
    let (began, cpu, statements) = (
        Instant::now(),
        (fleet.cpu_time(), postgres.cpu_time()),
        fleet.statements(),
    );
    let bytes = number(client, WRITTEN).await;
    let (images, positions) = (
        "select wal_fpi from pg_stat_wal",
        format!("select max(position) from {}.log", fleet.schema),
    );
    let (images_before, first) = (
        number(client, images).await,
        number(client, &positions).await,
    );
    let payments = each_apart(|i| start(fleet, i)).await;
    each_apart(|i| complete(fleet, i, &payments[i])).await;
    let cpu = (fleet.cpu_time() - cpu.0, postgres.cpu_time() - cpu.1);
    let took = began.elapsed().as_secs_f64();
    let bytes = number(client, WRITTEN).await - bytes - at_rest * took;
    let count = u32::try_from(PAYMENTS).expect("few");
    let writes = number(client, &positions).await - first;
    let images = number(client, images).await - images_before;
    let each = f64::from(count);
    row(
        &format!("{when}: write-ahead log for a payment, start to completed; full pages of it"),
        &format!("{:.0} bytes; {:.2}", bytes / each, images / each),
    );
    row(
        &format!("{when}: CPU for it: sidecars, database"),
        &format!(
            "{}, {}",
            microseconds(cpu.0 / count),
            microseconds(cpu.1 / count)
        ),
    );
    let counts = difference(&statements, &fleet.statements()).into_iter();
    let counts = counts.map(|(name, count)| format!("{name} {:.1}", count / each));
    row(
        &format!("{when}: writes of the log for it; statements"),
        &format!(
            "{:.2}; {}",
            writes / each,
            counts.collect::<Vec<_>>().join(", ")
        ),
    );
}

async fn each_apart<T>(what: impl AsyncFn(usize) -> T) -> Vec<T> {
    let began = Instant::now();
    let (what, apart) = (&what, APART);
    let all = (0..PAYMENTS).map(|i| async move {
        let at = began + apart * u32::try_from(i).expect("few");
        tokio::time::sleep_until(at.into()).await;
        what(i).await
    });
    join_all(all).await
}

async fn start(fleet: &Fleet, i: usize) -> Payment {
    let mut stream = load::connect(fleet.replica(i).api).await;
    load::ask(&mut stream, &new_start(), load::payment).await
}

/// Another replica finds out that it is completed.
async fn complete(fleet: &Fleet, i: usize, payment: &Payment) {
    load::complete(fleet.gateway, payment).await;
    let mut stream = load::connect(fleet.replica(i + 1).api).await;
    let path = format!("/watch/{}", payment.watch_code);
    let request = load::get_with(&path, "Cache-Control: no-cache\r\n");
    load::ask(&mut stream, &request, |_| {}).await;
}

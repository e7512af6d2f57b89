//! How long a replica takes to be ready, and its memory, by how many payments the database has.

use std::time::Duration;

use super::postgres::Postgres;
use super::{Fleet, milliseconds, new_start, number, row};
use crate::load;
use crate::process::{self, Sidecar};
use crate::table::mebibytes;

const COUNTS: [u32; 3] = [1000, 100_000, 1_000_000];
const STARTS: usize = 3;
/// Room for all of them.
const ROOM: [(&str, &str); 2] = [
    ("STORE__MAX_BYTES", "8GiB"),
    ("WATCH__MAX_TRACKED", "2000000"),
];

pub(super) async fn measure(postgres: &Postgres) {
    for count in COUNTS {
        of(postgres, count).await;
    }
}

async fn of(postgres: &Postgres, count: u32) {
    let fleet = Fleet::open(postgres, &[postgres.address()], 1, &ROOM, &[]).await;
    let payment = complete_one(&fleet).await;
    let Fleet {
        replicas,
        gateway,
        schema,
        url,
        _sandbox,
    } = fleet;
    for replica in replicas {
        replica.process.terminate();
    }
    let client = postgres.of_stores().await;
    for statement in [
        &copies(&schema, &payment, count),
        &format!("vacuum analyze {schema}.rows"),
        "checkpoint",
    ] {
        let done = client.batch_execute(statement).await;
        done.expect("it is run");
    }
    let size = format!("select pg_total_relation_size('{schema}.rows')");
    let bytes = number(&client, &size).await;
    let settings = [&ROOM[..], &[("LOG__LEVEL", "error"), ("STORE__URL", &url)]].concat();
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        // Those who came before are gone.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = postgres.cpu_time();
        let Sidecar {
            process,
            admin,
            ready_after,
            ..
        } = process::sidecar(gateway, &settings, false);
        let database = postgres.cpu_time() - before;
        let metrics = load::metrics(admin);
        let kept = format!("tillgate_payments_tracked{{status=\"completed\"}} {count}\n");
        assert!(metrics.contains(&kept), "it has not read all");
        let estimate = metrics
            .lines()
            .find_map(|line| line.strip_prefix("tillgate_store_bytes "));
        let estimate = estimate.expect("it is counted").parse().expect("a number");
        let memory = (process.memory(), process.peak_memory(), estimate);
        starts.push((ready_after, process.cpu_time(), database, memory));
    }
    starts.sort();
    let (ready, sidecar, database, (memory, peak, estimate)) = starts[STARTS / 2];
    let each = bytes / f64::from(count);
    let what = format!("{count} payments of {each:.0} bytes with the index");
    row(
        &format!("{what}: ready after (median of {STARTS})"),
        &milliseconds(ready),
    );
    row(
        &format!("{what}: CPU for it: sidecar, database"),
        &format!("{}, {}", milliseconds(sidecar), milliseconds(database)),
    );
    row(
        &format!("{what}: memory then, most before; store_bytes"),
        &format!(
            "{}, {}; {}",
            mebibytes(memory),
            mebibytes(peak),
            mebibytes(estimate)
        ),
    );
}

/// A payment with a reference, from its start until it is completed; gives the reference last.
async fn complete_one(fleet: &Fleet) -> [String; 3] {
    let replica = fleet.replica(0);
    let start = new_start();
    let mut stream = load::connect(replica.api).await;
    let payment = load::ask(&mut stream, &start, load::payment).await;
    load::complete(fleet.gateway, &payment).await;
    let path = format!("/watch/{}", payment.watch_code);
    let request = load::get_with(&path, "Cache-Control: no-cache\r\n");
    load::ask(&mut stream, &request, |_| {}).await;
    let start = String::from_utf8(start).expect("text");
    let (_, rest) = start.split_once(r#""reference":""#).expect("it has one");
    let (reference, _) = rest.split_once('"').expect("it ends");
    [payment.code, payment.watch_code, reference.to_owned()]
}

/// Copies the row of that payment, each with codes and a reference of its own, until there are so many.
fn copies(schema: &str, [code, watch_code, reference]: &[String; 3], count: u32) -> String {
    let number = |name: &str| {
        let (prefix, digits) = name.split_at(name.len() - 8);
        format!("'{prefix}' || lpad(n::text, {}, '0')", digits.len())
    };
    let [to_code, to_watch_code, to_reference] =
        [code, watch_code, reference].map(|name| number(name));
    format!(
        "insert into {schema}.rows (kind, key, value)
        select 0, int8send(n + 1000), convert_to(replace(replace(replace(t, '{code}', {to_code}),
            '{watch_code}', {to_watch_code}), '{reference}', {to_reference}), 'UTF8')
        from (select convert_from(value, 'UTF8') as t from {schema}.rows where kind = 0 limit 1) one,
            generate_series(2, {count}) as g (n)"
    )
}

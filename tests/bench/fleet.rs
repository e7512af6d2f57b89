//! What it costs that replicas share a store: real processes, a PostgreSQL of its own, one gateway. Nothing is pinned to a
//! core: the replicas, the database, the gateway and the load share them all.

mod app;
mod news;
mod outage;
mod polls;
mod postgres;
mod proxy;
mod ready;
mod size;
mod starts;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use self::postgres::Postgres;
use crate::load;
use crate::process::{self, Process, Sidecar};

/// The parts, by the names that ask for one alone (`cargo bench -- fleet polls`).
const PARTS: [&str; 6] = ["starts", "polls", "news", "size", "ready", "outage"];

/// Measures all parts, or those that are asked for.
pub(crate) async fn measure(is_asked_for: impl Fn(&str) -> bool) {
    let Some(postgres) = Postgres::new().await else {
        println!(
            "PostgreSQL is not installed: `apt-get install postgresql` (its server need not run)"
        );
        return;
    };
    let all = !PARTS.into_iter().any(&is_asked_for);
    let version = text(&postgres.of_stores().await, "show server_version").await;
    println!(
        "PostgreSQL {version}; fsync takes {}; nothing pinned to a core",
        milliseconds(fsync(&postgres).await)
    );
    println!("\n{:<72}{:>44}", "a fleet", "measured");
    for part in PARTS {
        if all || is_asked_for(part) {
            match part {
                "starts" => starts::measure(&postgres).await,
                "polls" => polls::measure(&postgres).await,
                "news" => news::measure(&postgres).await,
                "size" => size::measure(&postgres).await,
                "ready" => ready::measure(&postgres).await,
                _ => outage::measure().await,
            }
        }
    }
}

fn row(what: &str, measured: &str) {
    println!("{what:<72}{measured:>44}");
}

/// The time of a commit, less that of a statement that changes nothing.
async fn fsync(postgres: &Postgres) -> Duration {
    let client = postgres.of_stores().await;
    let made = client.batch_execute("create table commits (n int)").await;
    made.expect("it is made");
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..200 {
        for (times, statement) in times
            .iter_mut()
            .zip(["select 1", "insert into commits values (1)"])
        {
            let began = Instant::now();
            client.batch_execute(statement).await.expect("it is run");
            times.push(began.elapsed());
        }
    }
    let [nothing, commit] = times.map(|times| Spread::of(times).at(50));
    commit.saturating_sub(nothing)
}

/// The first column of the first row.
async fn text(client: &Client, statement: &str) -> String {
    let rows = client.simple_query(statement).await.expect("it is run");
    let row = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.expect("a value").to_owned()
}

/// The same, where it is a number.
async fn number(client: &Client, statement: &str) -> f64 {
    let text = text(client, statement).await;
    text.parse().expect("a number")
}

/// Replicas over one store that was empty, and one gateway.
struct Fleet {
    replicas: Vec<Sidecar>,
    gateway: SocketAddr,
    schema: String,
    url: String,
    _sandbox: Process,
}

impl Fleet {
    /// So many, with these settings besides, which reach the database there.
    async fn open(
        postgres: &Postgres,
        addresses: &[SocketAddr],
        count: usize,
        settings: &[(&str, &str)],
        sandbox: &[&str],
    ) -> Self {
        let (url, schema) = postgres.store(addresses);
        let (sandbox, gateway) = process::sandbox_with(sandbox);
        let mut fleet = Self {
            replicas: Vec::new(),
            gateway,
            schema,
            url: url.clone(),
            _sandbox: sandbox,
        };
        let settings = [&[("LOG__LEVEL", "error"), ("STORE__URL", &*url)], settings].concat();
        for _ in 0..count {
            let replica = process::sidecar(gateway, &settings, false);
            fleet.replicas.push(replica);
        }
        // Each has heard of all others.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        fleet
    }

    fn replica(&self, number: usize) -> &Sidecar {
        &self.replicas[number % self.replicas.len()]
    }

    fn cpu_time(&self) -> Duration {
        let times = self
            .replicas
            .iter()
            .map(|replica| replica.process.cpu_time());
        times.sum()
    }

    /// How many statements the replicas have sent, by what they were for.
    fn statements(&self) -> BTreeMap<String, f64> {
        let mut counts = BTreeMap::new();
        for replica in &self.replicas {
            for (operation, count) in counted(
                replica,
                "tillgate_store_request_duration_seconds_count{operation=\"",
            ) {
                *counts.entry(operation).or_default() += count;
            }
        }
        counts
    }

    /// Says which statements have failed: none should.
    fn end(self, what: &str) {
        for (number, replica) in self.replicas.iter().enumerate() {
            for (reason, count) in counted(replica, "tillgate_store_errors_total{reason=\"") {
                row(
                    &format!("! {what}: errors of replica {number}"),
                    &format!("{count} {reason}"),
                );
            }
        }
    }
}

/// The samples of a metric with one label.
fn counted(replica: &Sidecar, prefix: &str) -> Vec<(String, f64)> {
    let metrics = load::metrics(replica.admin);
    let samples = metrics.lines().filter_map(|line| {
        let (label, count) = line.strip_prefix(prefix)?.split_once("\"} ")?;
        Some((label.to_owned(), count.parse().ok()?))
    });
    samples.collect()
}

/// A start that nobody has made yet.
fn new_start() -> Vec<u8> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    load::start_with_reference(&format!("order-{number:08}"))
}

/// Times, in their order.
struct Spread(Vec<Duration>);

impl Spread {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// That of so many of a hundred.
    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds < 100.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{milliseconds:.0} ms")
    }
}

fn microseconds(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}

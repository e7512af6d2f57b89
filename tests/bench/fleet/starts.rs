//! A start: how long it takes, what it costs, and how many there can be.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio_postgres::{Client, NoTls};

use super::postgres::Postgres;
use super::{Fleet, Spread, microseconds, milliseconds, new_start, number, proxy, row};
use crate::load;

/// Starts a second, and how many of them are measured.
const PACES: [(u32, usize); 3] = [(1, 20), (10, 150), (100, 1000)];
/// Added to each round trip.
const DELAYS: [Duration; 3] = [
    Duration::from_micros(200),
    Duration::from_millis(1),
    Duration::from_millis(3),
];
/// Each has a connection, and starts again when it has the answer to its last start.
const CALLERS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURE: Duration = Duration::from_secs(6);

pub(super) async fn measure(postgres: &Postgres) {
    let memory = [("STORE__URL", "memory:")];
    let fleet = Fleet::open(postgres, &[], 1, &memory, &[]).await;
    at_each_pace(postgres, &fleet, "in memory").await;
    at_most(postgres, &fleet, "in memory").await;
    let mut ways = vec![("no delay".to_owned(), postgres.address())];
    for delay in DELAYS {
        let address = proxy::begin(postgres.address(), delay);
        ways.push((format!("+{}", milliseconds(delay)), address));
    }
    for (what, address) in ways {
        row(
            &format!("{what}: a round trip to the database"),
            &microseconds(round_trip(address).await),
        );
        let fleet = Fleet::open(postgres, &[address], 1, &[], &[]).await;
        at_each_pace(postgres, &fleet, &what).await;
        fleet.end(&what);
        for replicas in [1, 3, 10] {
            let fleet = Fleet::open(postgres, &[address], replicas, &[], &[]).await;
            at_most(postgres, &fleet, &what).await;
            fleet.end(&what);
        }
    }
}

async fn round_trip(address: SocketAddr) -> Duration {
    let mut config = tokio_postgres::Config::new();
    let config = config
        .host(address.ip().to_string())
        .port(address.port())
        .user("tillgate");
    let (client, connection) = config.connect(NoTls).await.expect("it answers");
    tokio::spawn(connection);
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        client.batch_execute("").await.expect("it answers");
        times.push(began.elapsed());
    }
    Spread::of(times).at(50)
}

async fn at_each_pace(postgres: &Postgres, fleet: &Fleet, what: &str) {
    for (rate, count) in PACES {
        let before = (fleet.cpu_time(), postgres.cpu_time());
        let times = paced(fleet, rate, count).await;
        let cpu = (fleet.cpu_time() - before.0, postgres.cpu_time() - before.1);
        row(
            &format!("{what}: a start, at {rate}/s: half, 99 of 100"),
            &format!(
                "{}, {}",
                milliseconds(times.at(50)),
                milliseconds(times.at(99))
            ),
        );
        if rate == 100 {
            cost(what, "at 100/s", cpu, count);
        }
    }
}

fn cost(what: &str, when: &str, cpu: (Duration, Duration), count: usize) {
    let count = u32::try_from(count).expect("few").max(1);
    row(
        &format!("{what}: CPU for a start {when}: sidecar, database"),
        &format!(
            "{}, {}",
            microseconds(cpu.0 / count),
            microseconds(cpu.1 / count)
        ),
    );
}

/// So many starts, so many a second, of all replicas in turn; each on a connection that is there already.
pub(super) async fn paced(fleet: &Fleet, rate: u32, count: usize) -> Spread {
    let began = Instant::now();
    let starts = (0..count).map(|i| async move {
        let at = began + Duration::from_secs(1) * u32::try_from(i).expect("few") / rate;
        tokio::time::sleep_until(at.into()).await;
        let mut stream = load::connect(fleet.replica(i).api).await;
        let start = new_start();
        let asked = Instant::now();
        load::ask(&mut stream, &start, |_| {}).await;
        asked.elapsed()
    });
    Spread::of(join_all(starts).await)
}

/// As many starts as there can be.
async fn at_most(postgres: &Postgres, fleet: &Fleet, what: &str) {
    let replicas = fleet.replicas.len();
    let what = format!("{what}, {replicas} replicas of {CALLERS} callers");
    let client = postgres.of_stores().await;
    let times = RefCell::new(Vec::new());
    let times = &times;
    let load = join_all((0..replicas * CALLERS).map(|number| async move {
        let mut stream = load::connect(fleet.replica(number).api).await;
        loop {
            let start = new_start();
            let asked = Instant::now();
            load::ask(&mut stream, &start, |_| {}).await;
            times.borrow_mut().push(asked.elapsed());
        }
    }));
    let measured = async {
        tokio::time::sleep(WARM_UP).await;
        times.take();
        let (began, before) = (Instant::now(), (fleet.cpu_time(), postgres.cpu_time()));
        let written = writes(&client, fleet).await;
        tokio::time::sleep(MEASURE).await;
        let cpu = (fleet.cpu_time() - before.0, postgres.cpu_time() - before.1);
        let (took, times) = (began.elapsed(), times.take());
        let since = written.zip(writes(&client, fleet).await);
        let since = since.map(|(before, after)| (after.0 - before.0, after.1 - before.1));
        (took, cpu, since, times)
    };
    let (took, cpu, writes, times) = tokio::select! {
        measured = measured => measured,
        // Its connections never end.
        _ = load => unreachable!("it has no end"),
    };
    let (count, times) = (times.len(), Spread::of(times));
    let a_second = |count: f64| format!("{:.0}/s", count / took.as_secs_f64());
    row(
        &format!("{what}: most starts; each: half, 99 of 100"),
        &format!(
            "{}; {}, {}",
            a_second(f64::from(u32::try_from(count).expect("few"))),
            milliseconds(times.at(50)),
            milliseconds(times.at(99))
        ),
    );
    cost(&what, "then", cpu, count);
    if let Some((sent, written)) = writes {
        row(
            &format!("{what}: writes of the log; sent"),
            &format!("{}; {}", a_second(written), a_second(sent)),
        );
    }
}

/// How many writes the replicas have sent, and how many of them are in the log; `None` if there is none.
async fn writes(client: &Client, fleet: &Fleet) -> Option<(f64, f64)> {
    let sent = *fleet.statements().get("write")?;
    let positions = format!("select max(position) from {}.log", fleet.schema);
    Some((sent, number(client, &positions).await))
}

//! For how long starts are refused when the database crashes, or when its standby takes over.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::postgres::Postgres;
use super::starts::paced;
use super::{Fleet, Spread, milliseconds, new_start, row};

const REPLICAS: usize = 3;
const ROUNDS: usize = 7;
/// From one try to the next.
const APART: Duration = Duration::from_millis(10);
/// The processes of a server end when they notice that their postmaster is gone.
const NOTICED_AFTER: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure() {
    let (mut crashes, mut failovers) = (Vec::new(), Vec::new());
    let mut postgres = Postgres::new().await.expect("it is installed");
    let fleet = Fleet::open(&postgres, &[postgres.address()], REPLICAS, &[], &[]).await;
    for _ in 0..ROUNDS {
        paced(&fleet, 100, 100).await;
        let tries = Tries::begin(&fleet);
        postgres.kill();
        postgres.recover().await;
        crashes.push(tries.end());
    }
    drop(fleet);
    for _ in 0..ROUNDS {
        let mut postgres = Postgres::new().await.expect("it is installed");
        let standby = postgres.standby().await;
        let hosts = [postgres.address(), standby.address()];
        let fleet = Fleet::open(&postgres, &hosts, REPLICAS, &[], &[]).await;
        paced(&fleet, 100, 100).await;
        let tries = Tries::begin(&fleet);
        postgres.kill();
        standby.promote().await;
        failovers.push(tries.end());
    }
    table("the postmaster is killed and started again", crashes);
    table("the primary is killed and its standby promoted", failovers);
}

/// How long after the kill the database takes writes, and each replica starts.
type Times = (Duration, Vec<Duration>);

fn table(what: &str, rounds: Vec<Times>) {
    let (server, replicas): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
    let first = replicas
        .iter()
        .filter_map(|times| times.iter().min().copied());
    let last = replicas
        .iter()
        .filter_map(|times| times.iter().max().copied());
    for (who, times) in [
        ("the server takes writes", server),
        ("the first replica starts", first.collect()),
        ("the last replica starts", last.collect()),
    ] {
        let times = Spread::of(times);
        row(
            &format!("{what}: {who} after: half of {ROUNDS}, longest"),
            &format!(
                "{}, {}",
                milliseconds(times.at(50)),
                milliseconds(times.at(100))
            ),
        );
    }
}

/// A thread for each replica that tries to start a payment until one works.
struct Tries {
    began: Instant,
    threads: Vec<thread::JoinHandle<Duration>>,
}

impl Tries {
    /// The kill comes next.
    fn begin(fleet: &Fleet) -> Self {
        let began = Instant::now();
        let threads = fleet.replicas.iter().map(|replica| {
            let api = replica.api;
            thread::spawn(move || {
                thread::sleep(NOTICED_AFTER);
                while !starts(api) {
                    assert!(began.elapsed() < PATIENCE, "starts are refused for ever");
                    thread::sleep(APART);
                }
                began.elapsed()
            })
        });
        Self {
            began,
            threads: threads.collect(),
        }
    }

    fn end(self) -> Times {
        let server = self.began.elapsed();
        let threads = self.threads.into_iter();
        let replicas = threads.map(|thread| thread.join().expect("no panic"));
        (server, replicas.collect())
    }
}

/// Whether a payment can be started there now.
fn starts(api: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(api).expect("it listens");
    stream.write_all(&new_start()).expect("it reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("it answers");
    answer.ends_with(b" 200")
}

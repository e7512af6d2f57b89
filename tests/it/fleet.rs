//! Sidecars that share a store: many replicas over one PostgreSQL, and what goes wrong between them.

mod away;
mod clocks;
mod failover;
mod gateway;
mod keys;
mod kill_loop;
mod late;
mod limits;
mod news;
mod outcomes;
mod passwords;
mod pgbouncer;
mod pool;
mod postgres;
mod proxy;
mod replica;
mod rig;
mod secret;
mod trouble;
mod webhooks;

use std::future::Future;
use std::net::SocketAddr;
use std::ops::Index;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;

use self::gateway::Gateway;
use self::postgres::{Options, PASSWORD, Postgres, USER, has_postgres};
use self::proxy::Proxy;
use self::replica::{Replica, TOKEN};

/// Longest that any condition is waited for: only ever reached by a test that fails. A replica waits for others by the
/// second, and the machine is shared.
const PATIENCE: Duration = Duration::from_secs(90);
/// Starts and polls as many as a test wants.
const MANY: [(&str, &str); 3] = [
    ("start.rate", "1000000"),
    ("start.burst", "100000"),
    ("watch.poll_rate", "1000"),
];

/// What this gives.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// Waits until this gives something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(what, looks).await
}

/// Shows the last lines of a log, of a test that fails.
#[expect(
    clippy::print_stdout,
    reason = "it is shown where the test fails, and nowhere else"
)]
fn show_end(name: &str, log: &str) {
    let lines: Vec<_> = log.lines().collect();
    let last = lines.len().saturating_sub(60);
    println!("{name}, the end of its log:");
    for line in &lines[last..] {
        println!("{line}");
    }
}

/// Replicas over one database and one gateway. Each has a proxy of its own before the database.
struct Fleet {
    replicas: Vec<Replica>,
    gateway: Gateway,
    server: Postgres,
    directory: TempDir,
    /// Where the clocks of its processes are set, if they are.
    clocks: Option<TempDir>,
}

impl Fleet {
    /// So many replicas with these settings, which are ready; `None` where there is no PostgreSQL.
    async fn new(replicas: usize, settings: &[(&str, &str)]) -> Option<Self> {
        let mut fleet = Self::prepare(replicas, Options::default()).await?;
        fleet.set_all(settings);
        fleet.run().await;
        Some(fleet)
    }

    /// Replicas that do not run yet, over a server with these options, which runs.
    async fn prepare(replicas: usize, options: Options) -> Option<Self> {
        if !has_postgres() {
            return None;
        }
        let server = Postgres::with(options).await;
        let gateway = Gateway::new().await;
        Some(Self::over(replicas, server, gateway).await)
    }

    /// Replicas that do not run yet.
    async fn over(replicas: usize, server: Postgres, gateway: Gateway) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut fleet = Self {
            replicas: Vec::new(),
            gateway,
            server,
            directory,
            clocks: None,
        };
        fleet.write("password", PASSWORD);
        fleet.write("tokens", TOKEN);
        fleet.write("keys", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
        for _ in 0..replicas {
            fleet.add_replica().await;
        }
        fleet
    }

    /// One more that does not run yet.
    async fn add_replica(&mut self) {
        let proxy = Proxy::to(self.server.address()).await;
        let number = self.replicas.len();
        let mut replica = Replica::new(number, self.directory.path(), proxy);
        let settings = [
            ("gateway.url", self.gateway.url.clone()),
            (
                "merchant.secret",
                tillgate::sandbox::DEFAULT_SECRET.to_owned(),
            ),
            ("listen.address", replica.api.to_string()),
            ("listen.token_file", self.path("tokens")),
            ("admin.address", replica.admin.to_string()),
            ("store.url", url_to(replica.proxy.address)),
            ("store.password_file", self.path("password")),
            ("watch.fresh_for", "1ms".to_owned()),
        ];
        for (key, value) in settings {
            replica.set(key, value);
        }
        self.replicas.push(replica);
    }

    /// Sets these for all replicas that are started from here on.
    fn set_all(&mut self, settings: &[(&str, &str)]) {
        for replica in &mut self.replicas {
            for (key, value) in settings {
                replica.set(key, *value);
            }
        }
    }

    /// All replicas post there.
    fn post_to(&mut self, url: &str) {
        let keys = self.path("keys");
        self.set_all(&[("webhook.url", url), ("webhook.secret_file", &keys)]);
    }

    /// Starts those that do not run, and waits until all are ready and know each other.
    async fn run(&self) {
        for replica in &self.replicas {
            if replica.id().is_none() {
                replica.launch();
            }
        }
        join_all(self.replicas.iter().map(Replica::is_ready)).await;
        let all = self.replicas.len();
        join_all(self.replicas.iter().map(|replica| replica.knows(all))).await;
    }

    /// Waits until the store is there for all, or away.
    async fn have_store(&self, is_there: bool) {
        join_all(self.replicas.iter().map(|one| one.has_store(is_there))).await;
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).expect("it is written");
    }
}

impl Index<usize> for Fleet {
    type Output = Replica;

    fn index(&self, number: usize) -> &Replica {
        &self.replicas[number]
    }
}

/// What `store.url` is to be for the database that is reached there.
fn url_to(address: SocketAddr) -> String {
    format!("postgres://{USER}@{address}/{USER}")
}

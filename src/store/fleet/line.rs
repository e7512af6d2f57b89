//! A connection that is made anew whenever it is lost.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::{Notify, watch};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::link::{Database, Link};
use super::standing::Standing;
use super::trouble::Trouble;
use crate::{clock, random, telemetry};

/// The shortest and the longest wait for the next try to connect, before jitter.
const WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// How long statements take, by what they are for.
pub(super) type Durations = Family<[(&'static str, &'static str); 1], Histogram>;

/// A parameter of a statement and its type: statements have no names, so that a pooler may give each another server.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The connection for everything that waits for no commit.
pub(super) struct Line {
    database: Database,
    link: watch::Sender<Option<Arc<Link>>>,
    /// Rings when the connection is of no use any more.
    redial: Notify,
    standing: Arc<Standing>,
    durations: Durations,
}

impl Line {
    pub(super) fn new(database: Database, standing: Arc<Standing>) -> Self {
        Self {
            database,
            link: watch::Sender::new(None),
            redial: Notify::new(),
            standing,
            durations: Family::new_with_constructor(|| Histogram::new(telemetry::LATENCY_BUCKETS)),
        }
    }

    pub(super) fn durations(&self) -> Durations {
        self.durations.clone()
    }

    /// Keeps the connection. Never returns.
    pub(super) async fn keep(&self) {
        loop {
            let link = Arc::new(connect(&self.database, &self.standing).await);
            self.link.send_replace(Some(link.clone()));
            tokio::select! {
                () = link.closed() => {}
                () = self.redial.notified() => {}
            }
            self.link.send_replace(None);
        }
    }

    /// Returns the connection, as soon as there is one.
    pub(super) async fn connected(&self) -> Arc<Link> {
        let mut links = self.link.subscribe();
        loop {
            if let Some(link) = links.borrow_and_update().clone() {
                return link;
            }
            if links.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when there is no connection, or none any more.
    pub(super) async fn lost(&self) {
        let mut links = self.link.subscribe();
        // The sender is `self`.
        let _ = links.wait_for(Option::is_none).await;
    }

    /// Sends a statement and waits for its rows, for as long as a statement may take.
    ///
    /// # Errors
    /// If there is no connection, or the statement fails.
    pub(super) async fn query(
        &self,
        operation: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Trouble> {
        let result = self.ask(operation, sql, parameters).await;
        if let Err(trouble) = &result {
            self.standing.count(trouble);
        }
        result
    }

    async fn ask(
        &self,
        operation: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Trouble> {
        let link = self.link.borrow().clone();
        let link = link.ok_or_else(Trouble::no_connection)?;
        let began = clock::now();
        let result = clock::timeout(self.database.timeout(), link.query(sql, parameters)).await;
        observe(&self.durations, operation, clock::now() - began);
        let result = result.unwrap_or_else(|_| Err(Trouble::timeout()));
        // A statement that got no answer in time holds up those behind it.
        if let Err(trouble) = &result
            && (trouble.ends_connection() || trouble.is_unknown())
        {
            self.redial.notify_one();
        }
        result
    }
}

pub(super) fn observe(durations: &Durations, operation: &'static str, took: Duration) {
    let durations = durations.get_or_create(&[("operation", operation)]);
    durations.observe(took.as_secs_f64());
}

/// Connects, however long that takes.
pub(super) async fn connect(database: &Database, standing: &Standing) -> Link {
    let [mut ceiling, longest] = WAITS;
    loop {
        match database.connect().await {
            Ok(link) => return link,
            Err(trouble) => standing.away(&trouble),
        }
        // At most one try a second, on average, of a replica that has been trying for a while.
        clock::sleep(random::jitter(ceiling)).await;
        ceiling = (ceiling * 2).min(longest);
    }
}

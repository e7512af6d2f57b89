//! A connection that is made anew whenever it is lost.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use tokio_util::sync::CancellationToken;

use super::link::{Database, Link};
use super::standing::Standing;
use super::trouble::{Reason, Trouble};
use crate::clock::{self, Instant};
use crate::{random, telemetry};

/// The shortest and the longest wait for the next try to connect, before jitter.
const WAITS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// A write that takes longer is sent again, though the server says that it works at it: it may wait for its standby.
const WRITE: Duration = Duration::from_secs(60);
/// The same for everything that a large store has.
const LOAD: Duration = Duration::from_secs(600);

const UNDER_WAY: &str = "select exists (select from pg_stat_activity
where usename = current_user and state = 'active' and starts_with(query, $1)), $2::text";

/// How long something may take that comes over the connection for writes.
#[derive(Clone, Copy)]
pub(super) enum Takes<'a> {
    /// As long as a statement may take.
    Short,
    /// A statement with this tag that reads everything.
    Load(&'a str),
    /// A statement with this tag that writes. While it takes too long, the store is away.
    Write(&'a str),
}

/// How long statements take, by what they are for.
pub(super) type Durations = Family<[(&'static str, &'static str); 1], Histogram>;

/// A parameter of a statement and its type: statements have no names, so that a pooler may give each another server.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection, until it is found to be of no use any more.
#[derive(Clone)]
struct Dialled {
    link: Arc<Link>,
    is_bad: CancellationToken,
}

impl Dialled {
    fn is_good(&self) -> bool {
        !self.is_bad.is_cancelled() && !self.link.is_closed()
    }
}

/// The connection for everything that waits for no commit.
pub(super) struct Line {
    database: Database,
    link: watch::Sender<Option<Dialled>>,
    standing: Arc<Standing>,
    durations: Durations,
}

impl Line {
    pub(super) fn new(database: Database, standing: Arc<Standing>) -> Self {
        Self {
            database,
            link: watch::Sender::new(None),
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
            let is_bad = CancellationToken::new();
            self.link.send_replace(Some(Dialled {
                link: link.clone(),
                is_bad: is_bad.clone(),
            }));
            tokio::select! {
                () = link.closed() => {}
                () = is_bad.cancelled() => {}
            }
            self.link.send_replace(None);
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.borrow().as_ref().is_some_and(Dialled::is_good)
    }

    /// Returns the connection, as soon as there is one.
    pub(super) async fn connected(&self) -> Arc<Link> {
        let mut links = self.link.subscribe();
        loop {
            if let Some(dialled) = &*links.borrow_and_update() {
                return dialled.link.clone();
            }
            if links.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the connection; waits for it if it was lost a moment ago, but not while the database is known to be away.
    async fn soon(&self, until: Instant) -> Result<Dialled, Trouble> {
        let mut links = self.link.subscribe();
        let mut standing = self.standing.changed();
        let is_good = |dialled: &Option<Dialled>| dialled.as_ref().is_some_and(Dialled::is_good);
        let dialled = async { links.wait_for(is_good).await.ok()?.clone() };
        let away = async {
            let _ = standing.wait_for(|is_up| !is_up).await;
        };
        let dialled = tokio::select! {
            biased;
            dialled = dialled => dialled,
            () = away => None,
            () = clock::sleep_until(until) => None,
        };
        dialled.ok_or_else(|| {
            let trouble = Trouble::no_connection();
            self.standing.count(&trouble);
            trouble
        })
    }

    /// Waits for what comes over the connection for writes: for as long as a statement may take, and longer if the server
    /// still works at it.
    ///
    /// # Errors
    /// If it fails, or that connection is of no use any more. What was to be done may have been.
    pub(super) async fn beside<T>(
        &self,
        other: impl Future<Output = Result<T, Trouble>>,
        takes: Takes<'_>,
    ) -> Result<T, Trouble> {
        let mut other = pin!(other);
        let began = clock::now();
        loop {
            if let Ok(result) = clock::timeout(self.database.timeout(), &mut other).await {
                return result;
            }
            let trouble = Trouble::timeout();
            let (tag, at_most) = match takes {
                Takes::Short => return Err(trouble),
                Takes::Load(tag) => (tag, LOAD),
                Takes::Write(tag) => {
                    self.standing.away(&trouble);
                    (tag, WRITE)
                }
            };
            if clock::now() - began >= at_most || !self.is_under_way(tag).await {
                return Err(trouble);
            }
        }
    }

    /// Returns whether the server works at a statement with this tag, as far as it can be asked. One that never got the
    /// statement does not, nor one that has taken the place of the other.
    async fn is_under_way(&self, tag: &str) -> bool {
        let parameters: [Parameter<'_>; 1] = [(&tag, Type::TEXT)];
        let rows = self.query("activity", UNDER_WAY, &parameters).await;
        let first = rows.ok().and_then(|rows| rows.into_iter().next());
        first.is_some_and(|row| row.try_get(0).unwrap_or(false))
    }

    /// Sends a statement and waits for its rows ([`Link::ask`]), for as long as a statement may take. Where the connection
    /// turns out to be dead, it is sent again over the next one within that time.
    ///
    /// # Errors
    /// If there is no connection, or the statement fails.
    pub(super) async fn query(
        &self,
        operation: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Trouble> {
        self.send(operation, sql, parameters, true).await
    }

    /// The same with a statement that returns no row ([`Link::tell`]).
    ///
    /// # Errors
    /// See [`Line::query`].
    pub(super) async fn tell(
        &self,
        operation: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<(), Trouble> {
        let sent = self.send(operation, sql, parameters, false).await;
        sent.map(drop)
    }

    async fn send(
        &self,
        operation: &'static str,
        sql: &str,
        parameters: &[Parameter<'_>],
        has_rows: bool,
    ) -> Result<Vec<Row>, Trouble> {
        let until = clock::now() + self.database.timeout();
        loop {
            let Dialled { link, is_bad } = self.soon(until).await?;
            let began = clock::now();
            let sent = async {
                match has_rows {
                    true => link.ask(sql, parameters).await,
                    false => link.tell(sql, parameters).await.map(|()| Vec::new()),
                }
            };
            let result = clock::timeout_at(until, sent).await;
            observe(&self.durations, operation, clock::now() - began);
            let trouble = match result {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(trouble)) => trouble,
                Err(_) => Trouble::timeout(),
            };
            self.standing.count(&trouble);
            // A statement that got no answer in time holds up those behind it.
            if trouble.ends_connection() || trouble.is_unknown() {
                is_bad.cancel();
            }
            let is_dead = trouble.ends_connection() && trouble.reason == Reason::Unreachable;
            // A second question would wait for the call of the first one. Others do no harm, or cost a turn.
            let is_once = operation == "ask" && trouble.is_unknown();
            if !(is_dead && !is_once || trouble.is_undone()) {
                return Err(trouble);
            }
        }
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

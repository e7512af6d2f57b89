//! What `tillgate check --online` finds out about a database.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::super::config::Config;
use super::line::Parameter;
use super::link::{Database, Link, get};
use super::schema::Meta;
use super::statements::Statements;
use super::trouble::{Reason, Trouble};
use super::url::DatabaseUrl;
use crate::clock::{self, Instant};

/// How often a time is measured: the one in the middle counts.
const TRIES: usize = 3;
/// From this difference on the clocks are said to be apart, in seconds.
const APART: f64 = 1.0;
/// How much older than the connection a session may seem, in seconds.
const SESSION_SLACK: f64 = 1.0;

/// What was found, as lines for an operator.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) lines: Vec<String>,
    /// What keeps tillgate from using the database.
    pub(crate) faults: Vec<String>,
}

/// Connects to the database, and looks at what matters for a store.
///
/// # Errors
/// Fails if it cannot be reached. Names the key.
pub(crate) async fn check(
    url: &DatabaseUrl,
    config: &Config,
    gateway: &str,
) -> Result<Findings, String> {
    let database = Database::new(url, config);
    let began = clock::now();
    let link = database
        .connect()
        .await
        .map_err(|trouble| format!("store.url: no connection to {url}: {trouble}"))?;
    let mut visit = Visit {
        link: &link,
        database: &database,
        began,
        found: Findings::default(),
    };
    visit.arrival(url);
    let schema = visit.schema(gateway).await;
    visit.unread("its schema", schema);
    let durability = visit.durability().await;
    visit.unread("its durability", durability);
    let connections = visit.connections().await;
    visit.unread("its connections", connections);
    let clocks = visit.clocks().await;
    visit.unread("its clock", clocks);
    let transactions = visit.transactions().await;
    visit.unread("its transactions", transactions);
    // The commit last: while it waits for a standby, so does everything behind it.
    let times = visit.times().await;
    visit.unread("its times", times);
    Ok(visit.found)
}

/// An open connection, and what is found over it.
struct Visit<'a> {
    link: &'a Link,
    database: &'a Database,
    /// When the connection was begun.
    began: Instant,
    found: Findings,
}

impl Visit<'_> {
    fn line(&mut self, line: String) {
        self.found.lines.push(line);
    }

    fn fault(&mut self, what: &str) {
        self.found.faults.push(format!("store.url: {what}"));
    }

    /// Says that one part could not be read: the others may be.
    fn unread(&mut self, what: &str, part: Result<(), Trouble>) {
        if let Err(trouble) = part {
            self.line(format!("{what} could not be read: {trouble}"));
        }
    }

    /// Says how the connection was made.
    fn arrival(&mut self, url: &DatabaseUrl) {
        let link = self.link;
        let step = |(name, took): &(&str, _)| format!("{name} {}", milliseconds(*took));
        let steps: Vec<_> = link.steps.iter().map(step).collect();
        let tls = if link.is_tls {
            "with TLS"
        } else {
            "without TLS"
        };
        let (place, version) = (link.place(), link.version());
        let (user, steps) = (url.user(), steps.join(", "));
        self.line(format!(
            "store.url: {place} takes writes: {version}, {tls}, as {user} ({steps})"
        ));
    }

    /// Says which version the tables have, or which right is missing.
    async fn schema(&mut self, gateway: &str) -> Result<(), Trouble> {
        const SQL: &str = "select
            exists (select from pg_namespace where nspname = $1),
            coalesce((select has_schema_privilege(oid, 'usage') from pg_namespace where nspname = $1), false),
            coalesce((select has_schema_privilege(oid, 'create') from pg_namespace where nspname = $1),
                has_database_privilege(current_database(), 'create')),
            exists (select from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = $1 and relname = 'meta'),
            (select string_agg(relname::text, ', ' order by relname) from pg_class c join pg_namespace n on n.oid = relnamespace
                where nspname = $1 and relkind = 'r' and not (has_table_privilege(c.oid, 'select')
                and has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'update')
                and has_table_privilege(c.oid, 'delete')))";
        let schema = self.database.schema();
        let row = self.row(SQL, &[(&schema, Type::TEXT)]).await?;
        let flag = |i| get::<bool>(&row, i);
        let (exists, is_usable, may_create) = (flag(0)?, flag(1)?, flag(2)?);
        let run = "tillgate store schema prints what to run";
        if exists && !is_usable {
            self.fault(&format!("schema {schema} is closed to its user: {run}"));
        } else if !flag(3)? && may_create {
            self.line(format!(
                "schema {schema} has no tables yet: tillgate run makes them"
            ));
        } else if !flag(3)? {
            self.fault(&format!(
                "schema {schema} has no tables, and its user may not make them: {run}"
            ));
        } else if let Some(tables) = get::<Option<String>>(&row, 4)? {
            self.fault(&format!(
                "its user may not read and write these tables of schema {schema}: {tables}: {run}"
            ));
        } else {
            match self.tables(gateway).await {
                Ok(Some(version)) => self.line(format!("schema {schema}: version {version}")),
                Ok(None) => self.line(format!("schema {schema}: its tables are empty")),
                Err(why) => self.found.faults.push(why),
            }
        }
        Ok(())
    }

    /// Returns the version of the tables, if there is something in them.
    ///
    /// # Errors
    /// Says why `tillgate run` would refuse them.
    async fn tables(&self, gateway: &str) -> Result<Option<i32>, String> {
        let statements = Statements::new(&self.database.quoted_schema(), "check");
        let unusable = |trouble| format!("store.url: its tables cannot be used: {trouble}");
        let meta = self.link.ask(&statements.meta, &[]);
        let meta = self.in_time(meta).await.and_then(|rows| Meta::of(&rows));
        let Some(meta) = meta.map_err(unusable)? else {
            return Ok(None);
        };
        meta.check(gateway)?;
        // There is always a last write.
        let parameters: [Parameter<'_>; 1] = [(&0_i64, Type::INT8)];
        let tail = self.link.ask(&statements.tail, &parameters);
        let last = self.in_time(tail).await;
        let last = last.and_then(|rows| match rows.first() {
            Some(row) => get::<Option<i64>>(row, 0),
            None => Ok(None),
        });
        if last.map_err(unusable)?.is_none() {
            return Err("store.url: its log has no last write: restore the database, or name another schema (?schema=NAME)".to_owned());
        }
        Ok(Some(meta.version))
    }

    /// Says how long an answer takes, and a commit.
    async fn times(&mut self) -> Result<(), Trouble> {
        // Written into the log of the server alone, but its commit is as durable as any.
        const COMMIT: &str = "select pg_logical_emit_message(true, 'tillgate', 'check')::text";
        let round_trip = milliseconds(self.measured("select 1").await?);
        match self.measured(COMMIT).await {
            Ok(commit) => {
                let commit = milliseconds(commit);
                self.line(format!("round trip {round_trip}, commit {commit}"));
            }
            Err(trouble) if trouble.reason == Reason::Timeout => self.fault(&format!(
                "a commit does not end, so starts would be refused: {trouble}; does it wait for a synchronous standby that is away?"
            )),
            Err(trouble) => self.line(format!(
                "round trip {round_trip}; a commit could not be measured: {trouble}"
            )),
        }
        Ok(())
    }

    async fn measured(&self, sql: &str) -> Result<Duration, Trouble> {
        let mut times = Vec::new();
        for _ in 0..TRIES {
            let began = clock::now();
            self.rows(sql, &[]).await?;
            times.push(clock::now() - began);
        }
        times.sort_unstable();
        Ok(times[TRIES / 2])
    }

    /// Says what a commit waits for.
    async fn durability(&mut self) -> Result<(), Trouble> {
        const SQL: &str = "select current_setting('fsync'), current_setting('synchronous_commit'),
            current_setting('synchronous_standby_names'), (select count(*) from pg_stat_replication)";
        let row = self.row(SQL, &[]).await?;
        let (fsync, commit): (String, String) = (get(&row, 0)?, get(&row, 1)?);
        let (names, standbys): (String, i64) = (get(&row, 2)?, get(&row, 3)?);
        if fsync == "off" {
            self.fault("fsync is off there: a crash of that machine loses or damages what callers were answered; turn it on");
        }
        self.line(match (names.trim(), standbys) {
            ("", 0) => "commits wait for the disk of this server alone, and no standby is connected to it: what it loses is lost".to_owned(),
            ("", n) => format!(
                "commits do not wait for a standby ({n} connected): after a failover the last instants may be missing, and \
                 each replica writes again what it has acknowledged in the last ten minutes"
            ),
            (names, _) => format!("commits wait for a synchronous standby ({names})"),
        });
        if commit == "off" || commit == "local" {
            self.line(format!(
                "synchronous_commit is {commit} for its user: tillgate's own writes wait all the same"
            ));
        }
        Ok(())
    }

    /// Says for how many replicas there are connections.
    async fn connections(&mut self) -> Result<(), Trouble> {
        const SQL: &str = "select current_setting('max_connections')::int8,
            current_setting('superuser_reserved_connections')::int8,
            (select coalesce(sum(numbackends), 0)::int8 from pg_stat_database),
            (select rolconnlimit::int8 from pg_roles where rolname = current_user),
            (select datconnlimit::int8 from pg_database where datname = current_database())";
        let row = self.row(SQL, &[]).await?;
        let [max, reserved, taken] = [0, 1, 2].map(|i| get::<i64>(&row, i));
        let (max, reserved) = (max?, reserved?);
        let limits = [("its user", 3), ("this database", 4)];
        let limits = limits.into_iter().filter_map(|(of, i)| {
            let limit = get::<i64>(&row, i).ok().filter(|limit| *limit >= 0)?;
            Some((of, limit))
        });
        let mut most = max - reserved;
        let mut text = format!(
            "max_connections is {max} ({reserved} of them reserved, {} taken now)",
            taken?
        );
        for (of, limit) in limits {
            most = most.min(limit);
            text.push_str(&format!(", {limit} for {of}"));
        }
        let replicas = most / 2;
        self.line(format!(
            "{text}: each replica has two, so that there is room for {replicas} of them at most"
        ));
        Ok(())
    }

    /// Says how far the clocks are apart, and whether a pooler is in between.
    async fn clocks(&mut self) -> Result<(), Trouble> {
        const SQL: &str = "select extract(epoch from clock_timestamp())::float8,
            extract(epoch from clock_timestamp() - backend_start)::float8
            from pg_stat_activity where pid = pg_backend_pid()";
        let before = clock::Reading::take();
        let row = self.row(SQL, &[]).await?;
        let half = (clock::now() - before.now) / 2;
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds since the epoch fit into its 52 bits"
        )]
        let here = before.wall.as_millisecond() as f64 / 1000.0 + half.as_secs_f64();
        let ahead = get::<f64>(&row, 0)? - here;
        self.line(if ahead.abs() < APART {
            "its clock and that of this machine agree to the second".to_owned()
        } else {
            let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
            format!(
                "its clock is {:.1} s {direction} that of this machine: what is kept goes by its clock, logs and webhooks by this one",
                ahead.abs()
            )
        });
        // A session that is older than the connection was made for another one.
        let age = (clock::now() - self.began).as_secs_f64();
        if get::<f64>(&row, 1)? > age + SESSION_SLACK {
            self.line("a pooler is in between: its session is older than this connection; no statement needs one of its own".to_owned());
        }
        Ok(())
    }

    /// Says whether something keeps the server from cleaning up.
    async fn transactions(&mut self) -> Result<(), Trouble> {
        const SQL: &str =
            "select count(*), coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::float8
            from pg_stat_activity where datname = current_database() and xact_start < clock_timestamp() - interval '1 hour'";
        let row = self.row(SQL, &[]).await?;
        let (old, longest): (i64, f64) = (get(&row, 0)?, get(&row, 1)?);
        self.line(match old {
            0 => "no transaction here is older than an hour (of those that its user may see)"
                .to_owned(),
            old => format!(
                "{old} transactions here are older than an hour, the oldest {:.1} h: while one is open, the server cannot \
                 clean up behind tillgate, and gets slower; end it, and see idle_in_transaction_session_timeout",
                longest / 3600.0
            ),
        });
        Ok(())
    }

    async fn row(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Row, Trouble> {
        let row = self.rows(sql, parameters).await?.into_iter().next();
        row.ok_or_else(|| Trouble::new(Reason::Damaged, "it answered without a row"))
    }

    async fn rows(
        &self,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Trouble> {
        self.in_time(self.link.query(sql, parameters)).await
    }

    async fn in_time(
        &self,
        rows: impl Future<Output = Result<Vec<Row>, Trouble>>,
    ) -> Result<Vec<Row>, Trouble> {
        let rows = clock::timeout(self.database.timeout(), rows).await;
        rows.unwrap_or_else(|_| Err(Trouble::timeout()))
    }
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

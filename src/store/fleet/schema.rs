//! The tables of a fleet's store: made where they are missing, and held against what this version can read.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::asks::PLACES;
use super::line::{Parameter, Takes};
use super::link::{Link, get};
use super::replica::Replica;
use super::trouble::{Reason, Trouble};
use super::turns::BEGIN;
use crate::random;

/// What `tillgate store schema` prints.
const SQL: &str = include_str!("schema.sql");
/// The version of the tables that this program makes and reads.
const VERSION: i32 = 1;
/// Two replicas that make the tables at once make them one after the other.
const LOCK: i32 = 7311;

/// Whether a commit waits for a standby: every write that matters overrules a user whose commits do not wait at all.
const STANDBY: &str = "select current_setting('synchronous_standby_names') <> '', $1::text";

/// Why a replica cannot go on.
#[derive(Debug)]
pub(super) enum Stop {
    /// The database cannot be used at the moment.
    Trouble(Trouble),
    /// This process can never use it.
    Never(String),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Returns the statements that make the tables in this schema. They may be run again.
pub(crate) fn schema_sql(schema: &str) -> String {
    SQL.replace("{schema}", schema)
}

/// Makes the tables if there are none, and checks that they are those of this store.
pub(super) async fn open(replica: &Replica, link: &Link) -> Result<(), Stop> {
    let meta = match meta(replica, link).await? {
        Some(meta) => meta,
        None => {
            found(replica, link).await?;
            let meta = meta_of(replica, link).await?;
            meta.ok_or_else(|| Trouble::new(Reason::Damaged, "the table meta is empty"))?
        }
    };
    meta.check(&replica.gateway).map_err(Stop::Never)?;
    let waits = link.ask(STANDBY, &[]);
    let waits = replica.look.beside(waits, Takes::Short).await?;
    let waits: Option<bool> = waits.first().and_then(|row| row.try_get(0).ok());
    let waits = waits.map(std::sync::Arc::new);
    replica.standing.waits_for_standby.store(waits);
    Ok(())
}

/// The row of the table `meta`.
pub(super) struct Meta {
    pub(super) version: i32,
    readable_from: i32,
    gateway: String,
}

impl Meta {
    /// Reads what [`super::statements::Statements::meta`] returned; `None` if there is no row.
    pub(super) fn of(rows: &[Row]) -> Result<Option<Self>, Trouble> {
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let Some(version) = get(row, 0)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            version,
            readable_from: get(row, 1)?,
            gateway: get(row, 2)?,
        }))
    }

    /// Checks that this program may use the store with this gateway.
    ///
    /// # Errors
    /// Says why it can never do so.
    pub(super) fn check(&self, gateway: &str) -> Result<(), String> {
        if self.readable_from > VERSION {
            return Err(format!(
                "store.url: the tables are of version {}, which this tillgate cannot read: run a newer one",
                self.version
            ));
        }
        if self.gateway != gateway {
            return Err(format!(
                "store.url: this store belongs to {}, and gateway.url is {gateway}: a store is for one gateway. Name another \
                 database, or another schema (?schema=NAME)",
                self.gateway
            ));
        }
        Ok(())
    }
}

/// Returns the row of the table `meta`; `None` if there is no table or no row.
async fn meta(replica: &Replica, link: &Link) -> Result<Option<Meta>, Stop> {
    match meta_of(replica, link).await {
        Ok(row) => Ok(row),
        Err(trouble) if is_missing(&trouble) => Ok(None),
        Err(trouble) => Err(never_without_rights(replica, trouble)),
    }
}

async fn meta_of(replica: &Replica, link: &Link) -> Result<Option<Meta>, Trouble> {
    let meta = link.ask(&replica.statements.meta, &[]);
    Meta::of(&replica.look.beside(meta, Takes::Short).await?)
}

/// Neither the schema nor the table is there.
fn is_missing(trouble: &Trouble) -> bool {
    let code = trouble.code().map(tokio_postgres::error::SqlState::code);
    matches!(code, Some("42P01" | "3F000"))
}

/// Makes the tables, and the first row of each that needs one. Others may do the same at this moment.
async fn found(replica: &Replica, link: &Link) -> Result<(), Stop> {
    let sql = schema_sql(replica.database.schema());
    let all = format!("select pg_advisory_xact_lock({LOCK});\n{sql}");
    match link.batch(&all).await {
        Ok(()) => {}
        // They may be there, made by hand, and only the row is missing.
        Err(trouble) if !trouble.ends_connection() && meta_of(replica, link).await.is_ok() => {}
        Err(trouble) => return Err(never_without_rights(replica, trouble)),
    }
    let (run, mark) = (random::token(8), random::token(16));
    let now = replica.clock.reading().wall.as_millisecond();
    let parameters: [Parameter<'_>; 3] = [
        (&run, Type::TEXT),
        (&replica.gateway, Type::TEXT),
        (&now, Type::INT8),
    ];
    let founded = link.query(&replica.statements.found, &parameters).await;
    founded.map_err(|trouble| never_without_rights(replica, trouble))?;
    let parameters: [Parameter<'_>; 1] = [(&mark, Type::TEXT)];
    link.query(&replica.statements.begin, &parameters).await?;
    // Nothing was sent to the gateway yet: the first burst is whole.
    let (places, at_once) = (replica.terms.rate.get(), 0.0);
    let places = i32::try_from(places).unwrap_or(i32::MAX);
    let parameters: [Parameter<'_>; 2] = [(&places, Type::INT4), (&at_once, Type::FLOAT8)];
    link.query(&replica.named(PLACES), &parameters).await?;
    let parameters: [Parameter<'_>; 1] = [(&at_once, Type::FLOAT8)];
    link.query(&replica.named(BEGIN), &parameters).await?;
    Ok(())
}

/// Without a right that it needs, a replica can do nothing. One that had it may get it again.
fn never_without_rights(replica: &Replica, trouble: Trouble) -> Stop {
    let code = trouble.code().map(tokio_postgres::error::SqlState::code);
    if code != Some("42501") || replica.is_loaded() {
        return Stop::Trouble(trouble);
    }
    Stop::Never(format!(
        "store.url: {}: {trouble}. Run what `tillgate store schema` prints as the owner of the database, and give this user \
         the rights on the tables (docs/fleet.md)",
        replica.standing.place(),
    ))
}

//! The tables of a fleet's store: made where they are missing, and held against what this version can read.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::Inner;
use super::line::Parameter;
use super::link::Link;
use super::trouble::{Reason, Trouble};
use crate::random;

/// What `tillgate store schema` prints.
const SQL: &str = include_str!("schema.sql");
/// The version of the tables that this program makes and reads.
const VERSION: i32 = 1;
/// Two replicas that make the tables at once make them one after the other.
const LOCK: i32 = 7311;

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
pub(super) async fn open(inner: &Inner, link: &Link) -> Result<(), Stop> {
    let meta = match meta(inner, link).await? {
        Some(meta) => meta,
        None => {
            found(inner, link).await?;
            let meta = meta_of(inner, link).await?;
            meta.ok_or_else(|| Trouble::new(Reason::Damaged, "the table meta is empty"))?
        }
    };
    let (version, readable_from): (i32, i32) = (meta.get(0), meta.get(1));
    if readable_from > VERSION {
        return Err(Stop::Never(format!(
            "store.url: the tables are of version {version}, which this tillgate cannot read: run a newer one"
        )));
    }
    let gateway: &str = meta.get(3);
    if gateway != inner.gateway {
        return Err(Stop::Never(format!(
            "store.url: this store belongs to {gateway}, and gateway.url is {}: a store is for one gateway. Name another \
             database, or another schema (?schema=NAME)",
            inner.gateway
        )));
    }
    Ok(())
}

/// Returns the row of the table `meta`; `None` if there is no table or no row.
async fn meta(inner: &Inner, link: &Link) -> Result<Option<Row>, Stop> {
    match meta_of(inner, link).await {
        Ok(row) => Ok(row),
        Err(trouble) if is_missing(&trouble) => Ok(None),
        Err(trouble) => Err(never_without_rights(inner, trouble)),
    }
}

async fn meta_of(inner: &Inner, link: &Link) -> Result<Option<Row>, Trouble> {
    let meta = link.query(&inner.statements.meta, &[]);
    let rows = inner.look.beside(meta, || ()).await?;
    Ok(rows.into_iter().next())
}

/// Neither the schema nor the table is there.
fn is_missing(trouble: &Trouble) -> bool {
    let code = trouble.code().map(tokio_postgres::error::SqlState::code);
    matches!(code, Some("42P01" | "3F000"))
}

/// Makes the tables, and the first row of each that needs one. Others may do the same at this moment.
async fn found(inner: &Inner, link: &Link) -> Result<(), Stop> {
    let sql = schema_sql(inner.database.schema());
    let all = format!("select pg_advisory_xact_lock({LOCK});\n{sql}");
    match link.batch(&all).await {
        Ok(()) => {}
        // They may be there, made by hand, and only the row is missing.
        Err(trouble) if !trouble.ends_connection() && meta_of(inner, link).await.is_ok() => {}
        Err(trouble) => return Err(never_without_rights(inner, trouble)),
    }
    let (run, mark) = (random::token(8), random::token(16));
    let now = inner.clock.reading().wall.as_millisecond();
    let parameters: [Parameter<'_>; 3] = [
        (&run, Type::TEXT),
        (&inner.gateway, Type::TEXT),
        (&now, Type::INT8),
    ];
    let founded = link.query(&inner.statements.found, &parameters).await;
    founded.map_err(|trouble| never_without_rights(inner, trouble))?;
    let parameters: [Parameter<'_>; 1] = [(&mark, Type::TEXT)];
    link.query(&inner.statements.begin, &parameters).await?;
    Ok(())
}

/// Without a right that it needs, a replica can do nothing.
fn never_without_rights(inner: &Inner, trouble: Trouble) -> Stop {
    let code = trouble.code().map(tokio_postgres::error::SqlState::code);
    if code != Some("42501") {
        return Stop::Trouble(trouble);
    }
    Stop::Never(format!(
        "store.url: {}: {trouble}. Run what `tillgate store schema` prints as the owner of the database, and give this user \
         the rights on the tables (docs/fleet.md)",
        inner.standing.place(),
    ))
}

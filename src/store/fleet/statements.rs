//! The statements that are logged, and those that read the log. Each is one round trip, and needs nothing of the session.

use crate::store::rows::Table;

/// The texts, with the name of the schema in them.
pub(super) struct Statements {
    /// Begins the statements that may take long.
    pub(super) tag: String,
    pub(super) meta: String,
    pub(super) found: String,
    pub(super) begin: String,
    pub(super) write: String,
    pub(super) tail: String,
    pub(super) load: String,
    pub(super) parts: String,
    pub(super) new_run: String,
}

impl Statements {
    /// `process`: an id of this process alone.
    pub(super) fn new(schema: &str, process: &str) -> Self {
        let tag = format!("/* {process} */");
        let tagged = |sql: &str| format!("{tag} {}", sql.replace("{s}", schema));
        let named = |sql: &str| sql.replace("{s}", schema);
        Self {
            meta: named(META),
            found: named(FOUND),
            begin: named(BEGIN),
            write: tagged(WRITE),
            tail: named(TAIL).replace("{limit}", &TAIL_AT_ONCE.to_string()),
            load: tagged(LOAD),
            parts: named(PARTS),
            new_run: named(NEW_RUN),
            tag,
        }
    }
}

/// $1 comes back, as the last parameter of each statement that reads.
const META: &str = "select version, readable_from, gateway, $1::text from (values (1)) v left join {s}.meta on true";

/// Founds the store of this gateway: run, gateway, milliseconds since when nothing is missing.
const FOUND: &str = "insert into {s}.meta (version, readable_from, run, gateway, complete_since)
values (1, 1, $1, $2, $3) on conflict do nothing";

/// The row before the first write.
const BEGIN: &str =
    "insert into {s}.log (position, mark, events) values (0, $1, '[]') on conflict do nothing";

/// Writes what comes after the last write that this replica has seen ($1 its position, $2 its mark), all or nothing.
///
/// If somebody else has written in between, the unique index of the log lets nothing happen, and no row comes back; while
/// somebody else is about to, it waits. The same write sent again (after its answer was lost) waits for the first one, and
/// changes nothing but the count of tries: that change makes its commit wait for a standby as the first one did.
/// A role or database that does without waiting for the disk is overruled, for this statement alone.
const WRITE: &str = "with durable as materialized (
  select case when current_setting('synchronous_commit') in ('off', 'local')
    then set_config('synchronous_commit', 'on', true) end as was
), mine as (
  insert into {s}.log as l (position, mark, events)
  select $1 + 1, $3, $4 from durable where exists (select from {s}.log where position = $1 and mark = $2)
  on conflict (position) do update set tries = l.tries + 1 where l.mark = excluded.mark
  returning position, tries
), input as (
  select i.kind, i.key, i.value from unnest($5, $6, $7) as i (kind, key, value), mine where mine.tries = 0
), put as (
  insert into {s}.rows as r (kind, key, value) select kind, key, value from input where value is not null
  on conflict (kind, key) do update set value = excluded.value
), gone as (
  delete from {s}.rows r using input i where i.value is null and r.kind = i.kind and r.key = i.key
), old as (
  delete from {s}.rows r using mine where $8 > 0 and r.kind = 1 and r.key <= int8send($8)
), since as (
  update {s}.meta set complete_since = $9 from mine where complete_since < $9
)
select position, $10::text from (values (1)) v left join mine on true";

/// Writes that are read at once.
pub(super) const TAIL_AT_ONCE: usize = 200;

/// The writes from the last one on that this replica has seen, that one included.
const TAIL: &str = "select t.*, $2::text from (values (1)) v left join (
  select position, mark, events, (extract(epoch from clock_timestamp() - at) * 1000)::float8 as age_ms
  from {s}.log where position >= $1 order by position limit {limit}
) t on true order by t.position";

/// Everything as of one moment, row by row: first the journal's name behind $1, and the last position with its mark, then the
/// rows.
const LOAD: &str = "select (-2)::smallint as kind, convert_to($1 || run, 'UTF8') as key, int8send(complete_since) as value from {s}.meta
union all
(select (-1)::smallint, int8send(position), convert_to(mark, 'UTF8') from {s}.log order by position desc limit 1)
union all
(select kind, key, value from {s}.rows)
order by kind, key";

/// Rows of payments ($1: their keys).
const PARTS: &str = "select key, value, $2::text from (values (1)) v
left join {s}.rows on kind = 0 and key = any ($1)";

/// Names the journal anew ($2), if nobody has since ($1).
const NEW_RUN: &str = "update {s}.meta set run = $2 where run = $1";

/// How a table is named in the database.
pub(super) fn number(table: Table) -> i16 {
    match table {
        Table::Payments => 0,
        Table::Changes => 1,
        Table::Answers => 2,
        Table::Deliveries => 3,
    }
}

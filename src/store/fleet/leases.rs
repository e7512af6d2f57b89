//! What one replica does at a time. A lease spares calls and tries; nothing rests on it, for it may be lost.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::Inner;
use super::line::Parameter;
use super::trouble::Trouble;
use crate::random;

/// Takes names ($1) for an attempt ($3) of a replica ($2), if nobody has them who is alive ($6 milliseconds): all that are
/// free, and says of each whether it is ours now, and else what it is held for.
const TAKE: &str = "with mine as (
  insert into {s}.leases as l (name, by, attempt, note, until)
  select name, $2, $3, $4, clock_timestamp() + $5 * interval '1 millisecond' from unnest($1) as n (name) order by name
  on conflict (name) do update
    set by = excluded.by, attempt = excluded.attempt, note = excluded.note, until = excluded.until
  where l.attempt = excluded.attempt or l.until < clock_timestamp()
    or l.until > excluded.until + interval '1 minute'
    or not exists (select from {s}.members m where m.member = l.by
      and m.seen_at > clock_timestamp() - $6 * interval '1 millisecond')
  returning name
)
select n.name, mine.name is not null as is_mine, l.note from unnest($1) as n (name)
left join mine on mine.name = n.name left join {s}.leases l on l.name = n.name";

const GIVE_BACK: &str = "delete from {s}.leases where name = any ($1) and attempt = $2";

/// The texts, with the name of the schema in them.
pub(super) struct Statements {
    take: String,
    give_back: String,
}

impl Statements {
    pub(super) fn new(schema: &str) -> Self {
        let named = |sql: &str| sql.replace("{s}", schema);
        Self {
            take: named(TAKE),
            give_back: named(GIVE_BACK),
        }
    }
}

/// Names that this replica holds until this is dropped.
pub(crate) struct Lease {
    inner: std::sync::Arc<Inner>,
    names: Vec<String>,
    attempt: String,
}

/// What came of trying to take names.
pub(super) enum Taken {
    Ours(Lease),
    /// Another replica has some of them. These are what it holds each of them for.
    Theirs(Vec<(String, Vec<u8>)>),
}

impl Lease {
    /// Takes these names, all or none of them, for at most this time.
    pub(super) async fn take(
        inner: &std::sync::Arc<Inner>,
        names: Vec<String>,
        note: &[u8],
        at_most: Duration,
    ) -> Result<Taken, Trouble> {
        let lease = Self {
            inner: inner.clone(),
            names,
            attempt: random::token(16),
        };
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let (lasts, alive) = (
            milliseconds(at_most),
            milliseconds(super::members::ALIVE_FOR),
        );
        let parameters: [Parameter<'_>; 6] = [
            (&lease.names, Type::TEXT_ARRAY),
            (&inner.members.me.id, Type::TEXT),
            (&lease.attempt, Type::TEXT),
            (&note, Type::BYTEA),
            (&lasts, Type::FLOAT8),
            (&alive, Type::FLOAT8),
        ];
        let take = &inner.leases_sql.take;
        let rows = inner.look.query("lease", take, &parameters).await?;
        let others = rows.iter().filter(|row| !row.get::<_, bool>(1));
        let others: Vec<_> = others
            .map(|row| {
                let note = row.get::<_, Option<Vec<u8>>>(2);
                (row.get(0), note.unwrap_or_default())
            })
            .collect();
        Ok(if others.is_empty() {
            Taken::Ours(lease)
        } else {
            // Dropped: what was free is free again.
            Taken::Theirs(others)
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (inner, names) = (self.inner.clone(), std::mem::take(&mut self.names));
        let attempt = std::mem::take(&mut self.attempt);
        self.inner.tasks.detach(async move {
            let parameters: [Parameter<'_>; 2] =
                [(&names, Type::TEXT_ARRAY), (&attempt, Type::TEXT)];
            let give_back = &inner.leases_sql.give_back;
            // Should it not arrive, the lease runs out.
            let _ = inner.look.query("give_back", give_back, &parameters).await;
        });
    }
}

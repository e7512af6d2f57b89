//! What one replica does at a time. A lease spares calls and tries; nothing rests on it, for it may be lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::types::Type;

use super::line::Parameter;
use super::link::get;
use super::members;
use super::replica::Replica;
use super::trouble::Trouble;
use crate::clock::{self, Instant};
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
select n.name, mine.name is not null as is_mine, l.note, $7::text from unnest($1) as n (name)
left join mine on mine.name = n.name left join {s}.leases l on l.name = n.name";

const GIVE_BACK: &str = "delete from {s}.leases where name = any ($1) and attempt = $2";

/// Gives back what attempts ($1) have taken, and returns which of them had something.
const CLEAR: &str =
    "with gone as (delete from {s}.leases where attempt = any ($1) returning attempt)
select attempt, $2::text from (values (1)) v left join gone on true";

/// For this time a statement that had no answer may still be carried out: it may wait in the server, or on its way.
const LATE: Duration = Duration::from_secs(600);
/// Attempts that are remembered as unclear. Others run out.
const ROOM: usize = 10_000;

/// Takes names for this replica.
pub(super) struct Leases {
    replica: Arc<Replica>,
    take: String,
    give_back: String,
    clear: String,
    unclear: Unclear,
}

/// Attempts that may have names, or may get them late, though nobody needs them; and since when that is unclear.
#[derive(Default)]
struct Unclear(Mutex<HashMap<String, Instant>>);

/// Names that this replica holds until this is dropped.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    names: Vec<String>,
    attempt: String,
}

/// What came of trying to take names.
pub(super) enum Taken {
    Ours(Lease),
    /// Another replica has some of them. These are what it holds each of them for.
    Theirs(Vec<(String, Vec<u8>)>),
}

impl Leases {
    pub(super) fn new(replica: Arc<Replica>) -> Arc<Self> {
        let [take, give_back, clear] = [TAKE, GIVE_BACK, CLEAR].map(|sql| replica.named(sql));
        Arc::new(Self {
            replica,
            take,
            give_back,
            clear,
            unclear: Unclear::default(),
        })
    }

    /// Gives back what was taken, or not given back, by statements that had no answer.
    pub(super) async fn clear(&self) {
        let attempts = self.unclear.all();
        if attempts.is_empty() {
            return;
        }
        let parameters: [Parameter<'_>; 1] = [(&attempts, Type::TEXT_ARRAY)];
        let look = &self.replica.look;
        // Should it fail, the next one may not.
        let cleared = look.query("give_back", &self.clear, &parameters).await;
        for row in cleared.unwrap_or_default() {
            if let Ok(Some(attempt)) = row.try_get(0) {
                self.unclear.remove(attempt);
            }
        }
    }

    /// Takes these names, all or none of them, for at most this time.
    pub(super) async fn take(
        self: &Arc<Self>,
        names: Vec<String>,
        note: &[u8],
        at_most: Duration,
    ) -> Result<Taken, Trouble> {
        let mut lease = Lease {
            leases: self.clone(),
            names,
            attempt: random::token(16),
        };
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let (lasts, alive) = (milliseconds(at_most), milliseconds(members::ALIVE_FOR));
        let parameters: [Parameter<'_>; 6] = [
            (&lease.names, Type::TEXT_ARRAY),
            (&self.replica.members.me.id, Type::TEXT),
            (&lease.attempt, Type::TEXT),
            (&note, Type::BYTEA),
            (&lasts, Type::FLOAT8),
            (&alive, Type::FLOAT8),
        ];
        let look = &self.replica.look;
        let taken = look.query("lease", &self.take, &parameters).await;
        if let Err(trouble) = &taken {
            // It may be carried out after all that is sent now.
            lease.names.clear();
            if trouble.is_unknown() {
                self.unclear.add(std::mem::take(&mut lease.attempt));
            }
        }
        let rows = taken?;
        let mut others = Vec::new();
        for row in &rows {
            if !get::<bool>(row, 1)? {
                let note: Option<Vec<u8>> = get(row, 2)?;
                others.push((get(row, 0)?, note.unwrap_or_default()));
            }
        }
        Ok(if others.is_empty() {
            Taken::Ours(lease)
        } else {
            // Dropped: what was free is free again.
            Taken::Theirs(others)
        })
    }
}

impl Unclear {
    fn all(&self) -> Vec<String> {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        attempts.retain(|_, since| now - *since < LATE);
        attempts.keys().cloned().collect()
    }

    fn add(&self, attempt: String) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() < ROOM {
            attempts.insert(attempt, clock::now());
        }
    }

    fn remove(&self, attempt: &str) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.remove(attempt);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.names.is_empty() {
            return;
        }
        let (leases, names) = (self.leases.clone(), std::mem::take(&mut self.names));
        let attempt = std::mem::take(&mut self.attempt);
        self.leases.replica.tasks.detach(async move {
            let parameters: [Parameter<'_>; 2] =
                [(&names, Type::TEXT_ARRAY), (&attempt, Type::TEXT)];
            let look = &leases.replica.look;
            let given = look.tell("give_back", &leases.give_back, &parameters);
            if given.await.is_err() {
                leases.unclear.add(attempt);
            }
        });
    }
}

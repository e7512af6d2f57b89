//! `start.rate` for a whole fleet: whose turn it is to start a payment.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::line::Parameter;
use super::link::get;
use super::replica::Replica;
use super::trouble::Trouble;
use crate::clock;

/// A turn that was not used by then is void: who slept may not send what others have sent meanwhile.
const VOID_AFTER: Duration = Duration::from_secs(1);
/// Turns that a start may leave unused before the database is taken to be too slow.
const TRIES: usize = 3;

/// Takes a turn, if one comes within the time that a start may wait ($3 seconds): GCRA with the rate $1 and the burst $2.
/// Where the moment of the next turn is further ahead than it can be, the clock was set back: turns begin anew, without a
/// burst.
const TAKE: &str = "with turn as (
update {s}.gauge g set granted = k.n, tat = k.base + k.n / $1 * interval '1 second'
from (
  select s.base, s.t, case when extract(epoch from s.base - s.t)::float8 - ($2 - 1) / $1 <= $3 then 1 else 0 end as n
  from (
    select t.t, case when h.tat > t.t + ($2 / $1 + $3 + 0.1) * interval '1 second'
      then t.t + ($2 - 1) / $1 * interval '1 second' else greatest(t.t, h.tat) end as base
    from (select clock_timestamp() as t) t, {s}.gauge h where h.name = 'start' for update of h
  ) s
) k
where g.name = 'start' returning k.n, (extract(epoch from k.base - k.t)::float8 - ($2 - 1) / $1)::float8 as wait
)
select n, wait, $4::text from (values (1)) v left join turn on true";

/// Lets turns be taken, as if those of the next $1 seconds had been taken.
pub(super) const BEGIN: &str = "insert into {s}.gauge (name, tat, granted)
values ('start', clock_timestamp() + $1 * interval '1 second', 0) on conflict do nothing";

/// The turns of all replicas together.
pub(crate) struct Turns {
    replica: Arc<Replica>,
    take: String,
    begin: String,
    rate: f64,
    burst: f64,
    queue_for: Duration,
}

/// Why there is no turn.
#[derive(Debug)]
pub(crate) enum NoTurn {
    /// None comes in time; after that one may.
    TooMany { retry_after: Duration },
    /// The store is away.
    Away,
}

impl Turns {
    pub(super) fn new(
        replica: Arc<Replica>,
        rate: f64,
        burst: NonZeroU32,
        queue_for: Duration,
    ) -> Self {
        let [take, begin] = [TAKE, BEGIN].map(|sql| replica.named(sql));
        Self {
            replica,
            take,
            begin,
            rate,
            burst: burst.get().into(),
            queue_for,
        }
    }

    /// Waits until it is this caller's turn.
    ///
    /// # Errors
    /// If none comes in time; then none was used.
    pub(crate) async fn take(&self) -> Result<(), NoTurn> {
        for _ in 0..TRIES {
            let asked = clock::now();
            let (granted, wait) = self.ask().await.map_err(|_| NoTurn::Away)?;
            if !granted {
                let retry_after = Duration::from_secs_f64(1.0 / self.rate);
                return Err(NoTurn::TooMany { retry_after });
            }
            clock::sleep(wait).await;
            if clock::now() - (asked + wait) < VOID_AFTER {
                return Ok(());
            }
        }
        Err(NoTurn::Away)
    }

    /// Returns whether there is a turn, and when it comes.
    async fn ask(&self) -> Result<(bool, Duration), Trouble> {
        let mut answer = self.ask_once().await?;
        if answer.is_none() {
            // The server has crashed, and what it did not log is gone. There may have been a burst just before.
            let seconds = self.burst / self.rate;
            let parameters: [Parameter<'_>; 1] = [(&seconds, Type::FLOAT8)];
            let look = &self.replica.look;
            look.tell("turn", &self.begin, &parameters).await?;
            answer = self.ask_once().await?;
        }
        answer.ok_or_else(|| Trouble::damaged("the table gauge keeps no row"))
    }

    async fn ask_once(&self) -> Result<Option<(bool, Duration)>, Trouble> {
        let queue_for = self.queue_for.as_secs_f64();
        let parameters: [Parameter<'_>; 3] = [
            (&self.rate, Type::FLOAT8),
            (&self.burst, Type::FLOAT8),
            (&queue_for, Type::FLOAT8),
        ];
        let look = &self.replica.look;
        let rows = look.query("turn", &self.take, &parameters).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let (granted, wait): (Option<i32>, Option<f64>) = (get(row, 0)?, get(row, 1)?);
        Ok(granted.zip(wait).map(|(granted, wait)| {
            let wait = Duration::try_from_secs_f64(wait).unwrap_or_default();
            (granted > 0, wait)
        }))
    }
}

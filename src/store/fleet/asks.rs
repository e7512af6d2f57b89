//! `watch.poll_rate` for a whole fleet, and one question for all who ask: whether a replica may ask the gateway now.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::line::Parameter;
use super::link::get;
use super::replica::{Replica, Terms};
use super::trouble::Trouble;
use crate::clock::{self, Instant};
use crate::payment::WatchCode;
use crate::random;

/// Takes a place and the payment together, or neither. A place is free a second after the end of its call, or, if nobody
/// hears of that, a second after the call must have ended.
///
/// $1 the watch code, $2 the replica, $3 the age in milliseconds from which on an answer is too old, $4 how long a call
/// takes at most, $5 how many places there are, $6 how many of them are kept for others, $7 a random place.
const TAKE: &str = "with place as (
  select n from {s}.places
  where n > $6 and n <= $5
    and (free_at <= clock_timestamp() or free_at > clock_timestamp() + ($4 + 2000) * interval '1 millisecond')
  order by (n < $7) limit 1 for update skip locked
), mine as (
  insert into {s}.asks as a (watch_code, by, claimed_at, busy_until)
  select $1, $2, clock_timestamp(), clock_timestamp() + $4 * interval '1 millisecond' from place
  on conflict (watch_code) do update
    set by = excluded.by, claimed_at = excluded.claimed_at, busy_until = excluded.busy_until
  where (a.busy_until is null or a.busy_until < clock_timestamp()
      or a.busy_until > clock_timestamp() + ($4 + 1000) * interval '1 millisecond')
    and (a.asked_at is null or a.asked_at <= clock_timestamp() - $3 * interval '1 millisecond'
      or a.asked_at > clock_timestamp())
  returning watch_code
), taken as (
  update {s}.places p set by = $2, free_at = clock_timestamp() + ($4 + 1000) * interval '1 millisecond'
  from place, mine where p.n = place.n returning p.n
)
select (select n from taken) as place,
  exists (select from place) as has_place,
  (extract(epoch from clock_timestamp() - a.asked_at) * 1000)::float8 as age_ms,
  coalesce(a.busy_until > clock_timestamp(), false) as is_busy,
  (select (extract(epoch from min(free_at) - clock_timestamp()) * 1000)::float8 from {s}.places where n <= $5 and n > $6)
    as next_ms,
  (select max(position) from {s}.log) as position,
  exists (select from {s}.places
    where n <= $5 and by is null and free_at > clock_timestamp() + interval '1500 millisecond') as is_new, $8::text
from (values (1)) v left join {s}.asks a on a.watch_code = $1";

/// The call is over ($1 its place, $2 the replica, $3 the watch code); with $4 it was answered, and counts for all.
///
/// The place comes first, as in [`TAKE`], which may hold a place that it has not got, if it was just given to this call:
/// in the other order the two could wait for each other.
const DONE: &str = "with back as (
  update {s}.places set by = null, free_at = clock_timestamp() + interval '1 second' where n = $1 and by = $2 returning n
)
update {s}.asks set busy_until = null, asked_at = case when $4 then claimed_at else asked_at end
from (select count(*) from back) as first
where watch_code = $3 and by = $2 and busy_until is not null";

/// Makes as many places as $1, which are free after $2 milliseconds.
pub(super) const PLACES: &str = "insert into {s}.places (n, free_at)
select n, clock_timestamp() + $2 * interval '1 millisecond' from generate_series(1, $1) as g (n) on conflict do nothing";

/// Asks for this replica whether the gateway may be asked.
pub(super) struct Asks {
    replica: Arc<Replica>,
    share: Share,
    take: String,
    done: String,
    places: String,
}

impl Asks {
    pub(super) fn new(replica: Arc<Replica>) -> Arc<Self> {
        let [take, done, places] = [TAKE, DONE, PLACES].map(|sql| replica.named(sql));
        let share = Share::default();
        Arc::new(Self {
            replica,
            share,
            take,
            done,
            places,
        })
    }
}

/// Why the gateway is to be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Why {
    /// Somebody waits for the answer, or for what it may say next.
    pub(crate) is_waited_for: bool,
    /// A younger answer will do, whoever got it. Zero: none will do.
    pub(crate) younger_than: Duration,
    /// Until then it is worth waiting.
    pub(crate) deadline: Instant,
}

/// Whether the gateway may be asked.
pub(crate) enum MayAsk {
    /// It may. The pass is to be given back when the call is over.
    Go(Pass),
    /// Another replica has asked it at that moment, and what it said is in the store.
    Known(Instant),
    /// There is no place before the deadline.
    NoPlace,
}

/// The right to ask the gateway once about one payment.
#[derive(Default)]
pub(crate) struct Pass(Option<Held>);

struct Held {
    asks: Arc<Asks>,
    place: i32,
    code: WatchCode,
}

/// What the database says of a question.
enum Said {
    Go(i32),
    Known(Duration),
    Busy,
    NoPlace(Duration),
    /// The places were made a moment ago, and calls may be under way that nobody knows of.
    NewPlaces,
}

/// When a payment was asked for last is forgotten after this time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// The first and the longest time until it is looked again whether a call elsewhere is over.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(200)];

/// Waits until the gateway may be asked about this payment, or need not be.
pub(super) async fn may_ask(asks: &Arc<Asks>, code: &WatchCode, why: Why) -> MayAsk {
    let [mut again, longest] = LOOK_AGAIN;
    let mut was_busy = false;
    loop {
        let younger_than = match was_busy {
            // What the other call has found out is new enough for one who came while it was under way.
            true => why.younger_than.max(again + Duration::from_millis(50)),
            false => why.younger_than,
        };
        let said = ask(asks, code, why.is_waited_for, younger_than).await;
        let wait = match said {
            Err(_) | Ok((Said::NewPlaces, _)) => return within_share(asks, why.deadline).await,
            Ok((Said::Go(place), position)) => {
                let held = Held {
                    asks: asks.clone(),
                    place,
                    code: code.clone(),
                };
                // What others have found out since may be final.
                asks.replica.up_to(position).await;
                return MayAsk::Go(Pass(Some(held)));
            }
            Ok((Said::Known(age), position)) => {
                asks.replica.up_to(position).await;
                asks.replica.metrics.polls_elsewhere.inc();
                let now = clock::now();
                return MayAsk::Known(now.checked_sub(age).unwrap_or(now));
            }
            Ok((Said::Busy, _)) => {
                was_busy = true;
                let wait = again;
                again = (again * 2).min(longest);
                wait
            }
            Ok((Said::NoPlace(wait), _)) => wait.max(LOOK_AGAIN[0]),
        };
        if clock::now() + wait >= why.deadline {
            return MayAsk::NoPlace;
        }
        clock::sleep(wait).await;
    }
}

async fn ask(
    asks: &Asks,
    code: &WatchCode,
    is_waited_for: bool,
    younger_than: Duration,
) -> Result<(Said, u64), Trouble> {
    let Terms { rate, call } = asks.replica.terms;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let places = i32::try_from(rate.get()).unwrap_or(i32::MAX);
    // The first fifth is for those with someone waiting.
    let reserved = if is_waited_for { 0 } else { places / 5 };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the number of places"
    )]
    let random = (random::fraction() * f64::from(places)) as i32 + 1;
    let code = code.as_str();
    // No interval of the database is endless, and no answer is known for longer.
    let younger_than = younger_than.min(FORGOTTEN_AFTER);
    let (younger_than, call) = (milliseconds(younger_than), milliseconds(call));
    let parameters: [Parameter<'_>; 7] = [
        (&code, Type::TEXT),
        (&asks.replica.members.me.id, Type::TEXT),
        (&younger_than, Type::FLOAT8),
        (&call, Type::FLOAT8),
        (&places, Type::INT4),
        (&reserved, Type::INT4),
        (&random, Type::INT4),
    ];
    let look = &asks.replica.look;
    let rows = look.query("ask", &asks.take, &parameters).await?;
    let row = rows.first().ok_or_else(|| Trouble::damaged("no row"))?;
    let position: Option<i64> = get(row, 5)?;
    let position = u64::try_from(position.unwrap_or_default()).unwrap_or_default();
    let said = said(row, younger_than)?;
    if let Said::NoPlace(_) = said
        && get::<Option<f64>>(row, 4)?.is_none()
    {
        // The server has crashed, and what it did not log is gone: calls may be under way.
        begin(asks, asks.replica.terms.call + Duration::from_secs(1)).await?;
    }
    Ok((said, position))
}

fn said(row: &Row, younger_than: f64) -> Result<Said, Trouble> {
    let place: Option<i32> = get(row, 0)?;
    let (has_place, age, is_busy): (bool, Option<f64>, bool) =
        (get(row, 1)?, get(row, 2)?, get(row, 3)?);
    let (next, is_new): (Option<f64>, bool) = (get(row, 4)?, get(row, 6)?);
    let time = |ms: f64| Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default();
    Ok(match (place, age) {
        (Some(place), _) => Said::Go(place),
        (None, _) if is_busy => Said::Busy,
        (None, Some(age)) if (0.0..younger_than).contains(&age) => Said::Known(time(age)),
        // Somebody else was about to take it.
        (None, _) if has_place => Said::Busy,
        (None, _) if is_new => Said::NewPlaces,
        (None, _) => Said::NoPlace(time(next.unwrap_or_default())),
    })
}

/// Makes the places that are missing, free after this time.
pub(super) async fn begin(asks: &Asks, after: Duration) -> Result<(), Trouble> {
    let places = i32::try_from(asks.replica.terms.rate.get()).unwrap_or(i32::MAX);
    let after = after.as_secs_f64() * 1000.0;
    let parameters: [Parameter<'_>; 2] = [(&places, Type::INT4), (&after, Type::FLOAT8)];
    let look = &asks.replica.look;
    look.tell("ask", &asks.places, &parameters).await
}

impl Pass {
    /// The call is over; `is_answered` if the gateway gave an answer that counts.
    pub(crate) fn done(mut self, is_answered: bool) {
        if let Some(held) = self.0.take() {
            held.give_back(is_answered);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.give_back(false);
        }
    }
}

impl Held {
    fn give_back(self, is_answered: bool) {
        let Self { asks, place, code } = self;
        let tasks = asks.replica.tasks.clone();
        tasks.detach(async move {
            let code = code.as_str();
            let parameters: [Parameter<'_>; 4] = [
                (&place, Type::INT4),
                (&asks.replica.members.me.id, Type::TEXT),
                (&code, Type::TEXT),
                (&is_answered, Type::BOOL),
            ];
            // Should it not arrive, the place is free again when the call must have ended.
            let look = &asks.replica.look;
            let _ = look.tell("ask", &asks.done, &parameters).await;
        });
    }
}

/// The share of a replica: its calls are this far apart.
#[derive(Default)]
pub(super) struct Share(Mutex<Option<Instant>>);

/// Waits for this replica's share of the rate, where the places say nothing. Replicas that reach the store go on with all of
/// it, so that the fleet's calls may come to less than twice the rate.
async fn within_share(asks: &Asks, deadline: Instant) -> MayAsk {
    let members = u32::try_from(asks.replica.members.count()).unwrap_or(u32::MAX);
    let apart = Duration::from_secs(1).saturating_mul(members) / asks.replica.terms.rate.get();
    let turn = {
        let mut next = asks.share.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.unwrap_or_else(clock::now).max(clock::now());
        if turn >= deadline {
            return MayAsk::NoPlace;
        }
        *next = Some(turn + apart);
        turn
    };
    clock::sleep_until(turn).await;
    MayAsk::Go(Pass(None))
}

//! The replicas: who is alive, and who does what.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_postgres::types::Type;

use super::engine_clock::EngineClock;
use super::line::{Line, Parameter};
use super::link::get;
use super::trouble::Trouble;
use crate::{clock, random};

/// A replica that was not heard of for this time is taken to be dead.
pub(super) const ALIVE_FOR: Duration = Duration::from_secs(5);

const BEAT: &str = "insert into {s}.members (member, name, version, config, reads, posts, seen_at)
values ($1, $2, $3, $4, $5, $6, clock_timestamp())
on conflict (member) do update set reads = excluded.reads, posts = excluded.posts, seen_at = excluded.seen_at
returning $7::text";

const ALL: &str = "select member, name, version, config, reads, posts,
  (extract(epoch from clock_timestamp() - seen_at) * 1000)::float8 as age_ms,
  (extract(epoch from clock_timestamp()) * 1000)::float8 as now_ms, $1::text
from {s}.members order by member";

const LEAVE: &str = "delete from {s}.members where member = $1";

/// A replica that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// A new one for each process.
    pub(super) id: String,
    /// Its host's name.
    pub(crate) name: String,
    pub(crate) version: String,
    /// A fingerprint of the settings that all replicas should have in common.
    pub(crate) config: String,
    /// Somebody reads all changes there, or its app gets webhooks.
    pub(super) reads: bool,
    /// It posts webhooks, and its app takes them.
    pub(super) posts: bool,
}

/// Something that one replica does for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// To poll a payment in the background.
    Poll,
    /// To post a webhook.
    Post,
}

/// Who is alive, and who was before the last change.
#[derive(Default)]
struct Alive {
    now: Vec<Member>,
    before: Vec<Member>,
}

/// Those that are alive, as they were last heard of. The list is empty before the first time.
pub(super) struct Members {
    /// This replica.
    pub(super) me: Member,
    alive: Mutex<Alive>,
    /// Counts the changes of the list.
    changes: watch::Sender<u64>,
    sql: [String; 3],
}

impl Members {
    pub(super) fn new(me: Member, schema: &str) -> Self {
        Self {
            sql: [BEAT, ALL, LEAVE].map(|sql| sql.replace("{s}", schema)),
            me,
            alive: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Says that this replica is alive, and hears of the others.
    pub(super) async fn beat(
        &self,
        look: &Line,
        engine: &EngineClock,
        reads: bool,
        posts: bool,
    ) -> Result<(), Trouble> {
        let Member {
            id,
            name,
            version,
            config,
            ..
        } = &self.me;
        let parameters: [Parameter<'_>; 6] = [
            (id, Type::TEXT),
            (name, Type::TEXT),
            (version, Type::TEXT),
            (config, Type::TEXT),
            (&reads, Type::BOOL),
            (&posts, Type::BOOL),
        ];
        let [beat, all, _] = &self.sql;
        look.query("beat", beat, &parameters).await?;
        let asked = clock::now();
        let rows = look.query("members", all, &[]).await?;
        let alive_for = ALIVE_FOR.as_secs_f64() * 1000.0;
        let mut alive = Vec::new();
        for row in &rows {
            let (age_ms, now_ms): (f64, f64) = (get(row, 6)?, get(row, 7)?);
            engine.heard(asked, now_ms);
            if age_ms.abs() < alive_for {
                alive.push(Member {
                    id: get(row, 0)?,
                    name: get(row, 1)?,
                    version: get(row, 2)?,
                    config: get(row, 3)?,
                    reads: get(row, 4)?,
                    posts: get(row, 5)?,
                });
            }
        }
        let mut known = self.lock();
        if known.now != alive {
            known.before = std::mem::replace(&mut known.now, alive);
            drop(known);
            self.changes.send_modify(|changes| *changes += 1);
        }
        Ok(())
    }

    /// Leaves: the others take over at once.
    pub(super) async fn leave(&self, look: &Line) {
        let parameters: [Parameter<'_>; 1] = [(&self.me.id, Type::TEXT)];
        let [_, _, leave] = &self.sql;
        let _ = look.tell("leave", leave, &parameters).await;
    }

    /// Returns those that are alive.
    pub(super) fn alive(&self) -> Vec<Member> {
        self.lock().now.clone()
    }

    /// Returns how many are alive, this one included.
    pub(super) fn count(&self) -> usize {
        self.lock().now.len().max(1)
    }

    /// Changes when one has come or gone, or does something else.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns whether this replica is the one that does this: of those that can, the one with the highest hash (rendezvous
    /// hashing). While replicas do not agree about who is alive, two may be, or none.
    pub(super) fn is_mine(&self, work: Work, name: &str) -> bool {
        self.is_mine_among(&self.lock().now, work, name)
    }

    /// The same before the last change.
    pub(super) fn was_mine(&self, work: Work, name: &str) -> bool {
        self.is_mine_among(&self.lock().before, work, name)
    }

    fn is_mine_among(&self, alive: &[Member], work: Work, name: &str) -> bool {
        let can = |member: &&Member| match work {
            Work::Poll => member.reads,
            Work::Post => member.posts,
        };
        let hash = |member: &Member| {
            let mut hasher = Sha256::new();
            hasher.update(&member.id);
            hasher.update(name);
            hasher.finalize()
        };
        let first = alive.iter().filter(can).max_by_key(|member| hash(member));
        first.is_none_or(|first| first.id == self.me.id)
    }

    fn lock(&self) -> MutexGuard<'_, Alive> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the id of this process, which no other has, and the name of its host.
pub(super) fn me(version: &str, config: String) -> Member {
    // For people.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Member {
        id: random::token(16),
        name: name.trim().to_owned(),
        version: version.to_owned(),
        config,
        reads: false,
        posts: false,
    }
}

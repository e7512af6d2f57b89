//! What the database's clock shows: the one clock that all replicas have in common.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use crate::clock::{self, Instant, Reading};
use crate::store::rows::Clocks;

/// The database's clock, as far as it was heard of. Clones share it.
#[derive(Clone, Default)]
pub(super) struct EngineClock(Arc<Mutex<Option<Reading>>>);

impl EngineClock {
    /// The database showed this many milliseconds since the epoch at some moment since `asked`.
    pub(super) fn heard(&self, asked: Instant, milliseconds: f64) {
        let between = (clock::now() - asked) / 2;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a date has no such milliseconds"
        )]
        let wall = Timestamp::from_microsecond((milliseconds * 1000.0) as i64);
        if let Ok(wall) = wall {
            let now = asked + between;
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Reading { now, wall });
        }
    }

    /// What both clocks show now. Before the database was heard of, its clock is taken to be this machine's.
    pub(super) fn reading(&self) -> Reading {
        let heard = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        match heard {
            Some(heard) => Reading {
                now,
                wall: heard.precise_wall_at(now),
            },
            None => Reading::take(),
        }
    }

    /// The clocks by which rows are written and read.
    pub(super) fn clocks(&self) -> Clocks {
        Clocks::of_one(self.reading())
    }
}

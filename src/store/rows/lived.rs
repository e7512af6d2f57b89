//! The time that a store has lived: it passes while a process has the store open, and only then.
//!
//! A wall clock may be wrong by an hour or by years when a process starts, and be set right later. Whatever must not
//! depend on that is written down in lived time too: how old a key, a finished payment, an open payment and a message
//! are, and how long a message still has to wait. The time between two processes is known to the wall clock alone, so
//! it only ever shortens a wait, and makes an answer of the gateway look older; it ends nothing.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::{self, Instant, Reading};

/// No wait is longer: messages are tried for three days.
const LONGEST_WAIT: Duration = Duration::from_secs(3 * 24 * 3600);

/// Turns moments of this process into marks of lived time, in milliseconds, and back.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Lived {
    /// What both clocks showed when the store was opened.
    opened: Reading,
    /// How long the store had lived by then, as far as it was written down.
    before: i64,
}

impl Lived {
    pub(in crate::store) fn new(opened: Reading, before: i64) -> Self {
        Self { opened, before }
    }

    /// When the store was opened.
    pub(in crate::store) fn opened(&self) -> Instant {
        self.opened.now
    }

    /// The mark of a moment; negative if the store is younger than that.
    pub(in crate::store) fn mark(&self, moment: Instant) -> i64 {
        self.before
            .saturating_add(clock::milliseconds_between(self.opened.now, moment))
    }

    /// The moment of a mark that was made in the past: at the latest when the store was opened.
    pub(in crate::store) fn past(&self, mark: i64) -> Instant {
        self.ago(milliseconds(self.before.saturating_sub(mark)))
    }

    /// The moment that the wall clock had when it showed this, as far as it can be believed: at the latest when the
    /// store was opened.
    pub(in crate::store) fn past_by_wall(&self, wall: Timestamp) -> Instant {
        self.ago(Duration::try_from(self.opened.wall.duration_since(wall)).unwrap_or_default())
    }

    /// When a wait is over that was planned to end at this mark, or when the wall clock shows this, whichever is sooner:
    /// a wall clock that was set back makes no wait longer than it was planned, one that was set forward ends it.
    pub(in crate::store) fn due(&self, mark: i64, wall: Timestamp) -> Instant {
        let by_wall = Duration::try_from(wall.duration_since(self.opened.wall)).unwrap_or_default();
        self.opened.now
            + milliseconds(mark.saturating_sub(self.before))
                .min(by_wall)
                .min(LONGEST_WAIT)
    }

    /// The end of a wait of this length that is known by the wall clock alone.
    pub(in crate::store) fn due_by_wall(&self, wait: Duration, wall: Timestamp) -> Instant {
        let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        self.due(self.before.saturating_add(wait), wall)
    }

    fn ago(&self, duration: Duration) -> Instant {
        self.opened
            .now
            .checked_sub(duration)
            .unwrap_or(self.opened.now)
    }
}

/// Zero if it is negative.
fn milliseconds(milliseconds: i64) -> Duration {
    Duration::from_millis(milliseconds.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEARS: i64 = 10 * 366 * 24 * 3600 * 1000;

    fn reading(now: Instant, wall: i64) -> Reading {
        Reading {
            now,
            wall: Timestamp::from_millisecond(wall).unwrap(),
        }
    }

    proptest! {
        /// Written by one process and read by the next, whose wall clock shows anything.
        #[test]
        fn no_wall_clock_makes_a_wait_longer_or_something_older(
            before in 0..YEARS, ran in 0_i64..1_000_000, wait in 0_i64..100_000_000, walls in (-YEARS..YEARS, -YEARS..YEARS)
        ) {
            let now = clock::now();
            let first = Lived::new(reading(now, walls.0), before);
            let written = reading(now + milliseconds(ran), walls.0 + ran);
            let due = written.now + milliseconds(wait);
            let (mark, wall) = (first.mark(due), written.wall_at(due));

            let opened = reading(now, walls.1);
            let second = Lived::new(opened, first.mark(written.now));
            let waits = second.due(mark, wall) - opened.now;
            prop_assert!(waits <= milliseconds(wait));
            // The time for which it was shut, by the wall clock.
            let shut = walls.1 - (walls.0 + ran);
            if shut <= 0 {
                prop_assert_eq!(waits, milliseconds(wait));
            } else {
                prop_assert_eq!(waits, milliseconds(wait - shut));
            }
            let age = opened.now - second.past(first.mark(now));
            prop_assert_eq!(age, milliseconds(ran));
            prop_assert_eq!(second.past(mark), opened.now);
        }

        #[test]
        fn whatever_is_read_is_a_moment(before: i64, mark: i64, wall in -YEARS..YEARS) {
            let opened = reading(clock::now(), 0);
            let lived = Lived::new(opened, before);
            let wall = Timestamp::from_millisecond(wall).unwrap();
            prop_assert!(lived.past(mark) <= opened.now && lived.past_by_wall(wall) <= opened.now);
            let latest = opened.now + LONGEST_WAIT;
            prop_assert!((opened.now..=latest).contains(&lived.due(mark, wall)));
            prop_assert!((opened.now..=latest).contains(&lived.due_by_wall(Duration::MAX, wall)));
            lived.mark(lived.due(mark, wall));
        }
    }
}

//! An app that comes back: when it was away, what is due again then, and how many tries may be under way.
//!
//! An app is *away* when nothing has succeeded for a minute, and something has failed since the last success. (Where there
//! was none yet, the minute is counted from the first failure.) While it is away, tries begin one after the other: many
//! that are due at the moment of its return do not come upon it at once.
//!
//! With its first success it is *back*. What failed since the success before is due again, and tries begin one at a time
//! at first, twice as many with each success, up to [`AT_ONCE`]. A failure on the way sets that back to one; after it, a
//! failure is one of its message and changes nothing. Tries from before its return say nothing about it: they take no
//! place of those after, and when they fail their messages are due again too.
//!
//! A try that gets no answer for a while holds up no other one, so a message on which the app hangs does not keep the rest
//! from it. A message that it refuses for ever is tried once more at each return, and else by its own steps.

mod outage;

use std::ops::RangeInclusive;
use std::time::Duration;

use self::outage::Outage;
use crate::clock::Instant;
use crate::store::LastTries;

/// Tries under way at the same time: an app that is slow with one message gets the others all the same.
const AT_ONCE: usize = 16;
/// Longest that a try holds up others: while the app is away, and when it is back.
const HOLDS_UP_FOR: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// How many tries may be under way, by how the app is doing. Knows no clock: each moment is an argument, none before the
/// last.
pub(super) struct Recovery {
    outage: Outage,
    /// The app is back since this moment.
    back_since: Option<Instant>,
    /// How many of the tries that began since then may be under way.
    limit: usize,
    /// When each try began that is under way.
    under_way: Vec<Instant>,
}

impl Recovery {
    /// As the app was doing when the process before this one ended.
    pub(super) fn resumed(last: LastTries) -> Self {
        Self {
            outage: Outage::resumed(last),
            back_since: None,
            limit: AT_ONCE,
            under_way: Vec::new(),
        }
    }

    /// Whether another try may begin now.
    ///
    /// # Errors
    /// When to ask again, if no try ends before; `None`: as soon as one has ended.
    pub(super) fn may_begin(&self, now: Instant) -> Result<(), Option<Instant>> {
        if self.under_way.len() >= AT_ONCE {
            return Err(None);
        }
        let [away, back] = HOLDS_UP_FOR;
        let (limit, since, holds_up_for) = if self.outage.is_away(now) {
            (1, None, away)
        } else if self.limit < AT_ONCE {
            (self.limit, self.back_since, back)
        } else {
            return Ok(());
        };
        let ends = self
            .under_way
            .iter()
            .filter(|began| Some(**began) >= since)
            .map(|began| *began + holds_up_for);
        let ends: Vec<_> = ends.filter(|end| *end > now).collect();
        if ends.len() < limit {
            Ok(())
        } else {
            Err(ends.into_iter().min())
        }
    }

    /// A try begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.under_way.push(now);
    }

    /// The try that began at that moment is over, however it ended.
    pub(super) fn end(&mut self, began: Instant) {
        if let Some(place) = self.under_way.iter().position(|other| *other == began) {
            self.under_way.swap_remove(place);
        }
    }

    /// The app took a message. Returns the time in which it failed, if it is back by that: what failed then is due again.
    pub(super) fn succeeded(&mut self, now: Instant) -> Option<RangeInclusive<Instant>> {
        let away = self.outage.succeeded(now);
        match away {
            Some(_) => (self.back_since, self.limit) = (Some(now), 1),
            None => self.limit = AT_ONCE.min(self.limit * 2),
        }
        away
    }

    /// A try that began at that moment has failed. Returns true if it says nothing about the app as it is by now, which
    /// has come back meanwhile: the message is one of those that are due again.
    pub(super) fn failed(&mut self, began: Instant, now: Instant) -> bool {
        let is_old = self.back_since.is_some_and(|back| began < back);
        if self.limit < AT_ONCE && !is_old {
            self.limit = 1;
        }
        self.outage.failed(now);
        is_old
    }
}

#[cfg(test)]
mod tests;

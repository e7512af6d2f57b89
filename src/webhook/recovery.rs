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

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::clock::Instant;
use crate::store::LastTries;

/// Tries under way at the same time: an app that is slow with one message gets the others all the same.
const AT_ONCE: usize = 16;
/// An app is away when nothing has succeeded for this time.
const AWAY_AFTER: Duration = Duration::from_secs(60);
/// Longest that a try holds up others: while the app is away, and when it is back.
const HOLDS_UP_FOR: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// How the app is doing. Knows no clock: each moment is an argument, none before the last.
pub(super) struct Recovery {
    /// The last success.
    taken: Option<Instant>,
    /// The first failure since then.
    failing: Option<Instant>,
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
            taken: last.taken,
            failing: last.failing,
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
        let (limit, since, holds_up_for) = if self.failing.is_some() && self.is_quiet(now) {
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

    /// The app took a message. If it is back by that: the time in which it failed. What failed then is due again.
    pub(super) fn succeeded(&mut self, now: Instant) -> Option<RangeInclusive<Instant>> {
        // That of the process before may have begun before the last success.
        let failing = self
            .failing
            .max(self.taken)
            .filter(|_| self.failing.is_some() && self.is_quiet(now));
        match failing {
            Some(_) => (self.back_since, self.limit) = (Some(now), 1),
            None => self.limit = AT_ONCE.min(self.limit * 2),
        }
        (self.taken, self.failing) = (Some(now), None);
        failing.map(|since| since..=now)
    }

    /// A try that began at that moment has failed. True if it says nothing about the app as it is by now, which has come
    /// back meanwhile: the message is one of those that are due again.
    pub(super) fn failed(&mut self, began: Instant, now: Instant) -> bool {
        let is_old = self.back_since.is_some_and(|back| began < back);
        if self.limit < AT_ONCE && !is_old {
            self.limit = 1;
        }
        self.failing.get_or_insert(now);
        is_old
    }

    /// Nothing has succeeded for a minute.
    fn is_quiet(&self, now: Instant) -> bool {
        self.taken
            .or(self.failing)
            .is_some_and(|since| now - since >= AWAY_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    /// As many tries as may, and then the first of them ends so.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Succeed,
        Fail,
        /// 410, or a crash: neither of these.
        End,
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Succeed),
            4 => Just(Step::Fail),
            1 => Just(Step::End),
            2 => (0_u64..70_000).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// A recovery, and what is to be true of it.
    struct World {
        recovery: Recovery,
        now: Instant,
        under_way: Vec<Instant>,
        last_success: Option<Instant>,
        first_failure: Option<Instant>,
        back_since: Option<Instant>,
        /// Since the app is back, or since the last failure of a try that began since then.
        successes: u32,
    }

    impl World {
        fn new() -> Self {
            Self {
                recovery: Recovery::resumed(LastTries::default()),
                now: clock::now(),
                under_way: Vec::new(),
                last_success: None,
                first_failure: None,
                back_since: None,
                successes: 4,
            }
        }

        fn is_quiet(&self) -> bool {
            self.last_success
                .or(self.first_failure)
                .is_some_and(|since| self.now - since >= AWAY_AFTER)
        }

        fn is_away(&self) -> bool {
            self.first_failure.is_some() && self.is_quiet()
        }

        fn begin_as_many_as_may(&mut self) {
            loop {
                match self.recovery.may_begin(self.now) {
                    Ok(()) => {
                        self.recovery.begin(self.now);
                        self.under_way.push(self.now);
                        // Each at a moment of its own.
                        self.now += Duration::from_millis(1);
                    }
                    Err(again) => {
                        assert!(!self.under_way.is_empty(), "nobody is held up by nothing");
                        match again {
                            Some(again) => {
                                assert!(
                                    again > self.now && again <= self.now + HOLDS_UP_FOR[1],
                                    "nor for long"
                                )
                            }
                            None => assert_eq!(self.under_way.len(), AT_ONCE),
                        }
                        break;
                    }
                }
                assert!(self.under_way.len() <= AT_ONCE, "never more than 16");
                if self.successes < 4 {
                    let counts = |began: &&Instant| {
                        Some(**began) >= self.back_since
                            && self.now - **began < HOLDS_UP_FOR[1]
                            && !self.is_away()
                    };
                    let begun = self.under_way.iter().filter(counts).count();
                    assert!(
                        begun <= 1 << self.successes,
                        "{begun} after {} successes",
                        self.successes
                    );
                }
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Pass(milliseconds) => self.now += Duration::from_millis(milliseconds),
                Step::Succeed => {
                    let is_quiet = self.is_quiet();
                    let since = self.first_failure.filter(|_| is_quiet);
                    let away = self.recovery.succeeded(self.now);
                    assert_eq!(away, since.map(|since| since..=self.now));
                    if let Some(away) = away {
                        // So no failure, and with it no message, is in two of these times.
                        assert!(Some(*away.start()) > self.back_since);
                        (self.back_since, self.successes) = (Some(self.now), 0);
                    } else {
                        self.successes += 1;
                    }
                    (self.last_success, self.first_failure) = (Some(self.now), None);
                    self.end();
                }
                Step::Fail => {
                    let is_old = self.back_since.is_some_and(|back| self.under_way[0] < back);
                    assert_eq!(self.recovery.failed(self.under_way[0], self.now), is_old);
                    if !is_old && self.successes < 4 {
                        self.successes = 0;
                    }
                    self.first_failure.get_or_insert(self.now);
                    self.end();
                }
                Step::End => self.end(),
            }
        }

        fn end(&mut self) {
            self.recovery.end(self.under_way.remove(0));
        }
    }

    proptest! {
        #[test]
        fn never_more_than_sixteen_and_slowly_after_an_outage_and_nobody_starves(steps in steps()) {
            let mut world = World::new();
            for step in steps {
                world.begin_as_many_as_may();
                world.step(step);
            }
            // From here on all goes well.
            world.begin_as_many_as_may();
            for _ in 0..1 + 4 {
                world.step(Step::Succeed);
                world.begin_as_many_as_may();
            }
            while world.under_way.len() < AT_ONCE {
                world.step(Step::End);
                world.begin_as_many_as_may();
            }
        }
    }

    /// A number of tries, each of which has failed by the next, which is this much later.
    fn away(tries: u64, step: Duration) -> (Recovery, Instant) {
        let (mut recovery, mut now) = (Recovery::resumed(LastTries::default()), clock::now());
        for _ in 0..tries {
            assert_eq!(recovery.may_begin(now), Ok(()));
            recovery.begin(now);
            assert!(!recovery.failed(now, now));
            recovery.end(now);
            now += step;
        }
        (recovery, now)
    }

    fn begins(recovery: &mut Recovery, now: Instant) -> usize {
        (0..)
            .take_while(|_| {
                recovery
                    .may_begin(now)
                    .map(|()| recovery.begin(now))
                    .is_ok()
            })
            .count()
    }

    #[test]
    fn it_is_back_after_a_minute_and_not_before() {
        let (mut recovery, now) = away(60, Duration::from_secs(1));
        assert_eq!(recovery.succeeded(now - Duration::from_millis(1)), None);
        assert_eq!(
            recovery.succeeded(now + AWAY_AFTER),
            None,
            "nothing has failed since"
        );
        let (mut recovery, now) = away(60, Duration::from_secs(1));
        assert_eq!(
            recovery.succeeded(now),
            Some(now - Duration::from_secs(60)..=now)
        );
        // The next minute is counted from that success.
        recovery.failed(now, now);
        let almost = now + AWAY_AFTER - Duration::from_millis(1);
        assert_eq!(recovery.succeeded(almost), None);
        let late = almost + Duration::from_secs(50);
        recovery.failed(late, late);
        assert_eq!(
            recovery.succeeded(almost + AWAY_AFTER),
            Some(late..=almost + AWAY_AFTER)
        );
    }

    #[test]
    fn while_it_is_away_one_try_begins_after_the_other_or_one_a_second() {
        let (mut recovery, mut now) = away(61, Duration::from_secs(1));
        for count in 1..=AT_ONCE {
            assert_eq!(begins(&mut recovery, now), 1);
            let next = if count < AT_ONCE {
                Some(now + HOLDS_UP_FOR[0])
            } else {
                None
            };
            assert_eq!(recovery.may_begin(now), Err(next));
            now += HOLDS_UP_FOR[0];
        }
        assert_eq!(recovery.may_begin(now), Err(None));
    }

    #[test]
    fn once_it_is_back_the_tries_double_and_a_failure_begins_that_anew() {
        let (mut recovery, now) = away(61, Duration::from_secs(1));
        recovery.begin(now);
        assert!(recovery.succeeded(now).is_some());
        recovery.end(now);
        for at_once in [1, 2, 4] {
            begins(&mut recovery, now);
            assert_eq!(recovery.under_way.len(), at_once);
            recovery.succeeded(now);
            recovery.end(now);
        }
        recovery.failed(now, now);
        recovery.end(now);
        assert_eq!(begins(&mut recovery, now), 0, "there is one already");
        for at_once in [2, 4, 8, 16, 16] {
            recovery.succeeded(now);
            recovery.end(now);
            begins(&mut recovery, now);
            assert_eq!(recovery.under_way.len(), at_once);
        }
        // From there on a failure is one of a message, not of the app.
        recovery.failed(now, now);
        recovery.end(now);
        assert_eq!(begins(&mut recovery, now), 1);
    }

    #[test]
    fn tries_from_before_its_return_take_no_place_of_those_after_and_are_made_again() {
        let (mut recovery, now) = (Recovery::resumed(LastTries::default()), clock::now());
        assert_eq!(begins(&mut recovery, now), AT_ONCE);
        recovery.failed(now, now);
        recovery.end(now);
        let back = now + AWAY_AFTER;
        assert_eq!(recovery.succeeded(back), Some(now..=back));
        recovery.end(now);
        assert_eq!(begins(&mut recovery, back), 1);
        assert!(recovery.failed(now, back), "of before");
        assert_eq!(recovery.limit, 1);
        recovery.succeeded(back);
        assert!(
            recovery.failed(now, back) && recovery.limit == 2,
            "it begins nothing anew"
        );
        assert!(!recovery.failed(back, back) && recovery.limit == 1);
    }

    #[test]
    fn a_process_goes_on_where_the_one_before_ended() {
        let now = clock::now();
        let ago = |seconds| now - Duration::from_secs(seconds);
        let back = |taken, failing| Recovery::resumed(LastTries { taken, failing }).succeeded(now);
        assert_eq!(
            back(Some(ago(100)), Some(ago(500))),
            Some(ago(100)..=now),
            "since the last success"
        );
        assert_eq!(
            back(None, Some(ago(500))),
            Some(ago(500)..=now),
            "since the oldest that fails was made"
        );
        assert_eq!(back(Some(ago(100)), None), None, "nothing has failed since");
        assert_eq!(back(Some(ago(50)), Some(ago(500))), None);
        assert_eq!(back(None, None), None);
    }
}

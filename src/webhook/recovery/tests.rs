use proptest::prelude::*;

use super::outage::AWAY_AFTER;
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

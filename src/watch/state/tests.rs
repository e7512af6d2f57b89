//! What the poller promises, whatever happens to it: random histories of inputs, played against `world.rs`, and every
//! call that came of them.

mod world;

use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;

use self::world::{CODES, Event, Grant, Group, Reply, World};
use crate::watch::config::Config;
use crate::watch::queue::Rank;

const GIVE_UP_AFTER: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_secs(100_000);
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(8);

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        4 => Just(Reply::Open),
        1 => Just(Reply::Final),
        2 => prop::option::of(0..40_u64).prop_map(Reply::Outage),
        1 => Just(Reply::Refused),
        1 => Just(Reply::NotAsked),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let code = 0..CODES;
    let rank = prop_oneof![
        Just(Rank::Confirms),
        Just(Rank::HasNothing),
        Just(Rank::Unheard),
        Just(Rank::HasAnswer)
    ];
    prop_oneof![
        3 => code.clone().prop_map(Event::Start),
        1 => code.clone().prop_map(Event::Forget),
        3 => code.clone().prop_map(Event::Subscribe),
        2 => code.clone().prop_map(Event::Unsubscribe),
        2 => Just(Event::OpenFeed),
        1 => Just(Event::CloseFeed),
        2 => code.prop_map(Event::Ask),
        6 => rank.prop_map(Event::WantPermit),
        1 => any::<prop::sample::Index>().prop_map(Event::Leave),
        4 => Just(Event::ReturnPermit),
        8 => (any::<prop::sample::Index>(), reply()).prop_map(|(call, reply)| Event::Finish(call, reply)),
        1 => prop::bool::weighted(0.8).prop_map(Event::Secret),
        8 => (0..2500_u64).prop_map(|ms| Event::Pass(Duration::from_millis(ms))),
        1 => (0..30_u64).prop_map(|s| Event::Pass(Duration::from_secs(s))),
    ]
}

/// All that happens in a world.
#[derive(Debug)]
struct History {
    rate: u32,
    seed: u64,
    events: Vec<Event>,
}

impl History {
    fn play(self, give_up_after: Duration) -> World {
        let config = Config {
            poll_rate: self.rate.try_into().unwrap(),
            max_poll_interval: MAX_POLL_INTERVAL,
            give_up_after,
            ..Config::default()
        };
        let mut world = World::new(&config, self.seed);
        for event in self.events {
            world.play(event);
        }
        world
    }
}

fn history(rate: Range<u32>) -> impl Strategy<Value = History> {
    let events = prop::collection::vec(event(), 1..200);
    (rate, any::<u64>(), events).prop_map(|(rate, seed, events)| History { rate, seed, events })
}

fn polls(world: &World) -> impl Iterator<Item = &Grant> {
    world.grants.iter().filter(|grant| grant.poll.is_some())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_window_holds_more_calls_than_the_rate(history in history(1..5)) {
        let world = history.play(GIVE_UP_AFTER);
        for grant in &world.grants {
            prop_assert!(grant.in_window <= world.rate, "{grant:?}");
        }
    }

    #[test]
    fn there_is_one_call_for_a_code(history in history(1..5)) {
        let world = history.play(GIVE_UP_AFTER);
        for poll in polls(&world).filter_map(|grant| grant.poll.as_ref()) {
            prop_assert!(!poll.is_under_way, "{poll:?}");
        }
    }

    #[test]
    fn only_open_payments_that_somebody_waits_for_or_reads_are_polled(history in history(1..5)) {
        let world = history.play(GIVE_UP_AFTER);
        for poll in polls(&world).filter_map(|grant| grant.poll.as_ref()) {
            prop_assert!(poll.is_wanted, "{poll:?}");
            prop_assert!(!poll.is_final, "{poll:?}");
        }
    }

    #[test]
    fn while_the_gateway_fails_the_background_pauses_and_then_makes_one_call_at_a_time(history in history(1..5)) {
        let world = history.play(GIVE_UP_AFTER);
        for poll in polls(&world).filter_map(|grant| grant.poll.as_ref()) {
            prop_assert!(!poll.is_in_pause, "{poll:?}");
            prop_assert!(!(poll.gateway_fails && poll.beside_another), "{poll:?}");
            prop_assert!(poll.has_secret, "{poll:?}");
        }
    }

    #[test]
    fn confirmations_go_first_and_callers_go_ahead_of_who_was_not_passed_over_three_times(history in history(1..5)) {
        let world = history.play(GIVE_UP_AFTER);
        for grant in &world.grants {
            prop_assert!(grant.is_first_of_its_row, "{grant:?}");
            prop_assert!(grant.group == Group::Confirms || !grant.confirms_wait, "{grant:?}");
            prop_assert!(!grant.callers_wait_ahead || grant.others_since >= 3, "{grant:?}");
        }
    }

    #[test]
    fn the_end_of_polling_is_noted_once_for_an_open_payment_that_is_old_enough(history in history(1..5)) {
        let world = history.play(GIVE_UP_AFTER);
        for (i, noted) in world.noted.iter().enumerate() {
            prop_assert!(noted.is_open && noted.age >= GIVE_UP_AFTER, "{noted:?}");
            // It may be just paid.
            prop_assert!(!noted.is_under_way, "{noted:?}");
            prop_assert!(world.noted[..i].iter().all(|other| other.number != noted.number), "{noted:?}");
        }
    }
}

proptest! {
    // Each case is minutes of the simulated clock.
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_starves(history in history(1..5)) {
        let rate = history.rate;
        let mut world = history.play(NEVER);
        world.heal();
        // A group is passed over three times, and then by each other group that was too; a permit comes back after 1.05 s.
        let longest_turn = Duration::from_secs_f64(8.0 * 1.1 / f64::from(rate) + 1.1);
        let payments = u32::try_from(CODES).unwrap();
        // Each of the others in its group may go first once more for each doubling of its interval.
        let bound = MAX_POLL_INTERVAL + longest_turn * payments * 5;
        for _ in 0..bound.as_millis() * 3 / 2 / 50 {
            world.keep_callers_waiting(2);
            world.answer_everything_after(Duration::from_millis(50));
            prop_assert!(world.longest_wait_of_a_caller() <= 2 * longest_turn);
            let neglected = world.longest_without_a_poll();
            prop_assert!(neglected <= bound, "{neglected:?} is over {bound:?}");
        }
    }

    #[test]
    fn while_there_are_permits_a_payment_is_polled_when_it_is_due(history in history(50..51)) {
        let mut world = history.play(NEVER);
        world.heal();
        for _ in 0..400 {
            world.answer_everything_after(Duration::from_millis(50));
            for payment in world.wanted() {
                let (age, since) = (world.now - payment.since, world.now - payment.last_poll);
                let longest = if payment.is_waited_for {
                    Duration::from_secs(2)
                } else {
                    (age / 10).clamp(Duration::from_secs(1), MAX_POLL_INTERVAL)
                };
                prop_assert!(since <= longest + Duration::from_millis(100), "{since:?} is over {longest:?}");
            }
        }
    }
}

//! Properties of the messages that wait.

use proptest::prelude::*;

use jiff::Timestamp;

use std::time::Duration;

use super::*;
use crate::clock;
use crate::store::model::Kind;

/// Payment, seconds until it is due, seconds since it failed, seconds until the app wants it again.
type Message = (u64, u64, Option<u64>, Option<u64>);

fn outbox(messages: &[Message], now: Instant) -> Deliveries {
    let mut outbox = Deliveries::default();
    for (number, (payment, due, failed, not_before)) in (1..).zip(messages) {
        let not_before = not_before.map(|wait| now + Duration::from_secs(wait));
        let due = now + Duration::from_secs(*due);
        outbox.put(Arc::new(Delivery {
            number,
            id: format!("msg_{number}"),
            payment: *payment,
            code: format!("code-{payment}").parse().unwrap(),
            watch_code: format!("watch-{payment}").parse().unwrap(),
            kind: Kind::Completed,
            body: "{}".into(),
            created_at: Timestamp::UNIX_EPOCH,
            since: now,
            tries: 1,
            failed: failed.map(|ago| now - Duration::from_secs(ago)),
            not_before,
            last_error: None,
            // What the app asks for only lengthens.
            state: DeliveryState::Due(not_before.map_or(due, |not_before| not_before.max(due))),
        }));
    }
    outbox
}

fn hasten(outbox: &mut Deliveries, limit: usize) -> usize {
    let (mut after, mut count) = (Some(0), 0);
    while let Some(number) = after {
        let (found, last) = outbox.hastened(number, limit);
        assert!(found.len() <= limit);
        count += found.len();
        found
            .into_iter()
            .for_each(|(_, hastened)| outbox.put(Arc::new(hastened)));
        after = last;
    }
    count
}

proptest! {
    #[test]
    fn what_failed_while_the_app_was_away_is_due_again_once_and_nothing_else(
        messages in prop::collection::vec(
            (0_u64..5, 0_u64..100, prop::option::of(0_u64..100), prop::option::of(0_u64..100)), 1..40
        ),
        outage in 0_u64..100, limit in 1_usize..50, out in prop::collection::vec(any::<bool>(), 40)
    ) {
        let now = clock::now();
        let mut outbox = outbox(&messages, now);
        let before: Vec<_> = outbox.all.values().cloned().collect();
        let held: Vec<_> = before.iter().zip(&out).filter(|(_, out)| **out).map(|(held, _)| held.clone()).collect();
        held.iter().for_each(|delivery| outbox.hold(delivery));
        let away = now - Duration::from_secs(outage)..=now;
        outbox.came_back(away.clone());
        hasten(&mut outbox, limit);
        for held in &held {
            prop_assert!(outbox.is_out(held.number) && outbox.all[&held.number].state == held.state);
        }
        // Those that were being posted, or written, are put back as they were.
        held.into_iter().for_each(|delivery| outbox.put(delivery));
        for before in &before {
            let after = &outbox.all[&before.number];
            let (DeliveryState::Due(was), DeliveryState::Due(is)) = (before.state, after.state) else { panic!("no state was changed") };
            if before.failed.is_some_and(|failed| away.contains(&failed)) {
                prop_assert_eq!(is, before.not_before.unwrap_or(now).max(now));
            } else {
                prop_assert_eq!(is, was);
            }
            prop_assert!(is <= was && before.not_before.is_none_or(|not_before| is >= not_before));
        }
        prop_assert_eq!(hasten(&mut outbox, limit), 0, "once");
        // All of them still come, and those of one payment one after the other.
        let (mut last, mut count) = ([0; 5], 0);
        while let Some(delivery) = outbox.take_due(now + Duration::from_secs(200)) {
            let last = &mut last[usize::try_from(delivery.payment).unwrap()];
            prop_assert!(*last < delivery.number);
            (*last, count) = (delivery.number, count + 1);
            outbox.put(Arc::new(Delivery { state: DeliveryState::Delivered(now), ..(*delivery).clone() }));
        }
        prop_assert_eq!(count, before.len());
    }

    /// What fails after its return waits as long as its own backoff says.
    #[test]
    fn a_message_that_fails_again_is_not_due_again_by_the_same_return(wait in 1_u64..100) {
        let now = clock::now();
        let mut outbox = outbox(&[(0, 50, Some(10), None)], now);
        outbox.came_back(now - Duration::from_secs(20)..=now);
        hasten(&mut outbox, 10);
        let delivery = outbox.take_due(now).unwrap();
        let (later, wait) = (now + Duration::from_secs(1), Duration::from_secs(wait));
        let state = DeliveryState::Due(later + wait);
        outbox.put(Arc::new(Delivery { failed: Some(later), state, ..(*delivery).clone() }));
        prop_assert_eq!(hasten(&mut outbox, 10), 0);
        prop_assert_eq!(outbox.next_due(), Some(later + wait));
    }

    #[test]
    fn the_last_tries_are_those_since_the_app_took_one(ages in prop::collection::vec((0_u64..100, 0_u8..3), 0..20)) {
        let now = clock::now();
        let mut outbox = outbox(&vec![(0, 0, None, None); ages.len()], now);
        let at = |ago: u64| now - Duration::from_secs(ago);
        for (number, (ago, kind)) in (1..).zip(&ages) {
            let mut delivery = (*outbox.all[&number]).clone();
            delivery.since = at(ago + 1000);
            match kind {
                0 => delivery.state = DeliveryState::Delivered(at(*ago)),
                1 => delivery.failed = Some(at(*ago)),
                _ => (delivery.failed, delivery.state) = (Some(at(*ago)), DeliveryState::Failed(at(*ago))),
            }
            outbox.put(Arc::new(delivery));
        }
        let of_kind = |wanted: u8| ages.iter().filter(move |(_, kind)| *kind == wanted).map(|(ago, _)| *ago);
        let taken = of_kind(0).min();
        let failing = of_kind(1).filter(|ago| taken.is_none_or(|taken| *ago < taken)).max();
        let expected = LastTries { taken: taken.map(at), failing: failing.map(|ago| at(ago + 1000)) };
        prop_assert_eq!(outbox.last_tries(), expected);
    }
}

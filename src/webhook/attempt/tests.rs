use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::store::Kind;

#[test]
fn a_message_is_tried_for_three_days() {
    let (mut age, mut tries) = (Duration::ZERO, 1);
    let mut waits = Vec::new();
    while let Some(wait) = next_try(tries, age, None, 0.0) {
        waits.push(wait.as_secs());
        age += wait;
        tries += 1;
    }
    assert_eq!(waits[..9], [1, 5, 15, 60, 300, 1800, 7200, 18000, 18000]);
    assert!(age <= GIVE_UP_AFTER && age + STEPS[7] > GIVE_UP_AFTER);
    assert_eq!(next_try(tries, age, None, 0.0), None);
}

fn message(since: Instant) -> Delivery {
    Delivery {
        number: 1,
        id: "msg_1".to_owned(),
        payment: 1,
        code: "c".parse().unwrap(),
        watch_code: "w".parse().unwrap(),
        kind: Kind::Completed,
        body: "{}".into(),
        created_at: Timestamp::UNIX_EPOCH,
        since,
        tries: 0,
        failed: None,
        not_before: None,
        last_error: None,
        state: DeliveryState::Due(since),
    }
}

fn posted() -> impl Strategy<Value = Posted> {
    let seconds = prop_oneof![0_u64..100, 0_u64..400_000, Just(u64::MAX)];
    let retry_after = prop::option::of(seconds.prop_map(Duration::from_secs));
    prop_oneof![
        1 => Just(Posted::Delivered),
        1 => Just(Posted::Unwanted { why: "unwanted".to_owned() }),
        20 => retry_after.prop_map(|retry_after| Posted::Failed { why: "broken".to_owned(), retry_after }),
    ]
}

/// The step after that number of tries, without jitter.
fn step(tries: u32) -> Duration {
    STEPS[usize::try_from(tries - 1).unwrap().min(STEPS.len() - 1)]
}

/// Asserts what is promised of a message after a try that failed, and returns when it is tried next.
fn assert_failed(
    delivery: &Delivery,
    outcome: Outcome,
    retry_after: Option<Duration>,
    is_back: bool,
    now: Instant,
) -> Option<Instant> {
    let last = delivery.since + GIVE_UP_AFTER;
    let longest = step(delivery.tries).mul_f64(1.1);
    assert_eq!(
        (delivery.failed, delivery.last_error.as_deref()),
        (Some(now), Some("broken"))
    );
    match delivery.state {
        DeliveryState::Due(at) => {
            assert_eq!(outcome, Outcome::Retry);
            let asked = retry_after.map(|asked| now + asked.min(last - now));
            assert_eq!(delivery.not_before, asked, "what the app asks for is kept");
            if is_back {
                assert_eq!(at, asked.unwrap_or(now), "its own step counts no more");
            } else {
                let own = now + step(delivery.tries)..=now + longest;
                assert!(
                    own.contains(&at) || asked == Some(at),
                    "its step or what is asked"
                );
                assert!(at >= *own.start(), "what the app asks for only lengthens");
            }
            assert!(Some(at) >= asked && at <= last, "within its three days");
            Some(at)
        }
        DeliveryState::Failed(at) => {
            assert_eq!((outcome, at), (Outcome::GivenUp, now));
            assert!(now + longest > last, "there was time for another try");
            None
        }
        DeliveryState::Delivered(_) => panic!("the app did not take it"),
    }
}

proptest! {
    #[test]
    fn what_the_app_asks_for_only_lengthens(tries in 1_u32..100, asked in 0_u64..100_000, jitter in 0.0..1.0) {
        let own = next_try(tries, Duration::ZERO, None, jitter).unwrap();
        let asked = Duration::from_secs(asked);
        prop_assert_eq!(next_try(tries, Duration::ZERO, Some(asked), jitter), Some(own.max(asked)));
        prop_assert_eq!(next_try(tries, Duration::ZERO, Some(Duration::MAX), jitter), Some(GIVE_UP_AFTER));
    }

    /// Each try is made in the moment for which it is due.
    #[test]
    fn a_message_is_tried_until_it_is_taken_or_unwanted_or_old(
        tries in prop::collection::vec((posted(), prop::bool::weighted(0.1), 0.0..1.0), 1..60)
    ) {
        let since = clock::now();
        let (mut before, mut now) = (message(since), since);
        for (number, (posted, is_back, jitter)) in (1..).zip(tries) {
            let (delivery, outcome) = after(&before, posted.clone(), is_back, now, jitter);
            prop_assert_eq!(delivery.tries, number);
            let unchanged = |delivery: &Delivery| (delivery.number, delivery.id.clone(), delivery.body.clone(), delivery.since);
            prop_assert_eq!(unchanged(&delivery), unchanged(&before));
            let next = match posted {
                Posted::Delivered => {
                    prop_assert_eq!((outcome, delivery.state), (Outcome::Delivered, DeliveryState::Delivered(now)));
                    prop_assert_eq!(&delivery.last_error, &None);
                    None
                }
                Posted::Unwanted { why } => {
                    prop_assert_eq!((outcome, delivery.state), (Outcome::Unwanted, DeliveryState::Failed(now)));
                    prop_assert_eq!(&delivery.last_error, &Some(why));
                    None
                }
                Posted::Failed { retry_after, .. } => assert_failed(&delivery, outcome, retry_after, is_back, now),
            };
            let Some(next) = next else { break };
            (before, now) = (delivery, next);
        }
    }
}

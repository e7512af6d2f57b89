//! Rows of this version and of older ones.

use proptest::prelude::*;

use super::super::columns::{bytes, read};
use super::*;
use crate::clock;
use crate::clock::Reading;

const YEARS: std::ops::Range<i64> = 0..4_000_000_000_000;

proptest! {
    /// Of an older version, which knew the wall clock alone: it may have been wrong then, or be wrong now.
    #[test]
    fn a_message_without_marks_waits_a_step_at_most_and_is_no_older_than_its_tries(
        created_at in YEARS, at in YEARS, tries in 0_u32..30, wall in YEARS
    ) {
        let row = format!(
            r#"{{"id":"a","payment":1,"kind":"payment.completed",
            "body":"{{\"data\":{{\"code\":\"c\",\"watch_code\":\"w\"}}}}","created_at":{created_at},
            "tries":{tries},"last_error":null,"state":"pending","at":{at}}}"#
        );
        let opened = Reading { now: clock::now(), wall: time(wall).unwrap() };
        let row: DeliveryRow = serde_json::from_str(&row).unwrap();
        let delivery = row.read(1, Lived::new(opened, 0)).unwrap();
        prop_assert_eq!((delivery.code.to_string(), delivery.watch_code.to_string()), ("c".to_owned(), "w".to_owned()));
        let DeliveryState::Due(due) = delivery.state else { panic!("it is pending") };
        prop_assert!((opened.now..=opened.now + LONGEST_STEP).contains(&due));
        prop_assert!(due - delivery.since <= LONGEST_STEP * tries);
        // Where no clock was wrong it is due when it was to be.
        if let (Ok(age), Ok(left)) = (u64::try_from(at - created_at), u64::try_from(at - wall))
            && left <= age && Duration::from_millis(age) <= LONGEST_STEP && tries > 0
        {
            prop_assert_eq!(due - opened.now, Duration::from_millis(left));
            prop_assert_eq!(due - delivery.since, Duration::from_millis(age));
        }
    }

    /// Written by one process, and read by the next at the same moment.
    #[test]
    fn what_is_written_is_read_again(
        due in 0_u64..100_000, since in 0_u64..100_000, failed: Option<u16>, not_before: Option<u16>, lived in YEARS
    ) {
        let reading = Reading { now: clock::now(), wall: Timestamp::UNIX_EPOCH };
        let lived = Lived::new(reading, lived);
        let ago = |milliseconds: u64| reading.now - Duration::from_millis(milliseconds);
        let delivery = Delivery {
            number: 1,
            id: "a".to_owned(),
            payment: 1,
            code: "c".parse().unwrap(),
            watch_code: "w".parse().unwrap(),
            kind: Kind::PollingEnded,
            body: "{}".into(),
            created_at: Timestamp::UNIX_EPOCH,
            since: ago(since),
            tries: 2,
            failed: failed.map(|failed| ago(failed.into())),
            not_before: not_before.map(|wait| reading.now + Duration::from_millis(wait.into())),
            last_error: None,
            state: DeliveryState::Due(reading.now + Duration::from_millis(due)),
        };
        let row: DeliveryRow = read(&bytes(&DeliveryRow::new(&delivery, Clocks { lived, reading }))).unwrap();
        let again = row.read(1, Lived::new(reading, lived.mark(reading.now))).unwrap();
        prop_assert_eq!(format!("{again:?}"), format!("{delivery:?}"));
    }
}

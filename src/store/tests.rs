//! What every keeper promises: one list of promises, run over each of them.

mod crashes;
mod database;
mod keys;

use std::time::Duration;

use futures_util::future::join_all;
use jiff::{Timestamp, ToSpan};
use tempfile::TempDir;

use self::keys::*;
use super::*;
use crate::json;
use crate::payment::{
    Amount, Fields, Fingerprint, IdempotencyKey, Meaning, Payment, Report, Status, WatchCode,
};

const LIMITS: Limits = Limits {
    watch_codes: 1000,
    bytes: 1 << 24,
    answers: Duration::from_secs(3600),
    finished: Duration::from_secs(3600),
    polled: Duration::from_secs(600),
};

fn open(place: &Place) -> Store {
    open_within(place, LIMITS)
}

fn open_within(place: &Place, limits: Limits) -> Store {
    let compose: Compose = |kind, subject, _| format!("{} {}", kind.label(), subject.stored.number);
    let config = Config {
        url: place.clone(),
        ..Config::default()
    };
    let fleetwide = Fleetwide {
        gateway: "https://pay.example".to_owned(),
        call: Duration::from_secs(10),
        poll_rate: NonZeroU32::MIN,
        config: String::new(),
    };
    let readiness = Readiness::default();
    Store::open(&config, fleetwide, limits, Some(compose), &readiness).unwrap()
}

fn payment(n: u64) -> Payment {
    Payment {
        code: format!("pay-{n}").parse().unwrap(),
        watch_code: watch_code(n),
        amount: Amount::new(1000),
        fields: Fields::None,
        referenced: None,
    }
}

fn watch_code(n: u64) -> WatchCode {
    format!("watch-{n}").parse().unwrap()
}

fn key(n: u64) -> IdempotencyKey {
    IdempotencyKey::stored(&format!("key-{n}")).unwrap()
}

/// What a start of this amount asks for.
fn meaning(amount: u64, reference: Option<&str>) -> Meaning {
    let amount = Amount::new(amount);
    let text = format!("{amount} {reference:?}");
    Meaning {
        amount,
        fields: Fields::None,
        reference: reference.map(|reference| reference.parse().unwrap()),
        fingerprint: json::fingerprint(&text),
        older: Fingerprint([0; 16]),
    }
}

fn start_body(n: u64) -> StartBody {
    let payment = payment(n);
    StartBody {
        code: payment.code,
        watch_code: payment.watch_code,
        object: format!(r#"{{"code":"pay-{n}","watch_code":"watch-{n}"}}"#).into(),
    }
}

fn report(status: &str) -> Report {
    Report {
        status: status.into(),
        body: format!(r#"{{"status":"{status}"}}"#).into(),
        fingerprint: Fingerprint([0; 16]),
    }
}

/// Starts a payment under a key, as the story does.
async fn start(store: &Store, keys: &Keys<u64>, n: u64) {
    let Claim::Fresh(claimed, _) = keys.claim(Some(&key(n)), &meaning(1000, None), None) else {
        panic!("the key is free");
    };
    let answer = claimed.answer(&start_body(n));
    store
        .payments()
        .started(payment(n), answer, None)
        .await
        .unwrap();
    claimed.finish(n);
}

/// Starts a payment of a reference.
async fn start_referenced(store: &Store, keys: &Keys<u64>, n: u64, reference: &str) {
    let meaning = meaning(1000, Some(reference));
    let Claim::Fresh(claimed, _) = keys.claim(None, &meaning, None) else {
        panic!("the reference is free");
    };
    let object = start_body(n).object;
    let payment = Payment {
        referenced: Some((reference.parse().unwrap(), object)),
        ..payment(n)
    };
    store.payments().started(payment, None, None).await.unwrap();
    claimed.finish(n);
}

async fn settle(store: &Store, n: u64, status: &str) -> Settled {
    let payments = store.payments();
    payments
        .settle(&watch_code(n), report(status), clock::now())
        .await
}

fn status(store: &Store, n: u64) -> Option<String> {
    let observation = store.payments().get(&watch_code(n))?.observation?;
    Some(observation.report.status.to_string())
}

async fn a_completed_is_never_taken_back(store: Store) {
    start(&store, &store.keys(), 1).await;
    for (heard, known) in [
        ("created", "created"),
        ("completed", "completed"),
        ("created", "completed"),
        ("refunded", "completed"),
    ] {
        let settled = settle(&store, 1, heard).await;
        assert_eq!(settled.observation.report.status.to_string(), known);
        assert_eq!(status(&store, 1).as_deref(), Some(known));
    }
}

async fn an_answer_that_was_asked_for_before_the_start_says_nothing(store: Store) {
    let before = clock::now();
    start(&store, &store.keys(), 1).await;
    let (payments, code) = (store.payments(), watch_code(1));
    let asked = before - Duration::from_secs(1);
    payments.settle(&code, report("completed"), asked).await;
    assert_eq!(status(&store, 1), None);
}

async fn changes_come_in_their_order(store: Store) {
    let changes = store.changes();
    let mut changed = changes.changed();
    let keys = store.keys();
    start(&store, &keys, 1).await;
    start(&store, &keys, 2).await;
    settle(&store, 1, "created").await;
    settle(&store, 1, "created").await;
    settle(&store, 1, "completed").await;
    let all = changes.changes_after(0, 100).unwrap();
    let seen: Vec<_> = all
        .iter()
        .map(|change| {
            let status = change.report.as_ref().map(|report| report.status.label());
            (change.stored.number, status)
        })
        .collect();
    let expected = [
        (1, None),
        (2, None),
        (1, Some("created")),
        (1, Some("completed")),
    ];
    assert_eq!(seen, expected);
    assert!(changed.has_changed().unwrap());
    assert_eq!(*changed.borrow_and_update(), changes.position());
    let after = changes.changes_after(all[1].position, 1).unwrap();
    assert_eq!(after[0].position, all[2].position);
    assert_eq!(
        changes.changes_after(changes.position() + 1, 1).err(),
        Some(OutOfReach)
    );
}

async fn lists_are_in_the_order_of_the_starts(store: Store) {
    let keys = store.keys();
    for n in 1..=5 {
        start(&store, &keys, n).await;
    }
    settle(&store, 2, "completed").await;
    settle(&store, 4, "completed").await;
    let payments = store.payments();
    let numbers = |known: Vec<Known>| {
        known
            .iter()
            .map(|known| known.stored.number)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        numbers(payments.list(&Filter::ALL, u64::MAX, 10).await),
        [5, 4, 3, 2, 1]
    );
    assert_eq!(numbers(payments.list(&Filter::ALL, 4, 2).await), [3, 2]);
    let completed = Filter {
        status: Some("completed".into()),
        ..Filter::ALL
    };
    assert_eq!(
        numbers(payments.list(&completed, u64::MAX, 10).await),
        [4, 2]
    );
    assert_eq!(numbers(payments.open_after(1, 10)), [3, 5]);
}

/// More payments stand before it than are looked at in one go.
async fn a_list_finds_what_is_far_behind(store: Store) {
    const ALL: u64 = 600;
    let (keys, payments) = (store.keys(), store.payments());
    start(&store, &keys, 1).await;
    join_all((2..=ALL).map(|n| start(&store, &keys, n))).await;
    settle(&store, 1, "completed").await;
    let first = payments.list(&Filter::ALL, 2, 1).await.remove(0);
    let at = |time: Timestamp| time..time.checked_add(1.nanosecond()).unwrap();
    let filters = [
        Filter {
            status: Some("completed".into()),
            ..Filter::ALL
        },
        Filter {
            started: at(first.stored.started_at),
            ..Filter::ALL
        },
        Filter {
            completed: Some(at(first.completion.unwrap().seen_at)),
            ..Filter::ALL
        },
    ];
    for filter in &filters {
        // Others may have been started within the same millisecond.
        let found = payments.list(filter, u64::MAX, 1000).await;
        let last = found.last().map(|known| &known.stored.payment.watch_code);
        assert_eq!(last, Some(&watch_code(1)), "{filter:?}");
    }
    let open = Filter {
        status: Some(Status::Created),
        ..Filter::ALL
    };
    let (mut before, mut count) = (u64::MAX, 0);
    // Pages that end between two looks, and at one.
    for limit in [7, 243, 250, 1000] {
        for known in payments.list(&open, before, limit).await {
            assert!(known.stored.number < before);
            (before, count) = (known.stored.number, count + 1);
        }
    }
    assert_eq!(count, ALL - 1);
}

async fn each_payment_makes_its_messages_once(store: Store) {
    start(&store, &store.keys(), 1).await;
    let (payments, outbox) = (store.payments(), store.outbox());
    payments.polling_ended(&watch_code(1)).await;
    payments.polling_ended(&watch_code(1)).await;
    for _ in 0..3 {
        settle(&store, 1, "completed").await;
    }
    payments.polling_ended(&watch_code(1)).await;
    let kinds: Vec<_> = outbox
        .deliveries_before(u64::MAX, 10)
        .iter()
        .map(|message| message.kind)
        .collect();
    assert_eq!(kinds, [Kind::Completed, Kind::PollingEnded]);
}

async fn a_message_is_due_until_it_was_posted(store: Store) {
    start(&store, &store.keys(), 1).await;
    settle(&store, 1, "completed").await;
    let outbox = store.outbox();
    let message = outbox.take_due().unwrap();
    assert!(outbox.take_due().is_err(), "it is being posted");
    let state = DeliveryState::Failed(clock::now());
    outbox
        .posted(Delivery {
            state,
            ..(*message).clone()
        })
        .await;
    assert!(outbox.take_due().is_err());
    assert!(outbox.redeliver("msg_none").await.is_none());
    outbox.redeliver(&message.id).await.unwrap();
    assert_eq!(outbox.take_due().unwrap().id, message.id);
}

/// Waits until the database is there.
async fn is_open(store: &Store) {
    while store.trouble().is_some() {
        clock::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs each promise over each keeper.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $promise() {
                super::$promise(super::open(&super::Place::Memory)).await;
            })*
        }
        mod fleet {
            $(#[tokio::test] async fn $promise() {
                let Some(place) = super::database::place() else { return };
                let store = super::open(&place);
                super::is_open(&store).await;
                super::$promise(store.clone()).await;
                store.close().await;
            })*
        }
        mod file {
            $(#[tokio::test] async fn $promise() {
                let directory = super::TempDir::new().unwrap();
                let store = super::open(&super::place(&directory));
                super::$promise(store.clone()).await;
                store.close().await;
            })*
        }
    };
}

promises!(
    one_key_is_one_start,
    a_key_is_free_again_after_a_start_that_failed_or_crashed,
    starts_without_a_key_are_all_fresh,
    one_reference_has_one_payment,
    a_payment_with_another_status_holds_its_reference_no_longer,
    two_payments_of_a_reference_that_are_completed_at_once_are_told,
    the_codes_of_another_payment_are_revealed_to_nobody,
    the_code_of_a_live_key_is_revealed_to_nobody_when_its_payment_has_gone,
    a_completed_is_never_taken_back,
    an_answer_that_was_asked_for_before_the_start_says_nothing,
    changes_come_in_their_order,
    lists_are_in_the_order_of_the_starts,
    a_list_finds_what_is_far_behind,
    each_payment_makes_its_messages_once,
    a_message_is_due_until_it_was_posted,
);

fn place(directory: &TempDir) -> Place {
    Place::Directory(directory.path().join("store"))
}

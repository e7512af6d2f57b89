//! What every keeper promises: one list of promises, run over each of them.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

use super::*;
use crate::payment::{Amount, Fingerprint, IdempotencyKey, Payment, Report, WatchCode};

const ROOM: usize = 1000;
const TTL: Duration = Duration::from_secs(3600);

fn open(place: &Place) -> Store {
    let compose: Compose = |kind, stored, _, _| format!("{} {}", kind.label(), stored.number);
    Store::open(place, ROOM, TTL, Some(compose), &Readiness::default()).unwrap()
}

fn payment(n: u64) -> Payment {
    Payment {
        code: format!("pay-{n}").parse().unwrap(),
        watch_code: watch_code(n),
        amount: Amount::new(1000 + n),
    }
}

fn watch_code(n: u64) -> WatchCode {
    format!("watch-{n}").parse().unwrap()
}

fn key(n: u64) -> (IdempotencyKey, Fingerprint) {
    let key = IdempotencyKey::stored(&format!("key-{n}")).unwrap();
    (key, Fingerprint([0; 16]))
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
    let Claim::Fresh(claimed, _) = keys.claim(Some(key(n))) else {
        panic!("the key is free");
    };
    let answer = claimed.answer(&format!("answer {n}").into());
    store.payments().started(payment(n), answer).await.unwrap();
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

async fn one_key_is_one_start(store: Store) {
    let keys = store.keys::<u64>();
    let Claim::Fresh(claimed, task) = keys.claim(Some(key(1))) else {
        panic!("the key is free");
    };
    let other = (key(1).0, Fingerprint([1; 16]));
    assert!(matches!(keys.claim(Some(other.clone())), Claim::Mismatch));
    let Claim::InFlight(joined) = keys.claim(Some(key(1))) else {
        panic!("it is under way");
    };
    let answer = claimed.answer(&"answer".into());
    store.payments().started(payment(1), answer).await.unwrap();
    claimed.finish(7);
    assert_eq!(task.result().await.unwrap(), 7);
    assert_eq!(joined.result().await.unwrap(), 7);
    assert!(matches!(keys.claim(Some(key(1))), Claim::Answered(body) if *body == *"answer"));
    assert!(matches!(keys.claim(Some(other)), Claim::Mismatch));
}

async fn a_key_is_free_again_after_a_start_that_failed_or_crashed(store: Store) {
    let keys = store.keys::<u64>();
    for finishes in [true, false] {
        let Claim::Fresh(claimed, task) = keys.claim(Some(key(1))) else {
            panic!("the key is free");
        };
        if finishes {
            claimed.finish(1);
        } else {
            drop(claimed);
        }
        assert_eq!(task.result().await.is_ok(), finishes);
    }
    assert!(matches!(keys.claim(Some(key(1))), Claim::Fresh(..)));
}

async fn starts_without_a_key_are_all_fresh(store: Store) {
    let keys = store.keys::<u64>();
    for _ in 0..3 {
        let claim = keys.claim(None);
        assert!(matches!(&claim, Claim::Fresh(claimed, _) if claimed.answer(&"".into()).is_none()));
    }
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
            .map(|(stored, _)| stored.number)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        numbers(payments.before(u64::MAX, None, 10)),
        [5, 4, 3, 2, 1]
    );
    assert_eq!(numbers(payments.before(4, None, 2)), [3, 2]);
    let completed = "completed".into();
    assert_eq!(
        numbers(payments.before(u64::MAX, Some(&completed), 10)),
        [4, 2]
    );
    assert_eq!(numbers(payments.open_after(1, 10)), [3, 5]);
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

/// Runs each promise over each keeper.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $promise() {
                super::$promise(super::open(&super::Place::Memory)).await;
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
    a_completed_is_never_taken_back,
    an_answer_that_was_asked_for_before_the_start_says_nothing,
    changes_come_in_their_order,
    lists_are_in_the_order_of_the_starts,
    each_payment_makes_its_messages_once,
    a_message_is_due_until_it_was_posted,
);

fn place(directory: &TempDir) -> Place {
    Place::Directory(directory.path().join("store"))
}

/// Everything of a store that was acknowledged to somebody.
fn acknowledged(store: &Store, payments: u64) -> String {
    let keys = store.keys::<u64>();
    let mut lines = vec![store.changes().run().to_owned()];
    for n in 0..payments {
        let answer = match keys.claim(Some(key(n))) {
            Claim::Answered(body) => body.to_string(),
            _ => String::new(),
        };
        // What was only heard of a code is not kept.
        let record = store.payments().get(&watch_code(n));
        if record.is_some_and(|record| record.stored.is_some()) {
            lines.push(format!("{n} {answer} {:?}", status(store, n)));
        }
    }
    let changes = store.changes();
    lines.push(format!("at {}", changes.position()));
    lines.extend(
        changes
            .changes_after(0, usize::MAX)
            .unwrap()
            .iter()
            .map(|change| {
                let report = change.report.as_ref().map(|report| &report.body);
                format!(
                    "{} {} {report:?}",
                    change.position, change.stored.payment.watch_code
                )
            }),
    );
    lines.extend(
        store
            .outbox()
            .deliveries_before(u64::MAX, usize::MAX)
            .iter()
            .map(|message| {
                let Delivery {
                    id,
                    payment,
                    kind,
                    body,
                    tries,
                    ..
                } = &**message;
                format!(
                    "{id} {payment} {kind:?} {body} {tries} {}",
                    message.state.label()
                )
            }),
    );
    lines.join("\n")
}

/// Copies the directory of a store as a crash would leave it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A crash between any two events, and a new process.
#[test]
fn a_crash_between_two_events_loses_nothing_that_was_acknowledged() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let step = prop_oneof![
        3 => (0..8_u64).prop_map(|n| (n, 0)),
        4 => (0..8_u64, 1..4_u8).prop_map(|(n, what)| (n, what)),
        2 => (0..8_u64).prop_map(|n| (n, 4)),
    ];
    let config = ProptestConfig {
        failure_persistence: None,
        cases: 24,
        ..ProptestConfig::default()
    };
    let history = prop::collection::vec((step, any::<bool>()), 0..30);
    TestRunner::new(config)
        .run(&history, |history| runtime.block_on(crashes(history)))
        .unwrap();
}

async fn crashes(history: Vec<((u64, u8), bool)>) -> Result<(), TestCaseError> {
    let directory = TempDir::new().unwrap();
    let mut path = directory.path().join("0");
    let mut store = open(&Place::Directory(path.clone()));
    for (i, ((n, what), crash)) in history.into_iter().enumerate() {
        match what {
            0 => {
                if let Claim::Fresh(claimed, _) = store.keys::<u64>().claim(Some(key(n))) {
                    let answer = claimed.answer(&format!("answer {n}").into());
                    store.payments().started(payment(n), answer).await.unwrap();
                }
            }
            1..=2 => drop(settle(&store, n, ["created", "completed"][usize::from(what) - 1]).await),
            3 => store.payments().polling_ended(&watch_code(n)).await,
            _ => {
                if let Ok(message) = store.outbox().take_due() {
                    let state = DeliveryState::Delivered(clock::now());
                    let tries = message.tries + 1;
                    let posted = Delivery {
                        state,
                        tries,
                        ..(*message).clone()
                    };
                    store.outbox().posted(posted).await;
                }
            }
        }
        if crash {
            let before = acknowledged(&store, 8);
            let next = directory.path().join((i + 1).to_string());
            copy(&path, &next);
            let recovered = open(&Place::Directory(next.clone()));
            prop_assert_eq!(before, acknowledged(&recovered, 8));
            store.close().await;
            (store, path) = (recovered, next);
        }
    }
    store.close().await;
    Ok(())
}

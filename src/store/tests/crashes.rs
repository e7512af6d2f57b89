//! What the file keeper promises of crashes.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;

/// What the start of payment `n` asks for: the last ones are two and two of one reference.
fn meaning_of(n: u64) -> Meaning {
    let reference = (n > 3).then(|| (n / 2).to_string());
    meaning(1000, reference.as_deref())
}

/// Everything of a store that was acknowledged to somebody.
fn acknowledged(store: &Store, payments: u64) -> String {
    let keys = store.keys::<u64>();
    let mut lines = vec![store.changes().run().to_string()];
    for n in 0..payments {
        let answer = match keys.claim(Some(&key(n)), &meaning_of(n), None) {
            Claim::Answered(body) => body.object.to_string(),
            _ => String::new(),
        };
        // What was only heard of a code is not kept.
        let record = store.payments().get(&watch_code(n));
        if let Some(record) = record.filter(|record| record.stored.is_some()) {
            let stored = record.stored.as_ref().unwrap();
            lines.push(format!("{:?}", stored.payment));
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
                let meaning = meaning_of(n);
                let claim = store.keys::<u64>().claim(Some(&key(n)), &meaning, None);
                if let Claim::Fresh(claimed, _) = claim {
                    let body = start_body(n);
                    let answer = claimed.answer(&body);
                    let referenced = meaning.reference.map(|name| (name, body.object));
                    let payment = Payment {
                        referenced,
                        ..payment(n)
                    };
                    store
                        .payments()
                        .started(payment, answer, None)
                        .await
                        .unwrap();
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

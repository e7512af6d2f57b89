//! What is promised of keys and references, and of whose codes are told.

use super::*;

pub(super) async fn one_key_is_one_start(store: Store) {
    let keys = store.keys::<u64>();
    let (key, this, other) = (key(1), meaning(1000, None), meaning(1200, None));
    let Claim::Fresh(claimed, task) = keys.claim(Some(&key), &this, None) else {
        panic!("the key is free");
    };
    let mismatch = keys.claim(Some(&key), &other, None);
    assert!(matches!(mismatch, Claim::Mismatch(None)));
    let Claim::InFlight(joined) = keys.claim(Some(&key), &this, None) else {
        panic!("it is under way");
    };
    let answer = claimed.answer(&start_body(1));
    store
        .payments()
        .started(payment(1), answer, None)
        .await
        .unwrap();
    claimed.finish(7);
    assert_eq!(task.result().await.unwrap(), 7);
    assert_eq!(joined.result().await.unwrap(), 7);
    let again = keys.claim(Some(&key), &this, None);
    assert!(matches!(again, Claim::Answered(body) if body == start_body(1)));
    let mismatch = keys.claim(Some(&key), &other, None);
    assert!(matches!(mismatch, Claim::Mismatch(Some(fate)) if fate.report.is_none()));
}

pub(super) async fn a_key_is_free_again_after_a_start_that_failed_or_crashed(store: Store) {
    let keys = store.keys::<u64>();
    let (key, meaning) = (key(1), meaning(1000, Some("7")));
    for finishes in [true, false] {
        let Claim::Fresh(claimed, task) = keys.claim(Some(&key), &meaning, None) else {
            panic!("the key is free");
        };
        if finishes {
            claimed.finish(1);
        } else {
            drop(claimed);
        }
        assert_eq!(task.result().await.is_ok(), finishes);
    }
    let claim = keys.claim(Some(&key), &meaning, None);
    assert!(matches!(claim, Claim::Fresh(..)));
}

pub(super) async fn starts_without_a_key_are_all_fresh(store: Store) {
    let keys = store.keys::<u64>();
    for _ in 0..3 {
        let claim = keys.claim(None, &meaning(1000, None), None);
        let Claim::Fresh(claimed, _) = claim else {
            panic!("nothing is claimed");
        };
        assert!(claimed.answer(&start_body(1)).is_none());
    }
}

pub(super) async fn one_reference_has_one_payment(store: Store) {
    let keys = store.keys::<u64>();
    let (this, other) = (meaning(1000, Some("7")), meaning(1200, Some("7")));
    let Claim::Fresh(claimed, _) = keys.claim(None, &this, None) else {
        panic!("the reference is free");
    };
    for (meaning, same) in [(&this, true), (&other, false)] {
        let claim = keys.claim(Some(&key(1)), meaning, None);
        assert!(matches!(claim, Claim::Joined { is_the_same, .. } if is_the_same == same));
    }
    drop(claimed);
    start_referenced(&store, &keys, 1, "7").await;
    let claim = keys.claim(None, &this, None);
    assert!(matches!(claim, Claim::Answered(body) if body == start_body(1)));
    let claim = keys.claim(Some(&key(1)), &other, None);
    assert!(matches!(claim, Claim::ReferenceMismatch(fate) if fate.watch_code == watch_code(1)));
    // With a key the answer is kept under it too.
    let Claim::Given(claimed, _, body) = keys.claim(Some(&key(1)), &this, None) else {
        panic!("the payment is open");
    };
    let kept = store.payments().answered(claimed.answer(&body)).await;
    kept.unwrap();
    claimed.finish(1);
    settle(&store, 1, "completed").await;
    let claim = keys.claim(Some(&key(1)), &this, None);
    assert!(matches!(claim, Claim::Answered(body) if body == start_body(1)));
    let claim = keys.claim(None, &this, None);
    assert!(matches!(claim, Claim::ReferencePaid(fate) if fate.watch_code == watch_code(1)));
}

pub(super) async fn a_payment_with_another_status_holds_its_reference_no_longer(store: Store) {
    let keys = store.keys::<u64>();
    start_referenced(&store, &keys, 1, "7").await;
    settle(&store, 1, "cancelled").await;
    start_referenced(&store, &keys, 2, "7").await;
    // Both are completed all the same.
    assert_eq!(settle(&store, 1, "completed").await.paid_twice_with(), None);
    let settled = settle(&store, 2, "completed").await;
    assert_eq!(settled.paid_twice_with(), Some(&watch_code(1)));
    let listed = store.payments().list(&Filter::ALL, u64::MAX, 10).await;
    assert_eq!(listed[0].paid_twice_with(), Some(&watch_code(1)));
    let changes = store.changes().changes_after(0, 100).unwrap();
    let last = changes.last().unwrap();
    assert_eq!(last.paid_twice_with, Some(watch_code(1)));
}

pub(super) async fn two_payments_of_a_reference_that_are_completed_at_once_are_told(store: Store) {
    let keys = store.keys::<u64>();
    start_referenced(&store, &keys, 1, "7").await;
    settle(&store, 1, "cancelled").await;
    start_referenced(&store, &keys, 2, "7").await;
    let first = settle(&store, 1, "completed");
    let (first, second) = tokio::join!(first, settle(&store, 2, "completed"));
    assert_eq!(first.paid_twice_with(), None);
    assert_eq!(second.paid_twice_with(), Some(&watch_code(1)));
}

pub(super) async fn the_codes_of_another_payment_are_revealed_to_nobody(store: Store) {
    let (keys, payments) = (store.keys::<u64>(), store.payments());
    start(&store, &keys, 1).await;
    let given = |watch: u64, code: u64, amount: u64| Payment {
        code: payment(code).code,
        amount: Amount::new(amount),
        ..payment(watch)
    };
    // Another amount, one of the two codes alone, another live key.
    for reused in [
        given(1, 1, 1200),
        given(1, 2, 1000),
        given(2, 1, 1000),
        given(1, 1, 1000),
    ] {
        let claim = keys.claim(Some(&key(2)), &meaning(1000, None), None);
        let Claim::Fresh(claimed, _) = claim else {
            panic!("the key is free");
        };
        let answer = claimed.answer(&start_body(1));
        let kept = payments.started(reused.clone(), answer, None).await;
        assert!(
            matches!(kept, Err(RecordError::CodeReused(_))),
            "{reused:?}"
        );
    }
    // One without a key, and given again, is the same payment; once it is final it is not.
    payments.started(payment(3), None, None).await.unwrap();
    payments.started(payment(3), None, None).await.unwrap();
    settle(&store, 3, "completed").await;
    let kept = payments.started(payment(3), None, None).await;
    assert!(matches!(kept, Err(RecordError::CodeReused(_))));
    assert_eq!(payments.list(&Filter::ALL, u64::MAX, 10).await.len(), 2);
}

pub(super) async fn the_code_of_a_live_key_is_revealed_to_nobody_when_its_payment_has_gone(
    store: Store,
) {
    let (keys, payments) = (store.keys::<u64>(), store.payments());
    start(&store, &keys, 1).await;
    settle(&store, 1, "completed").await;
    {
        let guarded = &mut *payments.log.lock();
        let stored = guarded
            .state
            .payments
            .get(&watch_code(1))
            .unwrap()
            .stored
            .clone();
        guarded
            .state
            .payments
            .let_go(&stored.unwrap(), &mut Vec::new());
    }
    assert!(payments.get(&watch_code(1)).is_none());
    let kept = payments.started(payment(1), None, None).await;
    assert!(matches!(kept, Err(RecordError::CodeReused(_))));
}

//! One reference has one payment, whatever happens to those who start it.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Answer, Sidecar, get};
use crate::keys;
use crate::paused::{MANY, pass};

async fn start(sidecar: &Sidecar, body: Value) -> Answer {
    sidecar.start(body.to_string()).await
}

#[track_caller]
fn code(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text("code")
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == "true"
}

#[tokio::test(start_paused = true)]
async fn a_number_and_its_digits_are_one_reference_and_null_is_none() {
    let sidecar = Sidecar::with(&MANY);
    let first = start(&sidecar, json!({"amount": 1000, "reference": 7})).await;
    assert!(!is_replayed(&first));
    let again = start(&sidecar, json!({"reference": "7", "amount": 1000})).await;
    assert!(is_replayed(&again));
    assert_eq!(code(&again), code(&first));
    let other = start(&sidecar, json!({"amount": 1000, "reference": "07"})).await;
    assert_ne!(code(&other), code(&first));
    for _ in 0..2 {
        let none = start(&sidecar, json!({"amount": 1000, "reference": null})).await;
        assert!(!is_replayed(&none));
    }
    assert_eq!(sidecar.gateway_starts(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_reference_is_refused_and_quoted() {
    let sidecar = Sidecar::with(&MANY);
    let long = "x".repeat(129);
    for reference in [
        json!(""),
        json!(long),
        json!("ä"),
        json!("a\nb"),
        json!("order-null"),
        json!("undefined"),
        json!("checkout-"),
        json!(1.5),
        json!(true),
        json!({"id": 7}),
        json!([7]),
        json!(1e30),
    ] {
        let answer = start(&sidecar, json!({"amount": 1000, "reference": reference})).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (422, "invalid_reference"),
            "{reference}"
        );
        assert!(
            answer.text("detail").starts_with("reference is "),
            "{answer:?}"
        );
    }
    assert_eq!(sidecar.gateway_starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn sixty_starts_of_one_reference_at_once_are_one_payment() {
    let sidecar = Sidecar::with(&MANY);
    sidecar.faults(&["start:delay=2s"]);
    let starts = (0..60).map(|i| {
        let body = json!({"amount": 1000, "reference": "7"}).to_string();
        let sidecar = &sidecar;
        async move {
            // Some with a key of their own.
            if i % 3 == 0 {
                keys::start(sidecar, &format!("key-{i}"), body).await
            } else {
                sidecar.start(body).await
            }
        }
    });
    let answers = join_all(starts).await;
    let codes: HashSet<_> = answers.iter().map(code).collect();
    assert_eq!((codes.len(), sidecar.gateway_starts()), (1, 1));
    // Each of those keys has kept it.
    let body = json!({"amount": 1000, "reference": "7"}).to_string();
    let again = keys::start(&sidecar, "key-3", body).await;
    assert!(is_replayed(&again) && codes.contains(code(&again)));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_fails_for_all_who_joined_it_and_leaves_the_reference_free() {
    let sidecar = Sidecar::with(&MANY);
    sidecar.faults(&["start:status=500,delay=1s"]);
    let body = || json!({"amount": 1000, "reference": "7"});
    let answers = join_all([(); 5].map(|()| start(&sidecar, body()))).await;
    assert!(
        answers.iter().all(|answer| answer.status == 502),
        "{answers:?}"
    );
    assert_eq!(sidecar.gateway_starts(), 1);
    sidecar.faults(&[]);
    assert!(!is_replayed(&start(&sidecar, body()).await));
}

#[tokio::test(start_paused = true)]
async fn another_amount_is_a_mismatch_that_shows_the_payment_and_a_paid_one_is_paid() {
    let sidecar = Sidecar::with(&MANY);
    let first = start(&sidecar, json!({"amount": 1000, "reference": 7})).await;
    let answer = start(&sidecar, json!({"amount": 1200, "reference": 7})).await;
    assert_eq!(
        (answer.status, answer.text("error")),
        (422, "reference_mismatch")
    );
    let problem = answer.json();
    assert_eq!(problem["watch_code"], first.json()["watch_code"]);
    assert_eq!(problem["requested_amount"], 1000);
    assert_eq!(problem["completed_at"], Value::Null);
    assert_eq!(problem["outcome"], "not_sent");
    sidecar.pay(code(&first));
    assert_eq!(
        sidecar.watch(first.text("watch_code")).await.text("status"),
        "completed"
    );
    for amount in [1000, 1200] {
        let answer = start(&sidecar, json!({"amount": amount, "reference": 7})).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (409, "reference_paid")
        );
        let problem = answer.json();
        assert_eq!(problem["watch_code"], first.json()["watch_code"]);
        assert!(problem["completed_at"].is_string(), "{problem}");
    }
    assert_eq!(sidecar.gateway_starts(), 1);
}

/// The shop gave the order up, the payer comes back, and both pages are paid.
#[tokio::test(start_paused = true)]
async fn an_old_payment_is_asked_for_once_and_two_that_are_paid_are_told() {
    let settings = [("watch.give_up_after", "1h"), ("watch.fresh_for", "0s")];
    let sidecar = Sidecar::dev(&settings);
    let body = || json!({"amount": 1000, "reference": 7});
    let old = start(&sidecar, body()).await;
    pass(3601.0).await;
    // Without an answer nothing is started.
    sidecar.faults(&["watch:status=500"]);
    let answer = start(&sidecar, body()).await;
    assert_eq!(
        (answer.status, answer.text("error")),
        (502, "gateway_bad_answer")
    );
    assert_eq!(answer.text("outcome"), "not_sent");
    assert_eq!(sidecar.gateway_starts(), 1);
    sidecar.faults(&[]);
    let polls = sidecar.gateway_watches();
    let new = start(&sidecar, body()).await;
    assert_ne!(code(&new), code(&old));
    assert_eq!(
        (sidecar.gateway_starts(), sidecar.gateway_watches()),
        (2, polls + 1)
    );
    assert_eq!(
        code(&start(&sidecar, body()).await),
        code(&new),
        "the new one holds it"
    );
    for paid in [&old, &new] {
        sidecar.pay(code(paid));
        assert_eq!(
            sidecar.watch(paid.text("watch_code")).await.text("status"),
            "completed"
        );
    }
    let page = sidecar.api(get("/payments")).await.json();
    let twice: Vec<_> = page["payments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|payment| &payment["paid_twice_with"])
        .collect();
    assert_eq!(twice, [&old.json()["watch_code"], &Value::Null]);
    assert_eq!(
        sidecar.metric("tillgate_references_paid_twice_total").await,
        1
    );
    assert_eq!(
        start(&sidecar, body()).await.text("error"),
        "reference_paid"
    );
}

/// Another amount is no reason not to ask: the old payment may be paid, or hold its reference no longer.
#[tokio::test(start_paused = true)]
async fn an_old_payment_is_asked_for_before_another_amount_is_refused() {
    let sidecar = Sidecar::dev(&[("watch.give_up_after", "1h")]);
    let (body, other) = (
        |reference: &str| json!({"amount": 1000, "reference": reference}),
        |reference: &str| json!({"amount": 1200, "reference": reference}),
    );
    let (open, paid) = (
        start(&sidecar, body("open")).await,
        start(&sidecar, body("paid")).await,
    );
    pass(3601.0).await;
    sidecar.pay(code(&paid));
    let polls = sidecar.gateway_watches();
    let mismatch = start(&sidecar, other("open")).await;
    assert_eq!(mismatch.text("error"), "reference_mismatch");
    assert_eq!(mismatch.text("watch_code"), open.text("watch_code"));
    let is_paid = start(&sidecar, other("paid")).await;
    assert_eq!(is_paid.text("error"), "reference_paid", "{is_paid:?}");
    assert_eq!(sidecar.gateway_watches(), polls + 2);
    assert_eq!(sidecar.gateway_starts(), 2);
}

/// The payer pays on the old page: whoever only asks for the new payment is told of both.
#[tokio::test(start_paused = true)]
async fn an_old_payment_is_asked_for_along_with_the_new_one() {
    for wait in ["", "?wait=30"] {
        let sidecar = Sidecar::dev(&[("watch.give_up_after", "1h")]);
        let body = || json!({"amount": 1000, "reference": 7});
        let old = start(&sidecar, body()).await;
        pass(3601.0).await;
        let new = start(&sidecar, body()).await;
        assert_ne!(code(&new), code(&old));
        sidecar.pay(code(&old));
        pass(5.0).await;
        let path = format!("/watch/{}{wait}", new.text("watch_code"));
        let watched = sidecar.api(get(&path)).await;
        assert_eq!(watched.text("status"), "created");
        sidecar.idle().await;
        let paid = start(&sidecar, body()).await;
        assert_eq!(paid.text("error"), "reference_paid", "{wait}: {paid:?}");
        assert_eq!(paid.text("watch_code"), old.text("watch_code"));
        sidecar.pay(code(&new));
        pass(5.0).await;
        let watched = sidecar.watch(new.text("watch_code")).await;
        assert_eq!(watched.text("status"), "completed");
        let page = sidecar.api(get("/payments")).await.json();
        let twice = &page["payments"][0]["paid_twice_with"];
        assert_eq!(*twice, *old.text("watch_code"), "{wait}: {page}");
    }
}

/// It was paid meanwhile, and nobody had asked.
#[tokio::test(start_paused = true)]
async fn an_old_payment_that_was_paid_is_no_reason_to_pay_again() {
    let sidecar = Sidecar::with(&[("watch.give_up_after", "1h")]);
    let body = || json!({"amount": 1000, "reference": 7});
    let old = start(&sidecar, body()).await;
    pass(7200.0).await;
    sidecar.pay(code(&old));
    assert_eq!(
        start(&sidecar, body()).await.text("error"),
        "reference_paid"
    );
    assert_eq!(sidecar.gateway_starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_without_a_name_is_refused_where_one_is_required() {
    let sidecar = Sidecar::with(&[("start.require_idempotency", "true")]);
    let answer = start(&sidecar, json!({"amount": 1000})).await;
    assert_eq!(
        (answer.status, answer.text("error")),
        (400, "idempotency_required")
    );
    let body = json!({"amount": 1000}).to_string();
    code(&keys::start(&sidecar, "a-1", body).await);
    code(&start(&sidecar, json!({"amount": 1000, "reference": 7})).await);
    // What is wrong with it comes first.
    let answer = start(&sidecar, json!({"amount": 0})).await;
    assert_eq!(answer.text("error"), "invalid_amount");
}

//! What the lists of a store have, and what leaves them: also over restarts.

use serde_json::{Value, json};

use super::*;

async fn start_of(api: SocketAddr, reference: usize) -> Answer {
    let body = json!({"amount": 1000, "reference": reference}).to_string();
    call(
        api,
        Method::POST,
        "/api/start_payment",
        &[TOKEN, JSON],
        &body,
    )
    .await
}

/// Starts a payment of this reference, which its payer pays.
async fn paid(api: SocketAddr, gateway: &str, reference: usize) {
    let started = start_of(api, reference).await;
    assert_eq!(started.status, 200, "{started:?}");
    pay_at(gateway, started.text("code")).await;
    let watched = watch(api, started.text("watch_code")).await;
    assert_eq!(watched.text("status"), "completed", "{watched:?}");
}

/// The list without what changes with each look at it.
async fn list(api: SocketAddr) -> Value {
    let page = call(api, Method::GET, "/payments?limit=1000", &[TOKEN], "").await;
    assert_eq!(page.status, 200, "{page:?}");
    page.json()
}

fn references(list: &Value) -> Vec<&str> {
    let payments = list["payments"].as_array().unwrap().iter();
    payments
        .map(|payment| payment["reference"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn completed_payments_are_kept_for_their_time_and_the_list_says_since_when() {
    let place = Place::new();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let settings = [("store.keep_for", "3s"), ("start.idempotency_ttl", "1s")];
    let (sidecar, api) = place.sidecar(&gateway, &settings).await;
    let begun = list(api).await["complete_since"].clone();
    paid(api, &gateway, 7).await;
    assert_eq!(start_of(api, 8).await.status, 200);
    let kept = list(api).await;
    assert_eq!(references(&kept), ["8", "7"]);
    assert_eq!(kept["complete_since"], begun);
    assert_eq!(start_of(api, 7).await.text("error"), "reference_paid");
    let left = until("it leaves the list", async || {
        let list = list(api).await;
        (references(&list) == ["8"]).then_some(list)
    })
    .await;
    let seen_at = kept["payments"][1]["completed_seen_at"].as_str().unwrap();
    let since = left["complete_since"].as_str().unwrap();
    // A fraction has no more digits than it needs.
    let time = |text: &str| text.trim_end_matches('Z').to_owned();
    assert!(time(since) > time(seen_at), "{since} {seen_at}");
    // Its reference is free again.
    let again = start_of(api, 7).await;
    assert_eq!(again.status, 200, "{again:?}");
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let (_sidecar, api) = place.sidecar(&gateway, &settings).await;
    assert_eq!(list(api).await["complete_since"], since);
}

#[tokio::test]
async fn a_full_store_is_full_again_after_a_restart_and_knows_what_was_paid() {
    let place = Place::new();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let settings = [("store.max_bytes", "64KiB"), ("watch.poll_rate", "10000")];
    let (sidecar, api) = place.sidecar(&gateway, &settings).await;
    for reference in 0..60 {
        paid(api, &gateway, reference).await;
    }
    let before = list(api).await;
    let count = references(&before).len();
    assert!((2..55).contains(&count), "{before}");
    sidecar.kill().await;
    let (sidecar, api) = place.sidecar(&gateway, &settings).await;
    let after = list(api).await;
    // What was to go with the next write may be gone only now.
    assert!(
        references(&before).starts_with(&references(&after)),
        "{before} {after}"
    );
    assert!(references(&after).len() + 3 > count, "{before} {after}");
    let since = |list: &Value| {
        list["complete_since"]
            .as_str()
            .unwrap()
            .trim_end_matches('Z')
            .to_owned()
    };
    assert!(since(&after) >= since(&before));
    for reference in 0..60 {
        let again = start_of(api, reference).await;
        assert_eq!(
            again.text("error"),
            "reference_paid",
            "{reference}: {again:?}"
        );
        assert!(again.json()["completed_at"].is_string(), "{again:?}");
    }
    // More room brings none of them back.
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let (_sidecar, api) = place.sidecar(&gateway, &[]).await;
    assert_eq!(references(&list(api).await), references(&after));
    assert_eq!(since(&list(api).await), since(&after));
}

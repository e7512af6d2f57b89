//! Webhooks, over real sockets: what the app is told, how it is signed, and what happens when the app does not take it.

mod app;
mod deliveries;
mod messages;
mod restarts;
mod settings;
mod tries;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;

pub use self::app::{App, OK, Post, Say};
use crate::harness::{Answer, Sidecar, get, until};

/// Polls often enough for a test to be short, and starts as many as a test wants.
pub const FAST: [(&str, &str); 4] = [
    ("watch.max_poll_interval", "50ms"),
    ("watch.poll_rate", "10000"),
    ("start.rate", "1000000"),
    ("start.burst", "100000"),
];

/// Lets so much time pass at once: for all who wait in this process.
pub async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A payment of that amount: its code and watch code.
pub async fn started(sidecar: &Sidecar, amount: usize) -> (String, String) {
    let answer = sidecar.start(format!("{{\"amount\":{amount}}}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    (
        answer.text("code").to_owned(),
        answer.text("watch_code").to_owned(),
    )
}

/// The same, and paid.
pub async fn paid(sidecar: &Sidecar, amount: usize) -> (String, String) {
    let codes = started(sidecar, amount).await;
    sidecar.pay(&codes.0);
    codes
}

pub fn empty_post(path: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "localhost")
        .body(Full::default())
        .unwrap()
}

pub async fn redeliver(sidecar: &Sidecar, id: &str) -> Answer {
    sidecar
        .api(empty_post(&format!("/deliveries/{id}/redeliver")))
        .await
}

pub async fn page(sidecar: &Sidecar, query: &str) -> Value {
    let answer = sidecar.api(get(&format!("/deliveries{query}"))).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json"),
        "{answer:?}"
    );
    answer.json()
}

/// All deliveries, the newest first.
pub async fn deliveries(sidecar: &Sidecar) -> Vec<Value> {
    page(sidecar, "?limit=1000").await["deliveries"]
        .as_array()
        .unwrap()
        .clone()
}

/// The one delivery of that id, once this holds of it.
pub async fn delivery(sidecar: &Sidecar, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until("a delivery like that", async || {
        deliveries(sidecar)
            .await
            .into_iter()
            .find(|delivery| delivery["id"] == id && holds(delivery))
    })
    .await
}

pub async fn delivered(sidecar: &Sidecar, outcome: &str) -> u64 {
    sidecar
        .metric(&format!(
            "tillgate_webhook_deliveries_total{{outcome=\"{outcome}\"}}"
        ))
        .await
}

pub async fn pending(sidecar: &Sidecar) -> u64 {
    sidecar.metric("tillgate_webhooks_pending").await
}

pub fn time(value: &Value) -> jiff::Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    assert!(text.ends_with('Z'), "{text}");
    text.parse().unwrap()
}

pub fn seconds_between(from: &Value, to: &Value) -> f64 {
    time(to).duration_since(time(from)).as_secs_f64()
}

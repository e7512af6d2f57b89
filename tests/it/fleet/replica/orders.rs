//! What is sent to start a payment, and what comes back.

use crate::harness::Answer;

/// The body of a start.
pub fn order(amount: u64) -> String {
    format!("{{\"amount\":{amount}}}")
}

/// The same for a reference.
pub fn order_of(reference: &str, amount: u64) -> String {
    format!("{{\"amount\":{amount},\"reference\":\"{reference}\"}}")
}

/// The code and the watch code of a start that was answered well.
#[track_caller]
pub fn codes(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{answer:?}");
    (
        answer.text("code").to_owned(),
        answer.text("watch_code").to_owned(),
    )
}

/// The database is away; what became of the start.
#[track_caller]
pub fn assert_away(answer: &Answer, outcome: &str) {
    let found = (answer.status, answer.text("error"), answer.text("outcome"));
    assert_eq!(found, (503, "store_unavailable", outcome), "{answer:?}");
    let retry_after = answer.header("retry-after");
    assert!(retry_after.parse::<u64>().is_ok(), "{answer:?}");
    if outcome == "not_sent" {
        assert_eq!(retry_after, "1", "{answer:?}");
    }
}

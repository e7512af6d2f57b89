//! `GET /payments`: what was started here, page by page.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{Answer, Sidecar, get};
use crate::paused::MANY;

async fn page(sidecar: &Sidecar, query: &str) -> Answer {
    let answer = sidecar.api(get(&format!("/payments{query}"))).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json"),
        "{query}: {answer:?}"
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(
        answer.json().as_object().unwrap().len(),
        3,
        "payments, next and complete_since: {answer:?}"
    );
    answer
}

/// A page without the time since which it is complete.
fn listed(page: &Answer) -> Value {
    let mut page = page.json();
    let since = page.as_object_mut().unwrap().remove("complete_since");
    assert!(since.as_ref().is_some_and(is_time), "{since:?}");
    page
}

/// The watch codes of a page.
fn codes(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let payments = json["payments"].as_array().unwrap();
    payments
        .iter()
        .map(|payment| payment["watch_code"].as_str().unwrap().to_owned())
        .collect()
}

async fn started(sidecar: &Sidecar, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for _ in 0..count {
        codes.push(sidecar.started().await.1);
    }
    codes
}

/// RFC 3339 in UTC, as far as its shape goes.
fn is_time(value: &Value) -> bool {
    let shape: String = value
        .as_str()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let seconds = shape.strip_suffix('Z').unwrap_or_default();
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    seconds == "0000-00-00T00:00:00"
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte == b'0')
}

#[tokio::test]
async fn lists_that_nobody_reads_take_a_bounded_room() {
    let sidecar = Sidecar::dev(&[]);
    let mut unread = Vec::new();
    let refused = loop {
        let list = ["/payments", "/deliveries"][unread.len() % 2];
        let answer = sidecar.stream_of(get(list)).await;
        if answer.status != 200 {
            break answer;
        }
        unread.push(answer);
        assert!(unread.len() < 1000, "there is no end of room");
    };
    assert_eq!(
        (refused.status, refused.headers["retry-after"].as_bytes()),
        (503, b"1".as_slice())
    );
    let refused = sidecar.api(get("/payments")).await;
    assert_eq!(
        (refused.text("error"), &refused.json()["retryable"]),
        ("overloaded", &json!(true)),
        "{refused:?}"
    );
    // What is no list goes on.
    sidecar.started().await;
    unread.pop();
    page(&sidecar, "").await;
    drop(unread);
}

#[tokio::test]
async fn a_payment_is_listed_with_what_is_known_of_it() {
    let sidecar = Sidecar::dev(&[]);
    assert_eq!(
        listed(&page(&sidecar, "").await),
        json!({ "payments": [], "next": null })
    );
    let answer = sidecar.start(r#"{"amount": 9007199254740991}"#).await;
    let (code, watch_code) = (
        answer.text("code").to_owned(),
        answer.text("watch_code").to_owned(),
    );
    let mut list = listed(&page(&sidecar, "").await);
    let started_at = list["payments"][0]["started_at"].take();
    assert!(is_time(&started_at), "{started_at}");
    let unknown = json!({
        "status": "created", "amount": 9_007_199_254_740_991_u64, "merchant": null, "created_at": null,
        "completed_at": null, "code": code, "watch_code": watch_code, "started_at": null, "last_polled_at": null,
        "completed_seen_at": null,
        "reference": null, "requested_amount": 9_007_199_254_740_991_u64, "paid_twice_with": null,
    });
    assert_eq!(list, json!({ "payments": [unknown], "next": null }));

    sidecar.faults(&["watch:echo-secret"]);
    sidecar.watch(&watch_code).await;
    let known = page(&sidecar, "").await.json()["payments"][0].clone();
    assert_eq!(
        (&known["merchant"], &known["status"]),
        (&"Sandbox Shop".into(), &"created".into())
    );
    assert_eq!(known["note"], "Asked on behalf of [redacted]");
    assert!(known["created_at"].is_string() && known["completed_at"].is_null());
    assert_eq!(known["started_at"], started_at);
    assert!(is_time(&known["last_polled_at"]), "{known}");
    // As text, which is as in time.
    // As texts without their last letter: a fraction has no more digits than it needs.
    let time = |time: &Value| time.as_str().unwrap().trim_end_matches('Z').to_owned();
    assert!(
        time(&known["last_polled_at"]) >= time(&started_at),
        "{known}"
    );
    assert_eq!(known.as_object().unwrap().len(), 14, "{known}");

    sidecar.pay(&code);
    sidecar
        .watch_with(&watch_code, "cache-control", "no-cache")
        .await;
    let paid = page(&sidecar, "").await.json()["payments"][0].clone();
    assert_eq!(paid["status"], "completed");
    assert!(paid["completed_at"].is_string());
}

#[tokio::test]
async fn only_what_was_started_here_is_listed() {
    let sidecar = Sidecar::dev(&[("watch.max_tracked", "1")]);
    let (_, first) = sidecar.started().await;
    let (_, second) = sidecar.started().await;
    assert_eq!(
        codes(&page(&sidecar, "").await),
        [&*second],
        "the first was let go"
    );
    // It is in memory again, but where it came from is not.
    assert_eq!(sidecar.watch(&first).await.status, 200);
    assert!(!codes(&page(&sidecar, "").await).contains(&first));
    assert_eq!(sidecar.watch("nobody-has-this-one").await.status, 404);
    assert!(codes(&page(&sidecar, "").await).len() <= 1);
}

#[tokio::test]
async fn the_newest_come_first_a_hundred_to_a_page_unless_asked_otherwise() {
    let sidecar = Sidecar::dev(&MANY);
    let mut all = started(&sidecar, 1005).await;
    all.reverse();
    let first = page(&sidecar, "").await;
    assert_eq!(codes(&first), all[..100]);
    let second = page(&sidecar, &format!("?after={}", first.text("next"))).await;
    assert_eq!(codes(&second), all[100..200]);
    for limit in [1, 2, 100, 101, 1000] {
        let limited = page(&sidecar, &format!("?limit={limit}")).await;
        assert_eq!(codes(&limited), all[..limit], "{limit}");
        assert!(limited.json()["next"].is_string());
        let rest = page(
            &sidecar,
            &format!("?after={}&limit=1000", limited.text("next")),
        )
        .await;
        assert_eq!(
            codes(&rest),
            all[limit..all.len().min(limit + 1000)],
            "{limit}"
        );
    }
    assert_eq!(codes(&page(&sidecar, "?limit=0100").await).len(), 100);
}

#[tokio::test]
async fn the_last_page_says_that_it_is_the_last() {
    let sidecar = Sidecar::dev(&MANY);
    started(&sidecar, 10).await;
    for (limit, pages) in [(1, 10), (3, 4), (5, 2), (9, 2), (10, 1), (11, 1)] {
        let mut query = format!("?limit={limit}");
        let mut seen = Vec::new();
        for i in 1..=pages {
            let answer = page(&sidecar, &query).await;
            seen.extend(codes(&answer));
            let next = answer.json()["next"].clone();
            assert_eq!(next.is_null(), i == pages, "{limit}, {i}: {next}");
            query = format!("?limit={limit}&after={}", next.as_str().unwrap_or_default());
        }
        assert_eq!(seen.len(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn who_turns_the_pages_while_payments_start_and_finish_sees_each_once() {
    let sidecar = Sidecar::dev(&MANY);
    let mut all = Vec::new();
    for _ in 0..250 {
        all.push(sidecar.started().await);
    }
    let mut seen = Vec::new();
    let mut query = String::from("?limit=30");
    loop {
        let answer = page(&sidecar, &query).await;
        seen.extend(codes(&answer));
        let next = answer.json()["next"].clone();
        let Some(next) = next.as_str() else { break };
        query = format!("?limit=30&after={next}");
        // Meanwhile.
        started(&sidecar, 7).await;
        for (code, watch_code) in all.iter().skip(seen.len() % 17).step_by(17) {
            sidecar.pay(code);
            assert_eq!(sidecar.watch(watch_code).await.status, 200);
        }
    }
    all.reverse();
    assert_eq!(
        seen,
        all.iter()
            .map(|(_, watch_code)| watch_code.clone())
            .collect::<Vec<_>>()
    );
    // The new ones are on top of a new first page.
    assert_eq!(
        codes(&page(&sidecar, "?limit=1000").await).len(),
        250 + 8 * 7
    );
}

#[tokio::test(start_paused = true)]
async fn one_status_can_be_asked_for() {
    let sidecar = Sidecar::dev(&MANY);
    let mut open = Vec::new();
    let mut paid = Vec::new();
    for i in 0..30 {
        let (code, watch_code) = sidecar.started().await;
        if i % 3 == 0 {
            sidecar.pay(&code);
            paid.insert(0, watch_code.clone());
        } else {
            open.insert(0, watch_code.clone());
        }
        if i % 2 == 0 || i % 3 == 0 {
            sidecar.watch(&watch_code).await;
        }
        // Within the budget.
        sleep(Duration::from_millis(100)).await;
    }
    // Never asked for counts as created, as it is shown.
    assert_eq!(codes(&page(&sidecar, "?status=created").await), open);
    assert_eq!(codes(&page(&sidecar, "?status=completed").await), paid);
    let mut seen = Vec::new();
    let mut query = String::from("?status=completed&limit=3");
    loop {
        let answer = page(&sidecar, &query).await;
        assert!(
            answer.json()["payments"]
                .as_array()
                .unwrap()
                .iter()
                .all(|payment| payment["status"] == "completed")
        );
        seen.extend(codes(&answer));
        let next = answer.json()["next"].clone();
        let Some(next) = next.as_str() else { break };
        query = format!("?after={next}&limit=3&status=completed");
    }
    assert_eq!(seen, paid);

    // What the guide does not know is neither, and is in the whole list.
    sidecar.faults(&["watch:unknown-status"]);
    sidecar.watch(&open[0]).await;
    sidecar
        .watch_with(&open[0], "cache-control", "no-cache")
        .await;
    assert_eq!(codes(&page(&sidecar, "?status=created").await), open[1..]);
    assert_eq!(codes(&page(&sidecar, "?status=completed").await), paid);
    assert_eq!(codes(&page(&sidecar, "").await).len(), 30);
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_is_refused() {
    let sidecar = Sidecar::dev(&[]);
    started(&sidecar, 3).await;
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=abc",
        "limit=",
        "limit",
        "limit=-1",
        "limit=%2B1",
        "limit=1%30",
        "limi%74=10&limit=10",
        "limit=+1",
        "limit=1.0",
        "limit=1e2",
        "limit=0x10",
        "limit=18446744073709551616",
        "limit=10&limit=10",
        "limit=10&status=created&limit=20",
        "status=paid",
        "status=",
        "status",
        "status=Created",
        "status=create%64%20",
        "status=created,completed",
        "status=created&status=completed",
        "after=abc",
        "after=0",
        "after=",
        "after",
        "after=-1",
        "after=1&after=1",
        "after=18446744073709551616",
        "page=2",
        "Limit=10",
        "limit=10&offset=3",
        "=",
        "limit=10;status=created",
        "from=yesterday",
        "from=2026-01-31",
        "to=9999-12-3x",
        "to=9999-12-31",
        "to=1769860800",
        "completed_from=",
        "completed_to=2026-01-31T12:00:00",
        "from=2026-01-31T12:00:00Z&from=2026-01-31T12:00:00Z",
        "reference=",
        "reference=caf%C3%A9",
    ] {
        let answer = sidecar.api(get(&format!("/payments?{bad}"))).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (400, "invalid_query"),
            "{bad}: {answer:?}"
        );
        let json = answer.json();
        assert_eq!(
            (&json["source"], &json["retryable"]),
            (&"sidecar".into(), &false.into()),
            "{bad}"
        );
        assert!(
            json["outcome"].is_null() && !answer.text("detail").is_empty(),
            "{bad}: {answer:?}"
        );
    }
    // Nothing is not a bad query, and a page may be empty.
    for good in [
        "",
        "limit=1000",
        "limit=1&status=created&after=3",
        "after=1",
        "after=9999999999999999999",
        "from=2026-01-31T12:00:00Z&to=2026-01-31t13:00:00.5Z",
        "completed_from=2026-01-31T12:00:00%2B01:00&completed_to=2027-01-31T12:00:00-08:00",
        "to=9999-12-31T23:59:59Z",
        "to=9999-12-30T22:00:01.5-05:00",
        "reference=7",
        "reference=undefined",
    ] {
        page(&sidecar, &format!("?{good}")).await;
    }
    assert_eq!(
        listed(&page(&sidecar, "?after=1").await),
        json!({ "payments": [], "next": null })
    );
}

#[tokio::test]
async fn the_list_is_read_and_nothing_else() {
    let sidecar = Sidecar::dev(&[]);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let mut request = get("/payments");
        *request.method_mut() = method.parse().unwrap();
        let answer = sidecar.api(request).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "GET, HEAD"),
            "{method}: {answer:?}"
        );
    }
    for path in ["/payments/", "/payments/1", "/Payments"] {
        assert_eq!(
            sidecar.api(get(path)).await.text("error"),
            "not_found",
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn over_max_tracked_the_oldest_are_let_go() {
    let sidecar = Sidecar::dev(&[MANY[0], MANY[1], ("watch.max_tracked", "10")]);
    let mut all = Vec::new();
    for i in 0..25 {
        let (code, watch_code) = sidecar.started().await;
        // Whether it is finished makes no difference.
        if i % 2 == 0 {
            sidecar.pay(&code);
            sidecar.watch(&watch_code).await;
        }
        all.insert(0, watch_code);
    }
    assert_eq!(codes(&page(&sidecar, "").await), all[..10]);
    assert_eq!(sidecar.metric("tillgate_payments_let_go_total").await, 15);
    let first = page(&sidecar, "?limit=5").await;
    // A page that is gone by the time it is turned to is empty, not an error.
    started(&sidecar, 10).await;
    let second = page(&sidecar, &format!("?limit=5&after={}", first.text("next"))).await;
    assert_eq!(listed(&second), json!({ "payments": [], "next": null }));
}

//! What a list is asked for, the table for spreadsheets, and what leaves the lists when there is no more room.

use serde_json::{Value, json};

use crate::harness::{Answer, Sidecar, get};
use crate::keys;
use crate::paused::{MANY, pass};

async fn list(sidecar: &Sidecar, query: &str) -> Value {
    let answer = sidecar.api(get(&format!("/payments?{query}"))).await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    answer.json()
}

/// The references of a list, in its order.
fn references(list: &Value) -> Vec<&str> {
    let payments = list["payments"].as_array().unwrap().iter();
    payments
        .map(|payment| payment["reference"].as_str().unwrap())
        .collect()
}

async fn start(sidecar: &Sidecar, reference: &str) -> Answer {
    let body = json!({"amount": 1000, "reference": reference});
    sidecar.start(body.to_string()).await
}

/// Starts a payment of this reference; its code and its watch code.
async fn started(sidecar: &Sidecar, reference: &str) -> (String, String) {
    let answer = start(sidecar, reference).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = |name| answer.text(name).to_owned();
    (text("code"), text("watch_code"))
}

async fn paid(sidecar: &Sidecar, reference: &str) -> (String, String) {
    let codes = started(sidecar, reference).await;
    sidecar.pay(&codes.0);
    let watched = sidecar.watch(&codes.1).await;
    assert_eq!(watched.text("status"), "completed", "{watched:?}");
    codes
}

async fn table(sidecar: &Sidecar, query: &str) -> Answer {
    let mut request = get(&format!("/payments?{query}"));
    let accept = "text/csv".parse().unwrap();
    request.headers_mut().insert("accept", accept);
    sidecar.api(request).await
}

#[tokio::test]
async fn a_list_has_what_each_filter_lets_through() {
    let sidecar = Sidecar::dev(&MANY);
    for reference in ["a", "b", "c"] {
        started(&sidecar, reference).await;
        // A later millisecond.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        paid(&sidecar, &format!("{reference}-paid")).await;
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    let all = list(&sidecar, "").await;
    assert_eq!(
        references(&all),
        ["c-paid", "c", "b-paid", "b", "a-paid", "a"]
    );
    let of = |reference: &str, time: &str| {
        let payments = all["payments"].as_array().unwrap();
        let payment = payments
            .iter()
            .find(|payment| payment["reference"] == reference);
        payment.unwrap()[time].as_str().unwrap().to_owned()
    };
    let (from, to) = (of("b", "started_at"), of("c", "started_at"));
    let (paid_from, paid_to) = (
        of("b-paid", "completed_seen_at"),
        of("c-paid", "completed_seen_at"),
    );
    for (query, expected) in [
        ("reference=b".to_owned(), &["b"][..]),
        ("reference=d".to_owned(), &[]),
        (format!("from={from}"), &["c-paid", "c", "b-paid", "b"]),
        (format!("to={from}"), &["a-paid", "a"]),
        (format!("from={from}&to={to}"), &["b-paid", "b"]),
        (format!("from={to}&to={from}"), &[]),
        (format!("from={from}&status=created"), &["c", "b"]),
        (format!("completed_from={paid_from}"), &["c-paid", "b-paid"]),
        (format!("completed_to={paid_from}"), &["a-paid"]),
        (
            format!("completed_from={paid_from}&completed_to={paid_to}"),
            &["b-paid"],
        ),
        (format!("completed_from={paid_from}&from={to}"), &["c-paid"]),
        (format!("completed_from={paid_from}&status=created"), &[]),
        (format!("reference=b&from={to}"), &[]),
        (
            "completed_from=2020-01-01T00:00:00%2B01:00".to_owned(),
            &["c-paid", "b-paid", "a-paid"],
        ),
    ] {
        let filtered = list(&sidecar, &query).await;
        assert_eq!(references(&filtered), expected, "{query}");
        // Page by page it is the same.
        let (mut pages, mut after) = (Vec::new(), String::new());
        loop {
            let page = list(&sidecar, &format!("{query}&limit=1{after}")).await;
            pages.extend(references(&page).into_iter().map(str::to_owned));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            after = format!("&after={next}");
        }
        assert_eq!(pages, expected, "{query}, page by page");
    }
}

#[tokio::test]
async fn a_table_has_the_columns_of_the_list_and_no_formulas() {
    let sidecar = Sidecar::dev(&MANY);
    let formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "a,\"b\""];
    for reference in formulas {
        started(&sidecar, reference).await;
    }
    paid(&sidecar, "paid").await;
    let answer = table(&sidecar, "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("content-type").starts_with("text/csv"));
    let text = answer.body.clone();
    let lines: Vec<_> = text.split_terminator("\r\n").collect();
    assert_eq!(
        lines[0],
        "status,amount,merchant,created_at,completed_at,code,watch_code,reference,requested_amount,paid_twice_with,\
         started_at,completed_seen_at,last_polled_at"
    );
    let cells: Vec<Vec<_>> = lines[1..]
        .iter()
        .map(|line| line.split(',').collect())
        .collect();
    let json = list(&sidecar, "").await;
    let cell = |name: &str| match &json["payments"][0][name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let first: Vec<_> = lines[0].split(',').map(cell).collect();
    // But for the last one, which is as old as it is at this moment.
    assert_eq!(cells[0][..12], first[..12]);
    let references: Vec<_> = cells[1..].iter().map(|cells| cells[7]).collect();
    // The first has a comma and quotes of its own.
    assert!(lines[2].contains(r#","a,""b""","#), "{}", lines[2]);
    assert_eq!(references[1..], ["'@SUM(A1)", "'-1", "'+1", "'=1+1"]);

    let page = table(&sidecar, "limit=4&status=created").await;
    let next = page.header("link");
    let path = next
        .strip_prefix('<')
        .and_then(|link| link.strip_suffix(">; rel=\"next\""));
    let mut request = get(path.unwrap_or_else(|| panic!("no link: {page:?}")));
    request
        .headers_mut()
        .insert("accept", "text/csv".parse().unwrap());
    let last = sidecar.api(request).await;
    let text = last.body.clone();
    assert_eq!(text.split_terminator("\r\n").count(), 2, "{text}");
    assert!(
        text.contains("'=1+1") && !last.headers.contains_key("link"),
        "{last:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn over_max_bytes_what_is_completed_leaves_the_lists_first() {
    let settings = [
        MANY[0],
        MANY[1],
        ("store.max_bytes", "256KiB"),
        ("watch.poll_rate", "10000"),
    ];
    let sidecar = Sidecar::dev(&settings);
    let limit = sidecar.metric("tillgate_store_bytes_limit").await;
    assert_eq!(limit, 256 * 1024);
    let key = keys::start(&sidecar, "order-0", r#"{"amount": 1000, "reference": "0"}"#).await;
    sidecar.pay(key.text("code"));
    sidecar.watch(key.text("watch_code")).await;
    for n in 1..300 {
        paid(&sidecar, &n.to_string()).await;
        assert!(sidecar.metric("tillgate_store_bytes").await < limit + 4096);
    }
    let kept = list(&sidecar, "limit=1000").await;
    let kept_references = references(&kept);
    let count = kept_references.len();
    assert!((5..250).contains(&count), "{count} are kept");
    let newest: Vec<_> = (300 - count..300).rev().map(|n| n.to_string()).collect();
    assert_eq!(kept_references, newest);
    let gone = sidecar.api(get("/payments?reference=0")).await.json();
    assert_eq!(gone["payments"], json!([]));

    // The key of one that has gone has its answer, and its reference is paid.
    let again = keys::start(&sidecar, "order-0", r#"{"amount": 1000, "reference": "0"}"#).await;
    assert_eq!(again.text("code"), key.text("code"), "{again:?}");
    for n in [0, 1, 50, 299] {
        let paid = start(&sidecar, &n.to_string()).await;
        assert_eq!(
            (paid.status, paid.text("error")),
            (409, "reference_paid"),
            "{n}"
        );
        assert!(paid.json()["completed_at"].is_string(), "{paid:?}");
        assert_eq!(paid.json()["requested_amount"], 1000);
    }
    assert_eq!(sidecar.gateway_starts(), 300);
}

#[tokio::test(start_paused = true)]
async fn over_max_bytes_starts_are_refused_when_nothing_may_go() {
    let settings = [
        MANY[0],
        MANY[1],
        ("store.max_bytes", "64KiB"),
        ("watch.give_up_after", "1h"),
    ];
    let sidecar = Sidecar::dev(&settings);
    let mut open = Vec::new();
    let refused = loop {
        let answer = start(&sidecar, &open.len().to_string()).await;
        if answer.status != 200 {
            break answer;
        }
        open.push(answer.text("watch_code").to_owned());
        assert!(open.len() < 1000, "there is no end of room");
    };
    assert_eq!((refused.status, refused.text("error")), (503, "overloaded"));
    assert_eq!(refused.text("outcome"), "not_sent");
    assert!(refused.text("detail").contains("store.max_bytes"));
    assert_eq!(sidecar.gateway_starts(), open.len() as u64);
    // Nothing that is open has gone, and all else goes on.
    assert_eq!(
        references(&list(&sidecar, "limit=1000").await).len(),
        open.len()
    );
    assert_eq!(start(&sidecar, "0").await.text("watch_code"), open[0]);
    let watched = sidecar.watch(&open[0]).await;
    assert_eq!(watched.text("status"), "created");

    // Those that are paid make room, and so do those that are given up.
    let payments = list(&sidecar, "limit=1000").await;
    for payment in &payments["payments"].as_array().unwrap()[..5] {
        sidecar.pay(payment["code"].as_str().unwrap());
        let code = payment["watch_code"].as_str().unwrap();
        let watched = sidecar.watch(code).await;
        assert_eq!(watched.text("status"), "completed");
    }
    pass(2.0).await;
    started(&sidecar, "new").await;
    let last = (open.len() - 1).to_string();
    assert_eq!(start(&sidecar, &last).await.text("error"), "reference_paid");
    pass(3700.0).await;
    for n in 0..10 {
        started(&sidecar, &format!("newer-{n}")).await;
    }
}

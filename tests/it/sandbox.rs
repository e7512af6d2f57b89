//! The payment guide, step by step, over HTTP against `tillgate sandbox` alone.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use tillgate::sandbox::{DEFAULT_SECRET, Operation, Options, Sandbox};
use tokio::time::sleep;

use crate::harness::{
    Answer, Program, address_of, call, calls, get, get_at, post, set_faults, start_at, until,
};

async fn sandbox(arguments: &[&str]) -> (Program, String, SocketAddr) {
    let (program, url) = Program::sandbox(arguments).await;
    let address = address_of(&url);
    (program, url, address)
}

/// A start as the guide has it.
fn order(secret: &str, amount: u64) -> String {
    serde_json::json!({ "merchant_secret": secret, "amount": amount }).to_string()
}

/// A payment: its code and watch code.
async fn payment(sandbox: SocketAddr) -> (String, String) {
    let started = start_at(sandbox, &order(DEFAULT_SECRET, 1000)).await;
    assert_eq!(started.status, 200, "{started:?}");
    (
        started.text("code").to_owned(),
        started.text("watch_code").to_owned(),
    )
}

async fn watched(sandbox: SocketAddr, watch_code: &str) -> Value {
    let answer = get_at(sandbox, &format!("/watch/{watch_code}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// `YYYY-MM-DD HH:mm:ss`
fn is_time(value: &Value) -> bool {
    let shape: String = value
        .as_str()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00 00:00:00"
}

fn says(answer: &Answer, parts: &[&str]) {
    for part in parts {
        assert!(answer.body.contains(part), "no {part:?} in {}", answer.body);
    }
}

#[tokio::test]
async fn the_guide_holds_step_by_step() {
    let (_program, _, sandbox) = sandbox(&[]).await;

    // Step 0: the secret stands on the page for developers.
    let page = get_at(sandbox, "/dev/api").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    says(&page, &[DEFAULT_SECRET]);

    // Step 1: a start gives two codes.
    let started = start_at(sandbox, &order(DEFAULT_SECRET, 1000)).await;
    assert_eq!(
        (started.status, started.header("content-type")),
        (200, "application/json")
    );
    let fields: Vec<String> = started
        .json()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(fields, ["code", "message", "watch_code"]);
    assert_eq!(started.text("message"), "Payment started");
    let (code, watch_code) = (started.text("code"), started.text("watch_code"));
    assert_ne!(code, watch_code);

    // Step 3, before it is paid.
    let open = watched(sandbox, watch_code).await;
    assert_eq!(
        (&open["status"], &open["amount"], &open["completed_at"]),
        (&"created".into(), &1000.into(), &Value::Null)
    );
    assert!(
        is_time(&open["created_at"]) && open["merchant"].is_string(),
        "{open}"
    );
    assert_eq!(open.as_object().unwrap().len(), 5);

    // Step 2: the payer's page, with the way back in it, and the button.
    let path = format!("/pay/{code}?redirect=https%3A%2F%2Fshop.example%2Fthanks%3Forder%3D1");
    let page = get_at(sandbox, &path).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    says(
        &page,
        &[
            "1000",
            "<form",
            "method=\"post\"",
            "https://shop.example/thanks?order=1",
        ],
    );
    assert_eq!(
        watched(sandbox, watch_code).await["status"],
        "created",
        "looking is not paying"
    );
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = "redirect=https%3A%2F%2Fshop.example%2Fthanks%3Forder%3D1";
    let paid = call(sandbox, Method::POST, &format!("/pay/{code}"), &form, body).await;
    assert_eq!(
        (paid.status, paid.header("location")),
        (303, "https://shop.example/thanks?order=1")
    );

    // Step 3 again, and once more: it stays as it is.
    let done = watched(sandbox, watch_code).await;
    assert_eq!(done["status"], "completed");
    assert!(is_time(&done["completed_at"]), "{done}");
    let again = call(sandbox, Method::POST, &format!("/pay/{code}"), &form, "").await;
    assert_eq!(
        again.status, 200,
        "without a way back the payer stays: {again:?}"
    );
    assert_eq!(watched(sandbox, watch_code).await, done);

    // Step 4: the portal.
    let portal = get_at(sandbox, "/").await;
    assert_eq!(portal.status, 200);
    says(&portal, &[code, "1000", "completed"]);
    assert!(!portal.body.contains(DEFAULT_SECRET) && !portal.body.contains(watch_code));
}

#[tokio::test]
async fn a_wrong_secret_is_401_and_starts_nothing() {
    let (_program, _, sandbox) = sandbox(&["--secret", "another-secret"]).await;
    for secret in [
        DEFAULT_SECRET,
        "",
        "another-secre",
        "another-secret ",
        "Another-secret",
    ] {
        let answer = start_at(sandbox, &order(secret, 1000)).await;
        assert_eq!(answer.status, 401, "{secret:?}: {answer:?}");
        assert!(!answer.body.contains("another-secret"));
    }
    assert!(!get_at(sandbox, "/").await.body.contains("pay_"));
    assert_eq!(
        start_at(sandbox, &order("another-secret", 1000))
            .await
            .status,
        200
    );
    says(&get_at(sandbox, "/dev/api").await, &["another-secret"]);
}

#[tokio::test]
async fn bad_starts_are_refused() {
    let (_program, _, sandbox) = sandbox(&[]).await;
    let secret = DEFAULT_SECRET;
    for (body, statuses) in [
        (String::new(), [400, 400]),
        ("{".to_owned(), [400, 400]),
        ("[]".to_owned(), [400, 400]),
        (r#"{"amount":1000}"#.to_owned(), [400, 401]),
        (format!(r#"{{"merchant_secret":"{secret}"}}"#), [400, 422]),
        (
            format!(r#"{{"merchant_secret":"{secret}","amount":"1000"}}"#),
            [400, 422],
        ),
        (
            format!(r#"{{"merchant_secret":"{secret}","amount":0}}"#),
            [400, 422],
        ),
        (
            format!(r#"{{"merchant_secret":"{secret}","amount":-5}}"#),
            [400, 422],
        ),
        (
            format!(r#"{{"merchant_secret":"{secret}","amount":1000}}x"#),
            [400, 400],
        ),
    ] {
        let answer = start_at(sandbox, &body).await;
        assert!(statuses.contains(&answer.status), "{body}: {answer:?}");
        assert!(answer.json()["message"].is_string());
    }
    let huge = format!(
        r#"{{"merchant_secret":"{secret}","amount":1,"x":"{}"}}"#,
        "x".repeat(100_000)
    );
    assert_eq!(start_at(sandbox, &huge).await.status, 413);
    assert!(!get_at(sandbox, "/").await.body.contains("pay_"));
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_allowed_405() {
    let (_program, _, sandbox) = sandbox(&[]).await;
    for path in [
        "/watch/nobody",
        "/pay/nobody",
        "/nowhere",
        "/watch/",
        "/api/start_payment/",
        "/_sandbox",
        "/watch/a/b",
    ] {
        assert_eq!(get_at(sandbox, path).await.status, 404, "{path}");
    }
    let page = call(
        sandbox,
        Method::GET,
        "/pay/nobody",
        &[("accept", "text/html")],
        "",
    )
    .await;
    assert!(page.status == 404 && page.header("content-type").starts_with("text/html"));
    let (code, watch_code) = payment(sandbox).await;
    for (method, path, allow) in [
        (Method::GET, "/api/start_payment".to_owned(), "POST"),
        (Method::POST, format!("/watch/{watch_code}"), "GET"),
        (Method::POST, "/dev/api".to_owned(), "GET"),
        (Method::POST, "/".to_owned(), "GET"),
        (Method::DELETE, format!("/pay/{code}"), "GET"),
        (Method::PUT, "/_sandbox/faults".to_owned(), "POST"),
        (
            Method::GET,
            format!("/_sandbox/payments/{code}/complete"),
            "POST",
        ),
    ] {
        let answer = call(sandbox, method.clone(), &path, &[], "").await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(
            answer.header("allow").contains(allow),
            "{method} {path}: {}",
            answer.header("allow")
        );
    }
    assert_eq!(
        get_at(sandbox, &format!("/watch/{code}")).await.status,
        404,
        "a code is no watch code"
    );
    assert_eq!(
        get_at(sandbox, &format!("/pay/{watch_code}")).await.status,
        404
    );
    assert_eq!(watched(sandbox, &watch_code).await["status"], "created");
}

#[tokio::test]
async fn a_bad_way_back_is_shown_and_never_followed() {
    let (_program, _, sandbox) = sandbox(&[]).await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for redirect in [
        "javascript%3Aalert(1)",
        "%2F%2Fevil.example",
        "%2Fhere",
        "http%3A%5C%5Cevil.example",
        "data%3Ax",
        "https%3Aevil.example",
    ] {
        let (code, watch_code) = payment(sandbox).await;
        let page = get_at(sandbox, &format!("/pay/{code}?redirect={redirect}")).await;
        assert_eq!(page.status, 200);
        assert!(
            !page.body.contains("javascript:") && !page.body.contains("href=\"//"),
            "{redirect}"
        );
        let paid = call(
            sandbox,
            Method::POST,
            &format!("/pay/{code}"),
            &form,
            &format!("redirect={redirect}"),
        )
        .await;
        assert_eq!(
            (paid.status, paid.header("location")),
            (200, ""),
            "{redirect}"
        );
        assert_eq!(watched(sandbox, &watch_code).await["status"], "completed");
    }
    let (code, _) = payment(sandbox).await;
    let page = get_at(
        sandbox,
        &format!("/pay/{code}?redirect=https%3A%2F%2Fshop.example%2F%22%3E%3Cscript%3E"),
    )
    .await;
    assert!(!page.body.contains("<script>"), "{}", page.body);
}

#[tokio::test]
async fn what_shows_the_secret_pays_or_sets_faults_is_not_for_pages_elsewhere() {
    let (_program, _, loopback) = sandbox(&[]).await;
    let mut open = Program::start(&["sandbox", "--listen", ":0"], &[]);
    let line = open.stdout_line().await;
    let everywhere = address_of(line.strip_prefix("sandbox listening on ").unwrap());
    let form = ("content-type", "application/x-www-form-urlencoded");
    let foreign = [
        [("origin", "http://evil.example"), form],
        [("origin", "null"), form],
        [("origin", "http://localhost:1"), form],
        [("sec-fetch-site", "cross-site"), form],
        [("sec-fetch-site", "same-site"), form],
        [("host", "evil.example"), form],
    ];
    let own = [
        [form, form],
        [("sec-fetch-site", "same-origin"), form],
        [("sec-fetch-site", "none"), form],
        [("origin", "http://localhost"), form],
    ];
    let guarded = |code: &str| {
        [
            (Method::GET, "/dev/api".to_owned(), ""),
            (Method::POST, "/_sandbox/faults".to_owned(), "clear=all"),
            (Method::POST, format!("/pay/{code}"), ""),
            (
                Method::POST,
                format!("/_sandbox/payments/{code}/complete"),
                "",
            ),
        ]
    };
    for address in [loopback, everywhere] {
        let (code, watch_code) = payment(address).await;
        let ask = async |(method, path, body): (Method, String, &str), headers: &[(&str, &str)]| {
            call(
                address,
                method,
                &path,
                &headers[..1 + usize::from(body == "clear=all")],
                body,
            )
            .await
        };
        for headers in &foreign {
            // A name is a trick only where nobody else can come in.
            if headers[0].0 == "host" && address == everywhere {
                continue;
            }
            for request in guarded(&code) {
                let answer = ask(request.clone(), headers).await;
                assert_eq!(answer.status, 403, "{headers:?} {request:?}");
                assert!(!answer.body.contains(DEFAULT_SECRET));
            }
            // The payer comes from the shop's page, and its server has the secret.
            let headers = &headers[..1];
            let page = call(address, Method::GET, &format!("/pay/{code}"), headers, "").await;
            assert_eq!(page.status, 200, "{headers:?}");
        }
        assert_eq!(watched(address, &watch_code).await["status"], "created");
        for headers in &own {
            for request in guarded(&code) {
                let answer = ask(request.clone(), headers).await;
                assert!(answer.status < 400, "{headers:?} {request:?}: {answer:?}");
            }
        }
        assert_eq!(watched(address, &watch_code).await["status"], "completed");
    }
}

#[tokio::test]
async fn payments_are_completed_at_run_time() {
    let (_program, _, sandbox) = sandbox(&[]).await;
    let (code, watch_code) = payment(sandbox).await;
    let (_, other) = payment(sandbox).await;
    let path = format!("/_sandbox/payments/{code}/complete");
    let done = call(sandbox, Method::POST, &path, &[], "").await;
    assert_eq!((done.status, done.text("status")), (200, "completed"));
    assert_eq!(watched(sandbox, &watch_code).await, done.json());
    assert_eq!(watched(sandbox, &other).await["status"], "created");
    let again = call(sandbox, Method::POST, &path, &[], "").await;
    assert_eq!(again.json(), done.json(), "the first time stands");
    assert_eq!(
        call(
            sandbox,
            Method::POST,
            "/_sandbox/payments/nobody/complete",
            &[],
            ""
        )
        .await
        .status,
        404
    );
}

#[tokio::test]
async fn with_auto_complete_payments_are_paid_by_themselves() {
    let (_program, _, sandbox) = sandbox(&["--auto-complete", "300ms"]).await;
    let (_, watch_code) = payment(sandbox).await;
    let done = until("a paid payment", async || {
        let now = watched(sandbox, &watch_code).await;
        (now["status"] == "completed").then_some(now)
    })
    .await;
    assert!(is_time(&done["completed_at"]), "{done}");
    let (_program, _, slow) = self::sandbox(&["--auto-complete", "1h"]).await;
    let (_, watch_code) = payment(slow).await;
    assert_eq!(watched(slow, &watch_code).await["status"], "created");
}

#[tokio::test]
async fn faults_are_given_at_the_start_and_replaced_at_run_time() {
    let (_program, url, sandbox) = sandbox(&[
        "--fault",
        "start:status=503,retry-after=2",
        "--fault",
        "watch:status=500",
    ])
    .await;
    let start = order(DEFAULT_SECRET, 1000);
    let busy = start_at(sandbox, &start).await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, "2"));
    assert_eq!(get_at(sandbox, "/watch/x").await.status, 500);
    let listed = get_at(sandbox, "/_sandbox/faults").await.json();
    assert_eq!(
        listed["faults"],
        serde_json::json!(["start:status=503,retry-after=2", "watch:status=500"])
    );

    set_faults(&url, &["start:status=418,count=1"]).await;
    assert_eq!(
        get_at(sandbox, "/watch/x").await.status,
        404,
        "the old ones are gone"
    );
    assert_eq!(start_at(sandbox, &start).await.status, 418);
    assert_eq!(
        start_at(sandbox, &start).await.status,
        200,
        "its count is used up"
    );
    assert_eq!(
        get_at(sandbox, "/_sandbox/faults").await.json()["faults"],
        serde_json::json!([])
    );

    // A person sees a page, and one click changes one fault.
    let page = call(
        sandbox,
        Method::GET,
        "/_sandbox/faults",
        &[("accept", "text/html,*/*")],
        "",
    )
    .await;
    assert!(
        page.header("content-type").starts_with("text/html")
            && page.body.contains("<form method=\"post\"")
    );
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let change =
        async |body: &str| call(sandbox, Method::POST, "/_sandbox/faults", &form, body).await;
    for body in [
        "add=start%3Areset",
        "add=watch%3Ahang",
        "add=start%3Areset",
        "remove=start%3Areset",
        "remove=gone",
    ] {
        let changed = change(body).await;
        assert_eq!(
            (changed.status, changed.header("location")),
            (303, "/_sandbox/faults"),
            "{body}"
        );
    }
    let listed = async || get_at(sandbox, "/_sandbox/faults").await.json()["faults"].take();
    assert_eq!(listed().await, json!(["watch:hang", "start:reset"]));
    let bad = change("add=start%3Aexplode").await;
    assert!(
        bad.status == 400 && bad.body.contains("start knows no fault `explode`"),
        "{bad:?}"
    );
    // As curl sends what a program means.
    assert_eq!(
        change(r#"{"faults":["watch:status=500"]}"#).await.json()["faults"],
        json!(["watch:status=500"])
    );
    assert_eq!(change("clear=all").await.status, 303);
    assert_eq!(listed().await, json!([]));

    // One bad one refuses all, and says what there is.
    set_faults(&url, &["watch:status=500"]).await;
    for body in [
        r#"{"faults":["start:reset","start:explode"]}"#,
        r#"{"faults":"start:reset"}"#,
        "[]",
        "",
        r#"{"faults":[1]}"#,
    ] {
        let answer = call(sandbox, Method::POST, "/_sandbox/faults", &[], body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    assert_eq!(get_at(sandbox, "/watch/x").await.status, 500);
    assert_eq!(start_at(sandbox, &start).await.status, 200);
    assert_eq!(calls(&url).await, (4, 3));
}

#[tokio::test]
async fn each_fault_does_on_the_wire_what_its_name_says() {
    let (_program, url, sandbox) = sandbox(&[]).await;
    let start = order(DEFAULT_SECRET, 1000);
    let request = format!(
        "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{start}",
        start.len()
    );
    let raw = async |fault: &str| {
        set_faults(&url, &[fault]).await;
        let mut stream = tokio::net::TcpStream::connect(sandbox).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .unwrap();
        let mut bytes = Vec::new();
        let end = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await;
        (String::from_utf8_lossy(&bytes).into_owned(), end)
    };
    let (said, end) = raw("start:reset").await;
    assert!(said.is_empty() && end.is_err(), "{said:?} {end:?}");
    let (said, _) = raw("start:truncate").await;
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200") && body.len() < length,
        "{said}"
    );
    for (fault, status, parts) in [
        ("start:redirect", 307, &["location: "][..]),
        ("start:echo-secret", 200, &[DEFAULT_SECRET, "\"code\""]),
        ("start:not-json", 200, &["<!doctype html>"]),
        ("start:encoded", 200, &["content-encoding: gzip"]),
        ("start:delay=10ms", 200, &["\"watch_code\""]),
        ("start:bad-code", 200, &["pay/ment"]),
        ("start:huge", 200, &["padding"]),
    ] {
        let (said, end) = raw(fault).await;
        assert!(
            end.is_ok() && said.starts_with(&format!("HTTP/1.1 {status}")),
            "{fault}: {said:.300}"
        );
        assert!(
            parts.iter().all(|part| said.contains(part)),
            "{fault}: {said:.300}"
        );
        assert_eq!(fault == "start:huge", said.len() > 1 << 20, "{fault}");
    }
    let (said, _) = raw("start:missing-field").await;
    assert!(
        said.starts_with("HTTP/1.1 200") && !said.contains("watch_code"),
        "{said}"
    );

    set_faults(&url, &[]).await;
    let (code, watch_code) = payment(sandbox).await;
    assert_eq!(
        call(
            sandbox,
            Method::POST,
            &format!("/_sandbox/payments/{code}/complete"),
            &[],
            ""
        )
        .await
        .status,
        200
    );
    for (fault, name, value) in [
        ("watch:reopen", "status", Value::from("created")),
        ("watch:unknown-status", "status", "on_hold".into()),
        ("watch:wrong-amount", "amount", 1001.into()),
        ("watch:missing-field", "status", Value::Null),
        ("start:reset", "status", "completed".into()),
    ] {
        set_faults(&url, &[fault]).await;
        assert_eq!(watched(sandbox, &watch_code).await[name], value, "{fault}");
    }
}

#[tokio::test]
async fn a_fault_of_a_start_that_took_effect_leaves_a_payment_behind() {
    let (_program, url, sandbox) = sandbox(&[]).await;
    let count = async || {
        get_at(sandbox, "/")
            .await
            .body
            .matches("Open pay page")
            .count()
    };
    for (fault, left) in [
        ("start:truncate", 1),
        ("start:missing-field", 2),
        ("start:status=500", 2),
        ("start:not-json", 2),
    ] {
        set_faults(&url, &[fault]).await;
        let body = order(DEFAULT_SECRET, 1000);
        let mut stream = tokio::net::TcpStream::connect(sandbox).await.unwrap();
        let request = format!(
            "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .unwrap();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
        assert_eq!(count().await, left, "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_tells_the_most_calls_that_came_in_any_one_second() {
    let sandbox = Sandbox::new(Options::default());
    let told = async || {
        let answer = sandbox.answer(get("/_sandbox/calls")).await.unwrap();
        serde_json::from_slice::<Value>(&answer.into_body().collect().await.unwrap().to_bytes())
            .unwrap()
    };
    let watches = async |count: u64| {
        for _ in 0..count {
            let answer = sandbox.answer(get("/watch/nobody")).await.unwrap();
            assert_eq!(answer.status(), 404);
        }
    };
    let after = async |millis| sleep(Duration::from_millis(millis)).await;
    assert_eq!(
        told().await,
        json!({ "start": 0, "watch": 0, "busiest_second": { "start": 0, "watch": 0 } })
    );

    // The second is no second of the clock: 2 + 3 within 800 ms, whenever they come, and never 3 + 4.
    watches(2).await;
    assert_eq!(sandbox.busiest_second(Operation::Watch), 2);
    after(800).await;
    watches(3).await;
    assert_eq!(sandbox.busiest_second(Operation::Watch), 5);
    after(1000).await;
    watches(4).await;
    assert_eq!(sandbox.busiest_second(Operation::Watch), 5);
    after(999).await;
    watches(2).await;
    assert_eq!(sandbox.busiest_second(Operation::Watch), 6);

    // Starts are counted by themselves, and a fault counts too: also those that a fault ends came.
    sandbox.set_faults(vec![
        "start:reset".parse().unwrap(),
        "watch:status=500".parse().unwrap(),
    ]);
    assert!(
        sandbox
            .answer(post("/api/start_payment", order(DEFAULT_SECRET, 1000)))
            .await
            .is_err()
    );
    assert_eq!(
        sandbox.answer(get("/watch/nobody")).await.unwrap().status(),
        500
    );
    assert_eq!(
        told().await,
        json!({ "start": 1, "watch": 12, "busiest_second": { "start": 1, "watch": 7 } })
    );
    // What was once does not go away.
    sandbox.set_faults(Vec::new());
    after(3_600_000).await;
    watches(1).await;
    assert_eq!(
        told().await["busiest_second"],
        json!({ "start": 1, "watch": 7 })
    );
}

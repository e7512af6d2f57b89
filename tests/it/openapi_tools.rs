//! What others make of `/openapi.json`: clients in two languages, and schemathesis, which tries to prove it wrong.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tokio::process::Command;

use crate::clients::file;
use crate::harness::{
    Program, call, free_port, has, metric_at, pay_at, run as run_tillgate, skip, until,
};

/// Longer than any of these tools takes while the machine is busy.
const PATIENCE: Duration = Duration::from_secs(400);

/// Runs it to its end: exit code, and what it said.
async fn run(
    program: impl AsRef<std::ffi::OsStr>,
    arguments: &[&str],
    directory: &Path,
    api: SocketAddr,
) -> (i32, String) {
    let output = Command::new(program)
        .args(arguments)
        .env("TILLGATE_URL", format!("http://{api}"))
        .env("PYTHONPATH", directory)
        .env("no_proxy", "127.0.0.1")
        .current_dir(directory)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .expect("an end in time")
        .expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().expect("an exit code"),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Whether Python has this module; if not, the test says so.
fn has_module(module: &str) -> bool {
    let found = || {
        let probe = std::process::Command::new("python3")
            .args(["-c", &format!("import {module}")])
            .output();
        probe.is_ok_and(|output| output.status.success())
    };
    has("python3") && (found() || skip(&format!("Python has no {module}")))
}

/// A sandbox, whose payers pay soon, and a sidecar before it: its URL, and the address of its API.
async fn sidecar() -> (Program, String, Program, SocketAddr) {
    let (sandbox, gateway) = Program::sandbox(&["--auto-complete", "1s"]).await;
    let allowed = ("redirect.allowed", r#"["https://shop.example"]"#);
    let (sidecar, api, _) =
        Program::sidecar(&gateway, &[allowed, ("start.max_amount", "1000")]).await;
    (sandbox, gateway, sidecar, api)
}

/// What the clients say when all went well.
fn assert_paid(gateway: &str, (code, said): (i32, String)) {
    let lines: Vec<_> = said.lines().collect();
    let [pay, "paid"] = lines[..] else {
        panic!("{code}: {said}")
    };
    assert_eq!(code, 0, "{said}");
    assert!(pay.starts_with(&format!("pay: {gateway}/pay/")), "{said}");
    assert!(
        pay.ends_with("?redirect=https%3A%2F%2Fshop.example%2Fthanks"),
        "{said}"
    );
}

#[tokio::test]
async fn a_python_client_that_was_generated_starts_and_watches() {
    if !has_module("openapi_python_client") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_sandbox, gateway, _sidecar, api) = sidecar().await;
    // Formatting it is left out: it needs a program in the path.
    std::fs::write(directory.path().join("config.yml"), "post_hooks: []\n").unwrap();
    let url = format!("http://{api}/openapi.json");
    let generate = [
        "-m",
        "openapi_python_client",
        "generate",
        "--url",
        &url,
        "--meta",
        "none",
    ];
    let generate = [
        &generate[..],
        &["--output-path", "tillgate_client", "--config", "config.yml"],
    ]
    .concat();
    let (code, said) = run("python3", &generate, directory.path(), api).await;
    // It warns of what it cannot express, and leaves that out.
    assert!(
        code == 0 && !said.to_lowercase().contains("warning"),
        "{code}: {said}"
    );
    let client = file("tests/clients/generated.py");
    assert_paid(
        &gateway,
        run(
            "python3",
            &[client.to_str().unwrap()],
            directory.path(),
            api,
        )
        .await,
    );
    // The same client where the order is too large: the problem has its own type.
    let text = std::fs::read_to_string(&client)
        .unwrap()
        .replace("amount=1000", "amount=1001");
    std::fs::write(
        directory.path().join("too_much.py"),
        text.replace("order-7", "order-8"),
    )
    .unwrap();
    let (code, said) = run("python3", &["too_much.py"], directory.path(), api).await;
    assert!(
        code == 1 && said.starts_with("invalid_amount: amount is 1001: it must be"),
        "{code}: {said}"
    );
}

#[tokio::test]
async fn a_typescript_client_that_was_generated_starts_and_watches() {
    let modules = file("tests/clients/node_modules");
    if !has("node")
        || !(modules.join(".bin/openapi-typescript").exists() || skip("no npm ci in tests/clients"))
    {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&modules, directory.path().join("node_modules")).unwrap();
    let (_sandbox, gateway, _sidecar, api) = sidecar().await;
    let url = format!("http://{api}/openapi.json");
    let generate = [&*url, "-o", "tillgate.d.ts"];
    let (code, said) = run(
        modules.join(".bin/openapi-typescript"),
        &generate,
        directory.path(),
        api,
    )
    .await;
    assert_eq!(code, 0, "{said}");
    let text = std::fs::read_to_string(file("tests/clients/generated.mts")).unwrap();
    let wrong = text
        .replace("amount: 1000", "amount: \"1000\"")
        .replace("order-7", "order-8");
    std::fs::write(directory.path().join("generated.mts"), text).unwrap();
    std::fs::write(directory.path().join("wrong.mts"), wrong).unwrap();
    let project = r#"{"compilerOptions": {"strict": true, "target": "es2022", "module": "nodenext", "lib": ["es2022", "dom"],
        "types": []}, "files": ["generated.mts", "wrong.mts"]}"#;
    std::fs::write(directory.path().join("tsconfig.json"), project).unwrap();
    let (_, said) = run(modules.join(".bin/tsc"), &[], directory.path(), api).await;
    // The types know what a start is: the one fault is that of the wrong one.
    let faults: Vec<_> = said
        .lines()
        .filter(|line| line.contains("error TS"))
        .collect();
    assert!(
        matches!(faults[..], [fault] if fault.starts_with("wrong.mts(")),
        "{said}"
    );
    assert_paid(
        &gateway,
        run("node", &["generated.mjs"], directory.path(), api).await,
    );
}

/// The document as schemathesis reads streams: the schema of one is that of each event in it.
fn with_schemas_of_events(mut document: Value) -> Value {
    for (path, stream) in [
        ("/watch/{watch_code}", "PaymentStream"),
        ("/events", "EventStream"),
    ] {
        let event = document["components"]["schemas"][stream]["contentSchema"]["items"].take();
        let content = &mut document["paths"][path]["get"]["responses"]["200"]["content"];
        content["text/event-stream"]["schema"] = event;
    }
    document
}

#[tokio::test]
async fn schemathesis_finds_no_fault_in_a_thousand_examples() {
    if !has_module("schemathesis") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let tokens = directory.path().join("tokens");
    std::fs::write(&tokens, "a-token\n").unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, run_tillgate(&["webhook-secret"], &[]).await.1).unwrap();
    let nobody = format!("http://127.0.0.1:{}/", free_port());
    // A token and an app that is never there, so that there is something on the lists; and no waiting, neither for a
    // turn nor for a change.
    let settings = [
        ("listen.token_file", tokens.to_str().unwrap()),
        ("start.rate", "1000"),
        ("start.burst", "1000"),
        ("watch.max_wait", "1ms"),
        ("watch.poll_rate", "1000"),
        ("redirect.allowed", r#"["https://shop.example"]"#),
        ("webhook.url", &nobody),
        ("webhook.secret_file", keys.to_str().unwrap()),
    ];
    let (_sidecar, api, admin) = Program::sidecar(&gateway, &settings).await;
    // One that is paid, so that something is owed to the app, and one that stays open: a stream has something to tell
    // at once, where schemathesis would wait for it for ever.
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer a-token"),
    ];
    for is_paid in [true, false] {
        let started = call(
            api,
            Method::POST,
            "/api/start_payment",
            &headers,
            r#"{"amount": 1000}"#,
        )
        .await;
        assert_eq!(started.status, 200, "{started:?}");
        if is_paid {
            pay_at(&gateway, started.text("code")).await;
        }
    }
    until("something is owed", async || {
        let listed = call(api, Method::GET, "/deliveries", &headers[1..], "").await;
        listed.body.contains("payment.completed").then_some(())
    })
    .await;
    let served = call(api, Method::GET, "/openapi.json", &headers[1..], "").await;
    let document = directory.path().join("openapi.json");
    std::fs::write(&document, with_schemas_of_events(served.json()).to_string()).unwrap();
    let (config, url) = (
        file("tests/clients/schemathesis.toml"),
        format!("http://{api}"),
    );
    // Always the same examples: a change of ours that breaks one breaks it everywhere.
    let run_it = [
        "-m",
        "schemathesis.cli",
        "--config-file",
        config.to_str().unwrap(),
        "run",
        document.to_str().unwrap(),
        "--url",
        &url,
        "--seed",
        "1",
    ];
    let (code, said) = run("python3", &run_it, directory.path(), api).await;
    assert_eq!(code, 0, "{said}");
    let examples = said.lines().find_map(|line| {
        line.trim()
            .split_once(" generated, ")?
            .0
            .parse::<u64>()
            .ok()
    });
    assert!(examples.is_some_and(|examples| examples >= 1000), "{said}");
    // It has got through to the payments, and has been refused.
    for name in [
        r#"tillgate_starts_total{outcome="accepted"}"#,
        r#"tillgate_refused_total{error="invalid_amount"}"#,
    ] {
        assert!(metric_at(admin, name).await > 0, "{name}");
    }
}

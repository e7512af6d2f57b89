//! What others make of `/openapi.json`: clients of three generators in two languages, what linters find in it, and
//! schemathesis, which tries to prove it wrong.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tokio::process::Command;

use crate::clients::file;
use crate::described::DOCUMENT;
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
        .env("REDOCLY_TELEMETRY", "off")
        .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true")
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

/// Where the packages of npm are that the clients need, if all of these are there; if not, the test says so.
fn node_modules(programs: &[&str]) -> Option<PathBuf> {
    let modules = file("tests/clients/node_modules");
    let found = programs
        .iter()
        .all(|program| modules.join(".bin").join(program).exists());
    (has("node") && (found || skip("no npm ci in tests/clients"))).then_some(modules)
}

/// Compiles these for Node. There, `directory` is a package of its own.
async fn tsc(modules: &Path, directory: &Path, files: &str, api: SocketAddr) -> (i32, String) {
    std::os::unix::fs::symlink(modules, directory.join("node_modules")).unwrap();
    let project = format!(
        r#"{{"compilerOptions": {{"strict": true, "target": "es2022", "module": "nodenext", "lib": ["es2022", "dom"],
        "types": []}}, "files": {files}}}"#
    );
    std::fs::write(directory.join("tsconfig.json"), project).unwrap();
    std::fs::write(directory.join("package.json"), r#"{"type": "module"}"#).unwrap();
    run(modules.join(".bin/tsc"), &[], directory, api).await
}

/// Has openapi-generator make a client, without its pages and tests.
async fn openapi_generator(directory: &Path, api: SocketAddr, arguments: &[&str]) {
    let program =
        "import sys, openapi_generator_cli as it; sys.exit(it.run(sys.argv[1:]).returncode)";
    let parts =
        "apis,models,supportingFiles,apiDocs=false,modelDocs=false,apiTests=false,modelTests=false";
    let url = format!("http://{api}/openapi.json");
    let generate = ["-c", program, "generate", "-i", &url];
    let generate = [&generate[..], &["--global-property", parts], arguments].concat();
    let (code, said) = run("python3", &generate, directory, api).await;
    assert!(code == 0 && !said.contains("ERROR"), "{code}: {said}");
}

/// Whether openapi-generator can be run; if not, the test says so.
fn has_openapi_generator() -> bool {
    has("java") && has_module("openapi_generator_cli")
}

/// The names of what was generated there, without the index of them.
fn generated(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_lowercase())
        .map(|name| name.replace('_', ""))
        .filter(|name| !["", "init", "index", "pycache"].contains(&&**name))
        .collect();
    names.sort();
    names
}

/// The names of the schemas that are more than a text.
fn schemas() -> Vec<String> {
    let schemas = DOCUMENT.value["components"]["schemas"].as_object().unwrap();
    let mut names: Vec<_> = schemas
        .iter()
        .filter(|(_, schema)| schema["type"] != "string" || schema.get("enum").is_some())
        .map(|(name, _)| name.to_lowercase())
        .collect();
    names.sort();
    names
}

/// The text of one of `tests/clients`, for another order with a page to return to that is not allowed.
fn not_allowed(name: &str) -> String {
    let text = std::fs::read_to_string(file("tests/clients").join(name)).unwrap();
    text.replace("https://shop.example", "https://elsewhere.example")
        .replace("order-7", "order-8")
}

/// What the clients say when the start is refused.
fn assert_not_allowed((code, said): (i32, String)) {
    assert!(
        code == 1
            && said.starts_with(
                r#"redirect_not_allowed: redirect is "https://elsewhere.example/thanks": it is not allowed: add its"#
            ),
        "{code}: {said}"
    );
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
    let Some(modules) = node_modules(&["openapi-typescript", "tsc"]) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
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
    let files = r#"["generated.mts", "wrong.mts"]"#;
    let (_, said) = tsc(&modules, directory.path(), files, api).await;
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

#[tokio::test]
async fn openapi_generator_makes_a_python_client_that_reads_errors() {
    if !has_openapi_generator() || !has_module("dateutil, pydantic, urllib3") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (_sandbox, gateway, _sidecar, api) = sidecar().await;
    let python = [
        "-g",
        "python",
        "--package-name",
        "tillgate_client",
        "-o",
        ".",
    ];
    openapi_generator(directory, api, &python).await;
    assert_eq!(
        generated(&directory.join("tillgate_client/models")),
        schemas()
    );
    let client = file("tests/clients/openapi_generator.py");
    let paid = run("python3", &[client.to_str().unwrap()], directory, api).await;
    assert_paid(&gateway, paid);
    std::fs::write(
        directory.join("refused.py"),
        not_allowed("openapi_generator.py"),
    )
    .unwrap();
    assert_not_allowed(run("python3", &["refused.py"], directory, api).await);
    // A later version may have another word, and a field more.
    let later = r#"
import sys
from tillgate_client import StartProblem
print(StartProblem.from_json(sys.argv[1]).error)
"#;
    let responses = &DOCUMENT.value["paths"]["/api/start_payment"]["post"]["responses"];
    let mut problem = responses["422"]["content"]["application/problem+json"]["example"].clone();
    problem["error"] = "of_version_2".into();
    problem["more"] = 1.into();
    let (code, said) = run(
        "python3",
        &["-c", later, &problem.to_string()],
        directory,
        api,
    )
    .await;
    assert_eq!((code, &*said), (0, "of_version_2\n"));
}

#[tokio::test]
async fn openapi_generator_makes_a_typescript_client_that_reads_errors() {
    let Some(modules) = node_modules(&["tsc"]).filter(|_| has_openapi_generator()) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (_sandbox, gateway, _sidecar, api) = sidecar().await;
    let typescript = ["-g", "typescript-fetch", "-o", "tillgate"];
    let typescript = [
        &typescript[..],
        &["--additional-properties", "importFileExtension=.js"],
    ];
    openapi_generator(directory, api, &typescript.concat()).await;
    assert_eq!(generated(&directory.join("tillgate/models")), schemas());
    let client = std::fs::read(file("tests/clients/openapi_generator.mts")).unwrap();
    std::fs::write(directory.join("client.mts"), client).unwrap();
    std::fs::write(
        directory.join("refused.mts"),
        not_allowed("openapi_generator.mts"),
    )
    .unwrap();
    let files = r#"["client.mts", "refused.mts"]"#;
    let (code, said) = tsc(&modules, directory, files, api).await;
    assert_eq!(code, 0, "{said}");
    assert_paid(&gateway, run("node", &["client.mjs"], directory, api).await);
    assert_not_allowed(run("node", &["refused.mjs"], directory, api).await);
}

#[tokio::test]
async fn linters_find_nothing() {
    let Some(modules) = node_modules(&["redocly", "spectral"]) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (_sandbox, _, _sidecar, api) = sidecar().await;
    let served = call(api, Method::GET, "/openapi.json", &[], "").await.body;
    // Its example is a fault, to see that they look at it.
    let wrong = served.replace(r#""value":{"amount":1000}"#, r#""value":{"amount":"1000"}"#);
    assert_ne!(wrong, served);
    std::fs::write(directory.path().join("served.json"), served).unwrap();
    std::fs::write(directory.path().join("wrong.json"), wrong).unwrap();
    let (redocly, spectral) = (
        file("tests/clients/redocly.yaml"),
        file("tests/clients/spectral.yaml"),
    );
    let linters = [
        (
            "redocly",
            ["lint", "--config", redocly.to_str().unwrap()],
            &[][..],
        ),
        (
            "spectral",
            ["lint", "--ruleset", spectral.to_str().unwrap()],
            &["--fail-severity", "hint"],
        ),
    ];
    for (name, arguments, more) in linters {
        let linter = modules.join(".bin").join(name);
        for (document, finds) in [("served.json", 0), ("wrong.json", 1)] {
            let arguments = [&arguments[..], more, &[document]].concat();
            let (code, said) = run(&linter, &arguments, directory.path(), api).await;
            assert_eq!(code, finds, "{said}");
            assert_eq!(said.contains("type must be integer"), finds == 1, "{said}");
        }
    }
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
    std::fs::write(&keys, run_tillgate(&["webhook", "secret"], &[]).await.1).unwrap();
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

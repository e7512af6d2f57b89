//! The secret never comes out of the running program: a search through everything that it says and keeps, whatever goes
//! wrong, at the level of the log that says most. (`secret.rs` asks the same of the answers alone, without a socket.)

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hyper::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_util::task::AbortOnDropHandle;

use crate::canary::Canary;
use crate::harness::{
    Answer, ORDER, address_of, call, get_at, pay_at, run, set_faults, until, variables_of,
};
use crate::memory::{WITH_CORES, memory_of, seen_in};
use crate::receiver::{Mood, Receiver};

const TOKEN: &str = "a-token-of-this-test-only";

/// A sidecar whose log goes to a file, so that nobody has to read along.
struct Logged {
    child: Child,
    log: PathBuf,
}

impl Logged {
    fn start(directory: &Path, settings: &[(&str, &str)]) -> Self {
        let log = directory.join("log");
        let child = Command::new(WITH_CORES[0])
            .args(&WITH_CORES[1..])
            .args([env!("CARGO_BIN_EXE_tillgate"), "run"])
            .env_clear()
            .envs(variables_of(settings))
            .current_dir(directory)
            .stdout(fs::File::create(directory.join("out")).unwrap())
            .stderr(fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.log)
            .unwrap()
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    }

    async fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let line: Value = until("a running sidecar", async || {
            let line = self
                .lines()
                .into_iter()
                .find(|line| line.contains("tillgate is running"));
            line.map(|line| serde_json::from_str(&line).unwrap())
        })
        .await;
        let address = |name: &str| line[name].as_str().unwrap().parse::<SocketAddr>().unwrap();
        (address("listen"), address("admin"))
    }

    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .await
                .unwrap()
                .success()
        );
    }

    /// Waits for a further line with this in it while something is done.
    async fn says(&self, part: &str, act: impl AsyncFnOnce()) {
        let count = || {
            self.lines()
                .iter()
                .filter(|line| line.contains(part))
                .count()
        };
        let before = count();
        act().await;
        until(part, async || (count() > before).then_some(())).await;
    }
}

/// Everything that was said or kept: where, and what.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    fn add(&mut self, place: impl Into<String>, bytes: impl AsRef<[u8]>) {
        self.0.push((place.into(), bytes.as_ref().to_vec()));
    }

    fn answer(&mut self, place: impl Into<String>, answer: &Answer) {
        self.add(place, format!("{:?}\n{}", answer.headers, answer.body));
    }

    /// What `/proc` tells everybody, or this user.
    fn process(&mut self, id: u32) {
        for file in ["cmdline", "environ", "comm"] {
            self.add(
                file,
                fs::read(format!("/proc/{id}/{file}")).unwrap_or_default(),
            );
        }
    }

    /// Every file below this directory, but this one.
    fn files(&mut self, directory: &Path, but: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.files(&path, but);
            } else if path != but {
                self.add(
                    format!("file {}", path.file_name().unwrap().to_str().unwrap()),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }

    /// The places in which it stands.
    fn told(&self, canary: &Canary) -> Vec<String> {
        let told = self.0.iter().filter_map(|(place, bytes)| {
            let first = canary.sightings(bytes).into_iter().next()?;
            let around =
                &bytes[first.at.saturating_sub(80)..bytes.len().min(first.at + first.length + 80)];
            Some(format!(
                "{place}: {first:?}: {}",
                String::from_utf8_lossy(around)
            ))
        });
        told.collect()
    }
}

/// Every fault that the sandbox knows for this call, as it says itself.
async fn corpus(gateway: &str, operation: &str) -> Vec<String> {
    let body = format!(r#"{{"faults":["{operation}:no-such-kind"]}}"#);
    let refusal = call(
        address_of(gateway),
        Method::POST,
        "/_sandbox/faults",
        &[],
        &body,
    )
    .await
    .body;
    let (_, known) = refusal
        .split_once("it knows ")
        .unwrap_or_else(|| panic!("{refusal}"));
    let words = known
        .split(';')
        .next()
        .unwrap()
        .split(", ")
        .filter(|word| !word.contains('='));
    let mut faults: Vec<_> = words.map(ToOwned::to_owned).collect();
    assert!(faults.len() > 8, "{refusal}");
    faults.extend(
        [200, 201, 204, 302, 400, 401, 403, 404, 422, 500, 502]
            .map(|status| format!("status={status}")),
    );
    faults.extend(
        [
            "status=429,retry-after=1",
            "status=503,retry-after=1",
            "delay=10ms",
        ]
        .map(ToOwned::to_owned),
    );
    faults
        .into_iter()
        .map(|fault| format!("{operation}:{fault}"))
        .collect()
}

/// Reads a stream of events for as long as this is held.
async fn listen(api: SocketAddr, path: &str) -> (Arc<Mutex<Vec<u8>>>, AbortOnDropHandle<()>) {
    let mut stream = TcpStream::connect(api).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nAccept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let read = Arc::new(Mutex::new(Vec::new()));
    let kept = read.clone();
    let task = tokio::spawn(async move {
        let mut bytes = Vec::new();
        while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {
            kept.lock().unwrap().append(&mut bytes);
        }
    });
    (read, AbortOnDropHandle::new(task))
}

async fn ask(
    api: SocketAddr,
    method: Method,
    path: &str,
    more: &[(&str, &str)],
    body: &str,
) -> Answer {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [
        &[
            ("authorization", &*bearer),
            ("content-type", "application/json"),
        ],
        more,
    ]
    .concat();
    call(api, method, path, &headers, body).await
}

async fn start(api: SocketAddr, more: &[(&str, &str)], body: &str) -> Answer {
    ask(api, Method::POST, "/api/start_payment", more, body).await
}

#[tokio::test]
async fn the_secret_is_in_nothing_that_it_says_or_keeps_whatever_goes_wrong() {
    let canary = Canary::new();
    let secret = canary.secret.as_str();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let file = directory.path().join("secret");
    fs::write(&file, secret).unwrap();
    fs::write(path("token"), TOKEN).unwrap();
    fs::write(path("keys"), run(&["webhook", "secret"], &[]).await.1).unwrap();
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_tillgate"))
        .args(["sandbox", "--listen", "127.0.0.1:0", "--secret", secret])
        .env("CANARY", secret)
        .env("TILLGATE_DEBUGGABLE", "1")
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = [0; 64];
    let n = sandbox
        .stdout
        .as_mut()
        .unwrap()
        .read(&mut line)
        .await
        .unwrap();
    let gateway = std::str::from_utf8(&line[..n])
        .unwrap()
        .trim()
        .rsplit(' ')
        .next()
        .unwrap()
        .to_owned();
    let receiver = Receiver::new(|before| {
        if before == 0 {
            Mood::Refuse
        } else {
            Mood::Take
        }
    })
    .await;
    let (hook, store) = (receiver.url(), format!("file:{}", path("store")));
    let (tokens, keys) = (path("token"), path("keys"));
    let variables = [
        ("gateway.url", gateway.as_str()),
        ("gateway.timeout", "700ms"),
        ("gateway.connect_timeout", "700ms"),
        ("merchant.secret_file", file.to_str().unwrap()),
        ("listen.address", "127.0.0.1:0"),
        ("listen.token_file", &tokens),
        ("admin.address", "127.0.0.1:0"),
        ("start.rate", "1000"),
        ("start.burst", "1000"),
        ("start.forward_fields", r#"["note"]"#),
        ("watch.poll_rate", "1000"),
        ("watch.fresh_for", "1ms"),
        ("watch.stale_for", "1ms"),
        ("webhook.url", &hook),
        ("webhook.secret_file", &keys),
        ("store.url", &store),
        ("log.level", "trace"),
        ("log.format", "json"),
        ("RUST_LOG", "trace"),
        ("RUST_BACKTRACE", "full"),
    ];
    let mut sidecar = Logged::start(directory.path(), &variables);
    let (api, admin) = sidecar.addresses().await;
    let mut seen = Seen::default();
    let (events, _listening) = listen(api, "/events").await;

    // Everything that goes wrong at the gateway, for both calls, with a payment that is paid meanwhile.
    let faults = [
        corpus(&gateway, "start").await,
        corpus(&gateway, "watch").await,
    ]
    .concat();
    let note = serde_json::json!({"amount": 1000, "note": format!("of {secret}")}).to_string();
    for (i, fault) in faults.iter().enumerate() {
        set_faults(&gateway, &[]).await;
        let started = start(api, &[], ORDER).await;
        assert_eq!(started.status, 200, "{started:?}");
        let (code, watch) = (
            started.text("code").to_owned(),
            format!("/watch/{}", started.text("watch_code")),
        );
        set_faults(&gateway, &[fault]).await;
        seen.answer(fault, &start(api, &[], ORDER).await);
        seen.answer(
            fault,
            &start(api, &[("idempotency-key", &format!("key-{i}"))], &note).await,
        );
        seen.answer(fault, &ask(api, Method::GET, &watch, &[], "").await);
        pay_at(&gateway, &code).await;
        seen.answer(
            fault,
            &ask(
                api,
                Method::GET,
                &watch,
                &[("cache-control", "no-cache")],
                "",
            )
            .await,
        );
        seen.answer(
            fault,
            &ask(api, Method::GET, "/watch/unheard-of", &[], "").await,
        );
    }
    set_faults(&gateway, &["watch:echo-secret"]).await;

    // What callers do wrong, with it in their hands.
    let quoted = serde_json::to_string(secret).unwrap();
    for body in [
        format!(r#"{{"amount":1,"merchant_secret":{quoted}}}"#),
        format!(r#"{{"amount":1,{quoted}:1}}"#),
        format!(r#"{{"amount":{quoted}}}"#),
        format!(r#"{{"amount":1000,"redirect":{quoted}}}"#),
        format!(r#"{{"amount":1000,"redirect":"https://shop.example/","note":1e,{quoted}}}"#),
        secret.to_owned(),
        "{".to_owned(),
        format!("{note:>20000}"),
    ] {
        seen.answer("a bad start", &start(api, &[], &body).await);
    }
    for header in [
        "x-request-id",
        "idempotency-key",
        "origin",
        "x-forwarded-for",
        "authorization",
        "if-none-match",
    ] {
        let answer = call(
            api,
            Method::POST,
            "/api/start_payment",
            &[(header, secret)],
            ORDER,
        )
        .await;
        seen.answer(format!("a bad {header}"), &answer);
    }
    let in_a_path = secret.replace(['"', '\\'], "-");
    for path in [
        format!("/{in_a_path}"),
        format!("/pay/{in_a_path}"),
        format!("/payments?after={in_a_path}"),
    ] {
        seen.answer("a bad path", &ask(api, Method::GET, &path, &[], "").await);
    }

    // What a reload says, good and bad.
    for content in ["", "not canary-Q7w9E2r4T6y8-", secret] {
        fs::write(&file, content).unwrap();
        sidecar
            .says("\"file\"", async || sidecar.signal("HUP").await)
            .await;
    }

    // The app is told, and lists what there is.
    until("webhooks", async || {
        (receiver.taken("payment.completed").len() >= faults.len()).then_some(())
    })
    .await;
    for message in receiver.messages() {
        seen.add("webhook", format!("{} {}", message.id, message.body));
    }
    until("events of all that is paid", async || {
        let events = String::from_utf8(events.lock().unwrap().clone()).unwrap();
        (events.matches("completed_at\":\"").count() >= faults.len()).then_some(())
    })
    .await;
    seen.add("events", events.lock().unwrap().clone());
    for path in ["/payments?limit=1000", "/deliveries"] {
        let answer = ask(api, Method::GET, path, &[], "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        seen.answer(path, &answer);
    }

    // The operator's side.
    for path in [
        "/metrics",
        "/status",
        "/",
        "/readyz?verbose",
        "/livez",
        "/nowhere",
    ] {
        seen.answer(path, &get_at(admin, path).await);
    }
    let openmetrics = [("accept", "application/openmetrics-text; version=1.0.0")];
    let metrics = call(admin, Method::GET, "/metrics", &openmetrics, "").await;
    assert!(
        metrics.metric("tillgate_secret_echo_total") > 1,
        "the echo was there, and was seen"
    );
    seen.answer("/metrics as OpenMetrics", &metrics);
    let id = sidecar.child.id().unwrap();
    seen.process(id);
    for arguments in [&["check"][..], &["check", "--online", "--start"]] {
        set_faults(&gateway, &[]).await;
        let (code, out, err) = run(arguments, &variables).await;
        assert_eq!(code, 0, "{err}");
        seen.add("check", out + &err);
    }

    // Its memory, once the connections with the echoes in their buffers are gone. Some roots may not look.
    if let Some(memory) = memory_of(id) {
        assert!(
            !seen_in(&canary, &memory).is_empty(),
            "the search finds nothing"
        );
        until("a memory with one copy", async || {
            let copies = seen_in(&canary, &memory_of(id).unwrap());
            let is_one = copies.len() == 1 && copies[0].1 == "raw" && copies[0].2 == secret.len();
            is_one.then_some(())
        })
        .await;
    }

    // It dies badly, and leaves its files.
    sidecar.signal("ABRT").await;
    let status = sidecar.child.wait().await.unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
    let log = sidecar.lines();
    assert!(log.len() > faults.len() * 5, "{} lines of log", log.len());
    for line in &log {
        assert!(
            serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()),
            "no JSON object: {line}"
        );
    }
    seen.files(directory.path(), &file);
    assert!(
        seen.0
            .iter()
            .any(|(place, bytes)| place.contains("redb") && bytes.len() > 4096),
        "the store's file"
    );
    let told = seen.told(&canary);
    assert!(
        told.is_empty(),
        "{} of {} places: {told:#?}",
        told.len(),
        seen.0.len()
    );

    the_search_would_have_found_it(
        &canary,
        &seen,
        &gateway,
        directory.path(),
        sandbox.id().unwrap(),
    )
    .await;
}

/// The same readers find it where it does stand, and the same search finds it in each kind of place that it was not in.
async fn the_search_would_have_found_it(
    canary: &Canary,
    seen: &Seen,
    gateway: &str,
    directory: &Path,
    sandbox: u32,
) {
    let mut control = Seen::default();
    control.answer("an answer", &get_at(address_of(gateway), "/dev/api").await);
    control.process(sandbox);
    control.files(directory, Path::new(""));
    let told = control.told(canary);
    for place in ["an answer: ", "cmdline: ", "environ: ", "file secret: "] {
        assert!(
            told.iter().any(|told| told.starts_with(place)),
            "{place}: {told:#?}"
        );
    }
    let mut planted = Vec::new();
    for (place, bytes) in &seen.0 {
        if planted.contains(&place) {
            continue;
        }
        planted.push(place);
        // The middle of what is large is like the rest of it.
        let middle = bytes.len() / 2;
        let part = &bytes[middle.saturating_sub(2048)..bytes.len().min(middle + 2048)];
        for (form, leak) in canary.planted() {
            let (before, after) = part.split_at(part.len() / 2);
            let leaking = Seen(vec![(place.clone(), [before, &leak, after].concat())]);
            assert_eq!(leaking.told(canary).len(), 1, "{form} in {place}");
        }
    }
}

//! The store in a directory: what of it survives which failure, and what is said where nothing can be done.

mod lists;
mod payments;
mod refused;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hyper::Method;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::faults::faketime;
use crate::harness::{
    Answer, Block, NOBODY, Program, Stream, Wire, call, calls, exchange, has, pay_at, set_faults,
    skip, until,
};
use crate::receiver::{Mood, Receiver};
use crate::scripted::{Act, Gateway, STARTED, WATCHED, answer};

/// Nothing is lost to its time within a test.
const LONG: &str = "8000h";
const KEY: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const TOKEN: (&str, &str) = ("Authorization", "Bearer a-token");
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A directory of a test: the store in it, and the files that a sidecar needs.
struct Place {
    directory: TempDir,
    store: PathBuf,
}

/// How many lines of the program's last words there are, beside those of its log.
pub fn complaints(err: &str) -> usize {
    err.lines().filter(|line| !line.starts_with('{')).count()
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("tokens", "a-token"), ("keys", KEY)] {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let store = directory.path().join("store");
        Self { directory, store }
    }

    /// With a copy of that store.
    fn copy_of(store: &Path) -> Self {
        let place = Self::new();
        fs::create_dir(&place.store).unwrap();
        fs::copy(store.join("store.redb"), place.file()).unwrap();
        place
    }

    fn file(&self) -> PathBuf {
        self.store.join("store.redb")
    }

    /// A sidecar that keeps everything there.
    fn launch(&self, under: &[&str], gateway: &str, more: &[(&str, &str)]) -> Program {
        let store = format!("file:{}", self.store.display());
        let tokens = self.directory.path().join("tokens");
        let mut settings = vec![
            ("store.url", store.as_str()),
            ("listen.token_file", tokens.to_str().unwrap()),
            ("start.rate", "100000"),
            ("start.burst", "100000"),
            ("start.idempotency_ttl", LONG),
        ];
        settings.retain(|(name, _)| !more.iter().any(|(other, _)| name == other));
        settings.extend(more);
        Program::launch(under, gateway, &settings)
    }

    async fn sidecar(&self, gateway: &str, more: &[(&str, &str)]) -> (Program, SocketAddr) {
        let mut program = self.launch(&[], gateway, more);
        let (api, _) = program.addresses().await;
        (program, api)
    }

    /// The same, which tells that app.
    async fn sidecar_with_app(&self, gateway: &str, receiver: &Receiver) -> (Program, SocketAddr) {
        let keys = self.directory.path().join("keys");
        let url = receiver.url();
        self.sidecar(
            gateway,
            &[
                ("webhook.url", &url),
                ("webhook.secret_file", keys.to_str().unwrap()),
            ],
        )
        .await
    }

    /// It does not start on this store: exit code 1, and one line that says this.
    async fn refuses(&self, parts: &[&str]) {
        let (code, out, err) = self.launch(&[], NOBODY, &[]).end().await;
        assert_eq!((code, out.as_str(), complaints(&err)), (1, "", 1), "{err}");
        for part in parts {
            assert!(err.contains(part), "no {part:?} in: {err}");
        }
    }
}

/// A start; `None` if nobody is there any more.
async fn start(api: SocketAddr, key: &str) -> Option<Answer> {
    let headers = [TOKEN, JSON, ("Idempotency-Key", key)];
    let patience = Duration::from_secs(15);
    let bytes = exchange(
        api,
        Method::POST,
        "/api/start_payment",
        &headers,
        r#"{"amount": 1000}"#,
        patience,
    )
    .await;
    Answer::all(&bytes).ok()?.pop()
}

/// A start that must succeed.
async fn started(api: SocketAddr, key: &str) -> Answer {
    let answer = start(api, key).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// A watch that asks the gateway.
async fn watch(api: SocketAddr, watch_code: &str) -> Answer {
    let path = format!("/watch/{watch_code}");
    call(
        api,
        Method::GET,
        &path,
        &[TOKEN, ("Cache-Control", "no-cache")],
        "",
    )
    .await
}

/// The status of each code in the list.
async fn listed(api: SocketAddr) -> BTreeMap<String, String> {
    let page = call(api, Method::GET, "/payments?limit=1000", &[TOKEN], "").await;
    assert_eq!(page.status, 200, "{page:?}");
    let page = page.json();
    assert!(page["next"].is_null(), "more than one page");
    let field =
        |payment: &serde_json::Value, name: &str| payment[name].as_str().unwrap().to_owned();
    page["payments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|payment| (field(payment, "code"), field(payment, "status")))
        .collect()
}

/// A start's answer but for its `pay_url`, which is made anew for each caller.
fn without_page(body: &str) -> &str {
    body.split(",\"pay_url\":").next().unwrap()
}

/// What was revealed under each key.
#[derive(Default)]
struct Revealed(BTreeMap<String, String>);

impl Revealed {
    fn add(&mut self, key: &str, answer: &Answer) {
        assert_eq!(answer.status, 200, "{answer:?}");
        let before = self
            .0
            .entry(key.to_owned())
            .or_insert_with(|| answer.body.clone());
        assert_eq!(*before, answer.body, "{key} has shown two payments");
    }

    /// All of it is listed, and answered again.
    async fn check(&self, api: SocketAddr) {
        let listed = listed(api).await;
        for (key, body) in &self.0 {
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(
                listed.contains_key(json["code"].as_str().unwrap()),
                "{key} is forgotten"
            );
            let again = started(api, key).await;
            assert_eq!(
                (
                    without_page(&again.body),
                    again.header("idempotency-replayed")
                ),
                (without_page(body), "true"),
                "{key}"
            );
        }
    }
}

/// A store with one payment, closed in peace.
async fn template(gateway: &str) -> (Place, Revealed) {
    let (place, mut revealed) = (Place::new(), Revealed::default());
    let (sidecar, api) = place.sidecar(gateway, &[]).await;
    revealed.add("first", &started(api, "first").await);
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    (place, revealed)
}

/// Code and watch code.
fn codes(revealed: &Revealed, key: &str) -> (String, String) {
    let json: serde_json::Value = serde_json::from_str(&revealed.0[key]).unwrap();
    let field = |name: &str| json[name].as_str().unwrap().to_owned();
    (field("code"), field("watch_code"))
}

/// Who did not name one is answered again with the payment that has the old one.
#[tokio::test]
async fn a_default_redirect_that_changes_between_two_runs_makes_no_other_start_of_a_repeated_one() {
    let (place, mut revealed) = (Place::new(), Revealed::default());
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    for default in ["", "https://shop.example/a", "https://shop.example/b"] {
        let (sidecar, api) = place
            .sidecar(&gateway, &[("redirect.default", default)])
            .await;
        revealed.check(api).await;
        let key = format!("with {default:?}");
        revealed.add(&key, &started(api, &key).await);
        // Each answer leads to the page of this run.
        for key in revealed.0.keys() {
            let again = started(api, key).await;
            let page = default.replace("https://shop.example/", "%2F%2Fshop.example%2F");
            assert!(again.text("pay_url").ends_with(&page), "{again:?}");
        }
        sidecar.kill().await;
    }
}

/// What an event tells; of the mark behind the present state, nothing.
fn of(event: &Block, name: &str) -> String {
    if event.data.is_empty() {
        String::new()
    } else {
        event.json()[name].as_str().unwrap().to_owned()
    }
}

/// The id behind the present state.
async fn present(api: SocketAddr) -> String {
    let is_mark = |event: &Block| event.data.is_empty();
    events_until(api, None, |events| events.iter().any(is_mark))
        .await
        .into_iter()
        .find(is_mark)
        .unwrap()
        .id
}

/// So many events, or some more; from after that one.
async fn events(api: SocketAddr, last: Option<&str>, count: usize) -> Vec<Block> {
    events_until(api, last, |events| events.len() >= count).await
}

/// Events until this holds of them; from after that one.
async fn events_until(
    api: SocketAddr,
    last: Option<&str>,
    holds: impl Fn(&[Block]) -> bool,
) -> Vec<Block> {
    let (events, in_time) = events_for(api, last, Duration::from_secs(10), holds).await;
    assert!(in_time, "not in time, after {last:?}: {events:?}");
    events
}

/// The events that come in this time, until this holds of them; and whether it did.
async fn events_for(
    api: SocketAddr,
    last: Option<&str>,
    patience: Duration,
    holds: impl Fn(&[Block]) -> bool,
) -> (Vec<Block>, bool) {
    let mut wire = Wire::open(api).await;
    let last = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
    wire.send(format!(
        "GET /events HTTP/1.1\r\nHost: localhost\r\n{}: {}\r\n{last}\r\n",
        TOKEN.0, TOKEN.1
    ))
    .await;
    let (mut stream, mut read, mut events) = (wire.into_stream(), Vec::new(), Vec::new());
    let come = async {
        while !holds(&events) {
            let n = stream.read_buf(&mut read).await.unwrap();
            assert!(n > 0, "ended: {}", String::from_utf8_lossy(&read));
            let text = std::str::from_utf8(&read).unwrap();
            if let Some((_, body)) = text.split_once("\r\n\r\n") {
                events = Stream::blocks(body.rfind("\n\n").map_or("", |end| &body[..end + 2]));
                events.retain(|block| !block.id.is_empty());
            }
        }
    };
    let in_time = tokio::time::timeout(patience, come).await.is_ok();
    (events, in_time)
}

#[tokio::test]
async fn after_a_restart_events_go_on_without_a_gap_and_keys_are_answered_again() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (place, mut revealed) = (Place::new(), Revealed::default());
    let (sidecar, api) = place.sidecar(&gateway, &[]).await;
    for key in ["a", "b", "c"] {
        revealed.add(key, &started(api, key).await);
    }
    let first = present(api).await;
    let (code, watch_code) = codes(&revealed, "b");
    watch(api, &watch_code).await;
    pay_at(&gateway, &code).await;
    watch(api, &watch_code).await;
    revealed.add("d", &started(api, "d").await);
    let (last, _) = codes(&revealed, "d");
    let before = events_until(api, Some(&first), |events| {
        let has = |name: &str, value: &str| events.iter().any(|event| of(event, name) == value);
        has("status", "completed") && has("code", &last)
    })
    .await;
    let tag = call(
        api,
        Method::GET,
        &format!("/watch/{watch_code}"),
        &[TOKEN],
        "",
    )
    .await
    .header("etag")
    .to_owned();
    sidecar.kill().await;
    set_faults(&gateway, &["watch:status=500"]).await;
    let (_sidecar, api) = place.sidecar(&gateway, &[]).await;
    let after = events(api, Some(&first), before.len()).await;
    let seen = |blocks: &[Block]| -> Vec<_> {
        let seen = |block: &Block| (block.id.clone(), block.data.clone());
        blocks.iter().map(seen).collect()
    };
    assert_eq!(seen(&after[..before.len()]), seen(&before));
    // From the middle, too.
    let middle = events(api, Some(&before[0].id), before.len() - 1).await;
    assert_eq!(seen(&middle[..before.len() - 1]), seen(&before[1..]));
    revealed.check(api).await;
    let again = call(
        api,
        Method::GET,
        &format!("/watch/{watch_code}"),
        &[TOKEN],
        "",
    )
    .await;
    assert_eq!(
        (again.status, again.header("etag"), again.text("status")),
        (200, tag.as_str(), "completed")
    );
    let mismatch = exchange(
        api,
        Method::POST,
        "/api/start_payment",
        &[TOKEN, JSON, ("Idempotency-Key", "a")],
        r#"{"amount": 1001}"#,
        Duration::from_secs(10),
    );
    assert_eq!(
        Answer::all(&mismatch.await).unwrap()[0].text("error"),
        "idempotency_mismatch"
    );
}

/// Who is cut off in the middle of the present state hears of what happened to what it was told already.
#[tokio::test]
async fn a_reader_cut_off_within_the_present_state_misses_nothing() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let place = Place::new();
    let (_sidecar, api) = place.sidecar(&gateway, &[]).await;
    let (first, _second) = (started(api, "first").await, started(api, "second").await);
    let told = events(api, None, 1).await.remove(0);
    assert_eq!(
        (of(&told, "code").as_str(), of(&told, "status").as_str()),
        (first.text("code"), "created")
    );
    pay_at(&gateway, first.text("code")).await;
    until("the completion", async || {
        (watch(api, first.text("watch_code")).await.text("status") == "completed").then_some(())
    })
    .await;
    let (after, in_time) = events_for(api, Some(&told.id), Duration::from_secs(3), |events| {
        events.iter().any(|event| {
            of(event, "code") == first.text("code") && of(event, "status") == "completed"
        })
    })
    .await;
    assert!(in_time, "{after:?}");
}

#[tokio::test]
async fn after_a_restart_open_payments_are_polled_and_what_is_owed_is_delivered() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (place, mut revealed) = (Place::new(), Revealed::default());
    let refusing = Receiver::new(|_| Mood::Refuse).await;
    let (sidecar, api) = place.sidecar_with_app(&gateway, &refusing).await;
    for key in ["owed", "open"] {
        revealed.add(key, &started(api, key).await);
    }
    let (owed, _) = codes(&revealed, "owed");
    pay_at(&gateway, &owed).await;
    let tried = until("a try", async || refusing.messages().into_iter().next()).await;
    sidecar.kill().await;
    let (open, _) = codes(&revealed, "open");
    pay_at(&gateway, &open).await;
    let receiver = Receiver::new(|_| Mood::Take).await;
    let (sidecar, _) = place.sidecar_with_app(&gateway, &receiver).await;
    until("both", async || {
        let taken = receiver.taken("payment.completed");
        (taken == HashSet::from([owed.clone(), open.clone()])).then_some(())
    })
    .await;
    let again = receiver
        .messages()
        .into_iter()
        .find(|message| message.id == tried.id)
        .expect("the same id");
    assert_eq!(again.body, tried.body);
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let (_sidecar, _) = place.sidecar_with_app(&gateway, &receiver).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.messages().len(), 2, "delivered again");
}

#[tokio::test]
async fn memory_forgets() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let place = Place::new();
    let memory = [("store.url", "memory:")];
    let (sidecar, api) = place.sidecar(&gateway, &memory).await;
    let before = started(api, "a").await;
    sidecar.kill().await;
    let (_sidecar, api) = place.sidecar(&gateway, &memory).await;
    assert!(listed(api).await.is_empty());
    let after = started(api, "a").await;
    assert_ne!(after.body, before.body);
    assert_eq!(after.header("idempotency-replayed"), "");
    assert!(!place.store.exists());
}

#[tokio::test]
async fn after_its_time_a_key_is_free_and_a_finished_payment_gone_also_after_a_restart() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let place = Place::new();
    let short = [("start.idempotency_ttl", "1s"), ("store.keep_for", "1s")];
    let (sidecar, api) = place.sidecar(&gateway, &short).await;
    let (paid, open) = (started(api, "paid").await, started(api, "open").await);
    pay_at(&gateway, paid.text("code")).await;
    assert_eq!(
        watch(api, paid.text("watch_code")).await.text("status"),
        "completed"
    );
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let again = started(api, "open").await;
    assert_ne!(again.body, open.body);
    sidecar.kill().await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let (sidecar, api) = place.sidecar(&gateway, &short).await;
    let listed_now = listed(api).await;
    assert!(
        listed_now.contains_key(open.text("code")) && listed_now.contains_key(again.text("code"))
    );
    assert!(
        !listed_now.contains_key(paid.text("code")),
        "kept after its time"
    );
    assert_ne!(started(api, "paid").await.body, paid.body);
    sidecar.kill().await;
}

/// Numbers are given once: what the journal tells of a payment that was let go is not told of another one.
#[tokio::test]
async fn a_payment_that_was_let_go_does_not_lend_its_past_to_a_later_one() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let place = Place::new();
    let room = [("watch.max_tracked", "1")];
    let (sidecar, api) = place.sidecar(&gateway, &room).await;
    let first = started(api, "first").await;
    let begin = present(api).await;
    let mut waiting = Wire::open(api).await;
    let path = format!("/watch/{}?wait=60", first.text("watch_code"));
    waiting
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{}: {}\r\n\r\n",
            TOKEN.0, TOKEN.1
        ))
        .await;
    until("the wait", async || {
        (calls(&gateway).await.1 > 0).then_some(())
    })
    .await;
    let second = started(api, "second").await;
    pay_at(&gateway, second.text("code")).await;
    assert_eq!(
        watch(api, second.text("watch_code")).await.text("status"),
        "completed"
    );
    // Another's payment takes the room of the last one of ours.
    let secret = tillgate::sandbox::DEFAULT_SECRET;
    let order = format!(r#"{{"amount": 5, "merchant_secret": "{secret}"}}"#);
    let sandbox = crate::harness::address_of(&gateway);
    let theirs = call(sandbox, Method::POST, "/api/start_payment", &[JSON], &order).await;
    watch(api, theirs.text("watch_code")).await;
    assert!(
        !listed(api).await.contains_key(second.text("code")),
        "it was not let go"
    );
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let (sidecar, api) = place.sidecar(&gateway, &[]).await;
    let third = started(api, "third").await;
    sidecar.kill().await;
    let (_sidecar, api) = place.sidecar(&gateway, &[]).await;
    let (told, _) = events_for(api, Some(&begin), Duration::from_secs(1), |_| false).await;
    assert!(
        told.iter()
            .any(|event| of(event, "code") == third.text("code")),
        "{told:?}"
    );
    let of_third = told
        .iter()
        .filter(|event| of(event, "code") == third.text("code"));
    for event in of_third {
        assert_eq!(
            of(event, "status"),
            "created",
            "nobody has paid it: {told:?}"
        );
    }
}

#[tokio::test]
async fn terminated_under_load_it_ends_in_peace_and_nothing_told_is_lost() {
    let (_sandbox, gateway) = Program::sandbox(&["--fault", "start:delay=30ms,rate=0.5"]).await;
    let place = Place::new();
    let mut revealed = Revealed::default();
    for round in 0..3 {
        let (sidecar, api) = place.sidecar(&gateway, &[]).await;
        let callers = (0..16).map(async |caller| {
            let mut told = Vec::new();
            for i in 0.. {
                let key = format!("{round}-{caller}-{i}");
                match start(api, &key).await {
                    Some(answer) if answer.status == 200 => told.push((key, answer)),
                    Some(answer) => {
                        assert_eq!(answer.text("error"), "draining", "{answer:?}");
                        break;
                    }
                    None => break,
                }
            }
            told
        });
        let end = async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            sidecar.signal("TERM");
            sidecar.end().await
        };
        let (told, (code, _, log)) = tokio::join!(futures_util::future::join_all(callers), end);
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("everything is finished"), "{log}");
        let before = revealed.0.len();
        told.into_iter()
            .flatten()
            .for_each(|(key, answer)| revealed.add(&key, &answer));
        assert!(revealed.0.len() > before + 16, "no load");
    }
    let (_sidecar, api) = place.sidecar(&gateway, &[]).await;
    revealed.check(api).await;
}

/// Not to be made anew: that later versions read what the first one wrote is the point.
///
/// Its clock shows the evening on which it was made: what it holds has not had its time.
///
/// It was made with: a key `order-1` (1000, paid, delivered), `order-2` (1000, paid, refused by the app: pending) and
/// `order-3` (1000, open), killed and closed in peace afterwards.
#[tokio::test]
async fn a_store_of_the_first_version_opens() {
    let Some(library) = faketime() else {
        skip("libfaketime is not installed");
        return;
    };
    // Its messages wait no longer where the clock is behind by then.
    for clock in ["2026-11-23 21:00:00", "2025-11-23 21:00:00"] {
        opens_a_store_of_the_first_version(&library, clock).await;
    }
}

async fn opens_a_store_of_the_first_version(library: &str, clock: &str) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/store-v1");
    let answers: BTreeMap<String, String> =
        serde_json::from_slice(&fs::read(fixture.join("answers.json")).unwrap()).unwrap();
    let revealed = Revealed(answers);
    let (_sandbox, gateway) = Program::sandbox(&["--fault", "watch:status=500"]).await;
    let place = Place::copy_of(&fixture);
    let receiver = Receiver::new(|_| Mood::Take).await;
    let (url, keys) = (receiver.url(), place.directory.path().join("keys"));
    let webhook = [
        ("webhook.url", url.as_str()),
        ("webhook.secret_file", keys.to_str().unwrap()),
    ];
    let preload = format!("LD_PRELOAD={library}");
    let clock = format!("FAKETIME=@{clock}");
    let clock = [
        "env",
        &preload,
        &clock,
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "TZ=UTC",
    ];
    let mut sidecar = place.launch(&clock, &gateway, &webhook);
    let (api, _) = sidecar.addresses().await;
    let listed = listed(api).await;
    let statuses: Vec<_> = ["order-1", "order-2", "order-3"]
        .map(|key| listed[&codes(&revealed, key).0].clone())
        .into();
    assert_eq!(statuses, ["completed", "completed", "created"]);
    assert_eq!(listed.len(), 3);
    revealed.check(api).await;
    let (second, watch_code) = codes(&revealed, "order-2");
    until("what was pending", async || {
        receiver
            .taken("payment.completed")
            .contains(&second)
            .then_some(())
    })
    .await;
    assert_eq!(receiver.messages().len(), 1);
    let id = fs::read_to_string(fixture.join("pending")).unwrap();
    assert_eq!(receiver.messages()[0].id, id.trim());
    assert_eq!(
        call(
            api,
            Method::GET,
            &format!("/watch/{watch_code}"),
            &[TOKEN],
            ""
        )
        .await
        .text("status"),
        "completed"
    );
}

/// Makes it, with the version that is to be kept: `cargo test make_a_fixture -- --ignored`.
#[tokio::test]
#[ignore = "writes tests/it/fixtures/store-new"]
async fn make_a_fixture() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/store-new");
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let (place, mut revealed) = (Place::new(), Revealed::default());
    let taking = Receiver::new(|_| Mood::Take).await;
    let (sidecar, api) = place.sidecar_with_app(&gateway, &taking).await;
    revealed.add("order-1", &started(api, "order-1").await);
    let (code, _) = codes(&revealed, "order-1");
    pay_at(&gateway, &code).await;
    until("it is delivered", async || {
        taking
            .taken("payment.completed")
            .contains(&code)
            .then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    sidecar.kill().await;
    let refusing = Receiver::new(|_| Mood::Refuse).await;
    let (sidecar, api) = place.sidecar_with_app(&gateway, &refusing).await;
    revealed.add("order-2", &started(api, "order-2").await);
    pay_at(&gateway, &codes(&revealed, "order-2").0).await;
    let pending = until("a try", async || refusing.messages().into_iter().next()).await;
    revealed.add("order-3", &started(api, "order-3").await);
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    fs::create_dir_all(&fixture).unwrap();
    fs::copy(place.file(), fixture.join("store.redb")).unwrap();
    fs::write(
        fixture.join("answers.json"),
        serde_json::to_string_pretty(&revealed.0).unwrap() + "\n",
    )
    .unwrap();
    fs::write(fixture.join("pending"), pending.id + "\n").unwrap();
}

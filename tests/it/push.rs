//! Webhooks, over real sockets: what the app is told, how it is signed, and what happens when the app does not take it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::{HeaderMap, Method, Request};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use socket2::SockRef;
use tempfile::TempDir;
use tillgate::sandbox::{DEFAULT_SECRET, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::harness::{
    Answer, Program, Sidecar, address_of, call, free_port, get, get_at, metric_at, pay_at, run,
    set_faults, settles, start_at, until,
};

/// Polls often enough for a test to be short, and starts as many as a test wants.
pub const FAST: [(&str, &str); 4] = [
    ("watch.max_poll_interval", "50ms"),
    ("watch.poll_rate", "10000"),
    ("start.rate", "1000000"),
    ("start.burst", "100000"),
];
/// The guide's fields and both codes.
const FIELDS: [&str; 7] = [
    "amount",
    "code",
    "completed_at",
    "created_at",
    "merchant",
    "status",
    "watch_code",
];

/// What the app does with a request.
pub enum Say {
    /// This status, and these header lines, each with its end.
    Status(u16, &'static str),
    /// The same after so long.
    Late(Duration, u16),
    /// These bytes, and then the end of the connection.
    Raw(&'static [u8]),
    /// Nothing, for ever.
    Nothing,
    /// Cuts the connection off.
    Reset,
}

/// The app takes it.
pub const OK: Say = Say::Status(200, "");

/// A request that the app got.
#[derive(Clone, Debug)]
pub struct Post {
    /// Method, target and version.
    line: String,
    headers: HeaderMap,
    body: String,
    pub at: Instant,
    /// Which try this is of its id, from 1.
    pub tries: usize,
}

impl Post {
    fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values
            .next()
            .unwrap_or_else(|| panic!("no {name}: {self:?}"))
            .to_str()
            .unwrap();
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        value
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    pub fn amount(&self) -> u64 {
        self.json()["data"]["amount"].as_u64().unwrap()
    }

    fn timestamp(&self) -> u64 {
        self.header("webhook-timestamp").parse().unwrap()
    }
}

type Script = dyn Fn(&Post) -> Say + Send + Sync;

/// The merchant's app, as far as webhooks go.
pub struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// Its keys, as the bytes that they are.
    keys: Vec<Vec<u8>>,
    pub directory: TempDir,
}

struct Shared {
    script: Box<Script>,
    heard: Mutex<Vec<Post>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

/// The same bytes for the same number.
fn key(number: u8) -> Vec<u8> {
    Sha256::digest([number]).to_vec()
}

fn text_of(key: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(key))
}

impl App {
    /// An app that does this with what it gets.
    pub async fn new(script: impl Fn(&Post) -> Say + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", script).await
    }

    async fn at(address: &str, script: impl Fn(&Post) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            heard: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        });
        let of_task = shared.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, of_task.clone()));
            }
        });
        let app = Self {
            address,
            shared,
            task,
            keys: vec![key(1)],
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(app.key_file(), text_of(&app.keys[0]) + "\n").unwrap();
        app
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    pub fn url(&self) -> String {
        format!("http://{}/payment-events?from=tillgate", self.address)
    }

    /// A sidecar that tells this app, and may list.
    pub fn sidecar(&self, settings: &[(&str, &str)]) -> Sidecar {
        let (url, file) = (self.url(), self.key_file());
        let own = [
            ("webhook.url", &*url),
            ("webhook.secret_file", file.to_str().unwrap()),
        ];
        Sidecar::dev(&[&FAST, &own[..], settings].concat())
    }

    /// The same as a program, in front of this gateway.
    pub async fn program(
        &self,
        gateway: &str,
        settings: &[(&str, &str)],
    ) -> (Program, SocketAddr, SocketAddr) {
        let (url, file) = (self.url(), self.key_file());
        let own = [
            ("webhook.url", &*url),
            ("webhook.secret_file", file.to_str().unwrap()),
            ("watch.max_poll_interval", "50ms"),
        ];
        Program::sidecar(gateway, &[&own[..], settings].concat()).await
    }

    /// Everything that it has got.
    pub fn heard(&self) -> Vec<Post> {
        self.shared
            .heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The same, once it is so many.
    pub async fn has_heard(&self, count: usize) -> Vec<Post> {
        until("so many posts", async || {
            Some(self.heard()).filter(|heard| heard.len() >= count)
        })
        .await
    }

    /// Asserts that it hears no more than so many, as far as a short while tells.
    pub async fn hears_no_more_than(&self, count: usize) -> Vec<Post> {
        let heard = self.has_heard(count).await;
        sleep(Duration::from_millis(250)).await;
        assert_eq!(self.heard().len(), count, "{:#?}", self.heard());
        heard
    }

    /// Asserts that this was made with its keys, all of them and in their order.
    #[track_caller]
    fn assert_signed(&self, post: &Post) {
        let signed = format!("{}.{}.{}", post.id(), post.timestamp(), post.body);
        let expected: Vec<_> = self
            .keys
            .iter()
            .map(|key| format!("v1,{}", STANDARD.encode(hmac(key, signed.as_bytes()))))
            .collect();
        assert_eq!(
            post.header("webhook-signature"),
            expected.join(" "),
            "{post:?}"
        );
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// RFC 2104 over SHA-256, by hand.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let padded = |with: u8| {
        let mut block = [with; 64];
        block
            .iter_mut()
            .zip(key)
            .for_each(|(byte, key)| *byte ^= key);
        block
    };
    assert!(key.len() <= 64);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message)
        .finalize();
    Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}

#[test]
fn the_signature_of_this_test_is_the_one_of_the_rfc() {
    // RFC 4231, test case 2.
    let mac: String = hmac(b"Jefe", b"what do ya want for nothing?")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        mac,
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

/// Answers what comes on one connection.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut read = Vec::new();
    loop {
        let Some(post) = next_post(&mut stream, &mut read, &shared).await else {
            return;
        };
        let say = (shared.script)(&post);
        let now = shared.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_at_once.fetch_max(now, Ordering::SeqCst);
        shared
            .heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(post);
        let goes_on = answer(&mut stream, say).await;
        shared.at_once.fetch_sub(1, Ordering::SeqCst);
        if !goes_on {
            return;
        }
    }
}

async fn answer(stream: &mut TcpStream, say: Say) -> bool {
    match say {
        Say::Status(status, lines) => {
            let length = if status == 204 {
                ""
            } else {
                "Content-Length: 0\r\n"
            };
            let answer = format!("HTTP/1.1 {status} Whatever\r\n{lines}{length}\r\n");
            stream.write_all(answer.as_bytes()).await.is_ok()
        }
        Say::Late(after, status) => {
            sleep(after).await;
            Box::pin(answer(stream, Say::Status(status, ""))).await
        }
        Say::Raw(bytes) => {
            let _ = stream.write_all(bytes).await;
            false
        }
        Say::Nothing => std::future::pending().await,
        Say::Reset => {
            SockRef::from(&*stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
            false
        }
    }
}

async fn next_post(stream: &mut TcpStream, read: &mut Vec<u8>, shared: &Shared) -> Option<Post> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut fields);
        if let httparse::Status::Complete(start) = head.parse(read).expect("a request") {
            let mut headers = HeaderMap::new();
            for field in head.headers.iter() {
                let name: hyper::header::HeaderName = field.name.parse().unwrap();
                headers.append(
                    name,
                    hyper::header::HeaderValue::from_bytes(field.value).unwrap(),
                );
            }
            let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
            if let Some(body) = read.get(start..start + length) {
                let line = format!(
                    "{} {} 1.{}",
                    head.method.unwrap(),
                    head.path.unwrap(),
                    head.version.unwrap()
                );
                let body = String::from_utf8(body.to_vec()).unwrap();
                read.drain(..start + length);
                let before = shared.heard.lock().unwrap_or_else(PoisonError::into_inner);
                let same =
                    |post: &&Post| post.headers.get("webhook-id") == headers.get("webhook-id");
                let tries = before.iter().filter(same).count() + 1;
                return Some(Post {
                    line,
                    headers,
                    body,
                    at: Instant::now(),
                    tries,
                });
            }
        }
        if !matches!(stream.read_buf(read).await, Ok(1..)) {
            return None;
        }
    }
}

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

fn empty_post(path: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "localhost")
        .body(Full::default())
        .unwrap()
}

async fn redeliver(sidecar: &Sidecar, id: &str) -> Answer {
    sidecar
        .api(empty_post(&format!("/deliveries/{id}/redeliver")))
        .await
}

async fn page(sidecar: &Sidecar, query: &str) -> Value {
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

fn time(value: &Value) -> jiff::Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    assert!(text.ends_with('Z'), "{text}");
    text.parse().unwrap()
}

fn seconds_between(from: &Value, to: &Value) -> f64 {
    time(to).duration_since(time(from)).as_secs_f64()
}

#[tokio::test]
async fn a_payment_that_nobody_asks_about_is_posted_once_when_it_is_paid() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    let (code, watch_code) = started(&sidecar, 1234).await;
    until("polls", async || {
        (sidecar.gateway_watches() > 2).then_some(())
    })
    .await;
    assert!(app.heard().is_empty(), "an open payment is no news");
    assert_eq!(deliveries(&sidecar).await, [] as [Value; 0]);
    sidecar.pay(&code);
    let post = app.hears_no_more_than(1).await.remove(0);
    assert_eq!(post.line, "POST /payment-events?from=tillgate 1.1");
    let mut names: Vec<_> = post.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "connection",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    ];
    assert_eq!(names, expected);
    assert_eq!(post.header("host"), app.address.to_string());
    assert_eq!(post.header("content-type"), "application/json");
    assert_eq!(
        post.header("user-agent"),
        concat!("tillgate/", env!("CARGO_PKG_VERSION"))
    );
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    assert!((now - 5..=now).contains(&post.timestamp()), "{post:?}");
    app.assert_signed(&post);

    let message = post.json();
    let mut members: Vec<_> = message.as_object().unwrap().keys().collect();
    members.sort_unstable();
    assert_eq!(members, ["data", "timestamp", "type"]);
    assert_eq!(message["type"], "payment.completed");
    assert!((time(&message["timestamp"]).as_second() - i64::try_from(now).unwrap()).abs() < 10);
    let mut fields: Vec<_> = message["data"].as_object().unwrap().keys().collect();
    fields.sort_unstable();
    assert_eq!(fields, FIELDS);
    let mut expected = sidecar.watch(&watch_code).await.json();
    expected["code"] = code.into();
    expected["watch_code"] = watch_code.into();
    assert_eq!(message["data"], expected);
    assert_eq!(
        (&expected["status"], &expected["amount"]),
        (&"completed".into(), &1234.into())
    );
    assert!(expected["completed_at"].is_string());

    let delivery = delivery(&sidecar, post.id(), |delivery| {
        delivery["state"] == "delivered"
    })
    .await;
    assert_eq!(
        (&delivery["type"], &delivery["tries"]),
        (&"payment.completed".into(), &1.into())
    );
    assert_eq!(delivered(&sidecar, "delivered").await, 1);
    assert_eq!(pending(&sidecar).await, 0);
    // Once it is final there is nothing left to ask for.
    assert_eq!(sidecar.followed(), 0);
    let polls = sidecar.gateway_watches();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(sidecar.gateway_watches(), polls);
}

#[tokio::test]
async fn every_key_signs_whatever_its_length() {
    let mut app = App::new(|_| OK).await;
    app.keys = vec![vec![7; 24], key(1), (0..64).collect()];
    let lines: Vec<_> = app.keys.iter().map(|key| text_of(key)).collect();
    fs::write(app.key_file(), lines.join("\r\n\n") + "\r\n").unwrap();
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    let post = app.hears_no_more_than(1).await.remove(0);
    assert_eq!(post.header("webhook-signature").split(' ').count(), 3);
    app.assert_signed(&post);
}

#[tokio::test]
async fn keys_are_rotated_while_it_runs() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let mut app = App::new(|_| OK).await;
    let (mut sidecar, api, _) = app.program(&gateway, &[]).await;
    let (old, new) = (key(1), key(2));
    for (number, keys) in [vec![old.clone()], vec![new.clone(), old], vec![new]]
        .into_iter()
        .enumerate()
    {
        if number > 0 {
            let lines: Vec<_> = keys.iter().map(|key| text_of(key)).collect();
            fs::write(app.key_file(), lines.join("\n")).unwrap();
            sidecar.signal("HUP");
            sidecar.log_line("file loaded").await;
        }
        app.keys = keys;
        let payment = start_at(api, r#"{"amount":1}"#).await;
        pay_at(&gateway, payment.text("code")).await;
        app.assert_signed(&app.has_heard(number + 1).await[number]);
    }
    // What is bad changes nothing.
    fs::write(app.key_file(), "whsec_short\n").unwrap();
    sidecar.signal("HUP");
    let line = sidecar.log_line("file not reloaded").await;
    assert!(!line.contains("short"), "{line}");
    let payment = start_at(api, r#"{"amount":1}"#).await;
    pay_at(&gateway, payment.text("code")).await;
    app.assert_signed(&app.has_heard(4).await[3]);
}

#[tokio::test]
async fn a_try_that_fails_in_whatever_way_is_followed_by_one_with_the_same_id_and_body() {
    const HERE: &str = "Location: /elsewhere\r\n";
    let failures: [fn() -> Say; 22] = [
        || Say::Status(500, ""),
        || Say::Status(502, ""),
        || Say::Status(503, ""),
        || Say::Status(404, ""),
        || Say::Status(400, ""),
        || Say::Status(401, ""),
        || Say::Status(409, ""),
        || Say::Status(429, ""),
        || Say::Status(300, HERE),
        || Say::Status(301, HERE),
        || Say::Status(302, HERE),
        || Say::Status(303, HERE),
        || Say::Status(307, HERE),
        || Say::Status(308, HERE),
        || Say::Status(304, ""),
        || Say::Reset,
        || Say::Raw(b""),
        || Say::Raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
        || Say::Raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
        || Say::Raw(b"HTTP/1.1 2000 OK\r\n\r\n"),
        || Say::Nothing,
        || Say::Late(Duration::from_millis(700), 200),
    ];
    let count = failures.len();
    let app = App::new(move |post| {
        let number = usize::try_from(post.amount()).unwrap() - 1;
        if post.tries == 1 {
            failures[number]()
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[("webhook.timeout", "400ms")]);
    for number in 1..=count {
        paid(&sidecar, number).await;
    }
    // More than sixteen at once: some have to wait for the two that take their time.
    until("the first tries", async || {
        (delivered(&sidecar, "retry").await == count as u64).then_some(())
    })
    .await;
    let heard = app.has_heard(2 * count).await;
    until("all", async || {
        (delivered(&sidecar, "delivered").await == count as u64).then_some(())
    })
    .await;
    assert_eq!(app.heard().len(), 2 * count, "each twice");
    for number in 1..=count {
        let posts: Vec<_> = heard
            .iter()
            .filter(|post| post.amount() == number as u64)
            .collect();
        let [first, second] = posts[..] else {
            panic!("{number}: {posts:#?}")
        };
        assert!(
            posts
                .iter()
                .all(|post| post.line.starts_with("POST /payment-events?")),
            "no redirect is followed"
        );
        assert_eq!((first.id(), &first.body), (second.id(), &second.body));
        let apart = second.at - first.at;
        assert!(
            (Duration::from_millis(990)..Duration::from_secs(3)).contains(&apart),
            "{number}: {apart:?}"
        );
        assert!(second.timestamp() > first.timestamp() || apart < Duration::from_secs(1));
        app.assert_signed(first);
        app.assert_signed(second);
    }
    let all = deliveries(&sidecar).await;
    assert!(
        all.iter()
            .all(|delivery| delivery["state"] == "delivered" && delivery["tries"] == 2),
        "{all:#?}"
    );
    assert!(
        all.iter().all(|delivery| delivery["last_error"].is_null()),
        "{all:#?}"
    );
    assert_eq!(pending(&sidecar).await, 0);
    let ids: HashSet<_> = heard.iter().map(Post::id).collect();
    assert_eq!(ids.len(), count);
}

#[tokio::test]
async fn why_a_try_failed_is_told() {
    let secret_in_it =
        Box::leak(format!("X-Y: 1\r\nLocation: /x?{DEFAULT_SECRET}\r\n").into_boxed_str());
    let page = b"HTTP/1.1 500 No\r\nContent-Length: 4000\r\n\r\n<h1>no\nsuch\tcolumn</h1>";
    let late = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let cases: [(Box<Script>, &str); 8] = [
        (Box::new(|_| Say::Status(503, "")), "status 503"),
        (
            Box::new(|_| Say::Status(302, secret_in_it)),
            "status 302, Location /x?[redacted]",
        ),
        (
            Box::new(|_| Say::Raw(page)),
            "status 500: <h1>no such column</h1>",
        ),
        (Box::new(move |_| Say::Status(401, late)), "s behind ours)"),
        (
            Box::new(|_| Say::Reset),
            "the connection broke before an answer came: ",
        ),
        (
            Box::new(|_| Say::Raw(b"garbage with a secret in it\r\n\r\n")),
            "the connection broke before an answer came: ",
        ),
        (
            Box::new(|_| Say::Raw(b"")),
            "the connection broke before an answer came: ",
        ),
        (
            Box::new(|_| Say::Nothing),
            "no answer within webhook.timeout",
        ),
    ];
    for (say, why) in cases {
        let app = App::new(say).await;
        let sidecar = app.sidecar(&[("webhook.timeout", "1s")]);
        paid(&sidecar, 1).await;
        let post = app.has_heard(1).await.remove(0);
        let delivery = delivery(&sidecar, post.id(), |delivery| delivery["tries"] == 1).await;
        let told = delivery["last_error"].as_str().unwrap();
        assert!(
            told.contains(why) && !told.contains("garbage"),
            "{told}, not {why}"
        );
        assert_eq!(delivery["state"], "pending");
    }
}

#[tokio::test]
async fn an_app_that_is_not_there_yet_is_told_when_it_is() {
    let port = free_port();
    let other = App::new(|_| OK).await;
    let url = format!("http://127.0.0.1:{port}/");
    let sidecar = other.sidecar(&[("webhook.url", &url)]);
    paid(&sidecar, 1).await;
    until("a try", async || {
        (delivered(&sidecar, "retry").await > 0).then_some(())
    })
    .await;
    let why = deliveries(&sidecar).await[0]["last_error"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(why.starts_with("no connection: TCP: 127.0.0.1:"), "{why}");
    assert_eq!(pending(&sidecar).await, 1);
    let app = App::at(&format!("127.0.0.1:{port}"), |_| OK).await;
    let post = app.hears_no_more_than(1).await.remove(0);
    assert_eq!(post.line, "POST / 1.1");
    assert!(other.heard().is_empty());
}

#[tokio::test]
async fn it_is_tried_again_and_again_with_the_same_id_and_body() {
    let app = App::new(|post| {
        if post.tries > 8 {
            OK
        } else {
            Say::Status(500, "")
        }
    })
    .await;
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    for (tries, step) in [1.0_f64, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 18000.0]
        .into_iter()
        .enumerate()
    {
        let post = app.has_heard(tries + 1).await.pop().unwrap();
        app.assert_signed(&post);
        let shown = delivery(&sidecar, post.id(), |delivery| {
            delivery["tries"] == tries + 1
        })
        .await;
        assert_eq!(shown["state"], "pending");
        // Not before its time.
        skip(Duration::from_secs_f64((step - 0.7).max(0.0))).await;
        sleep(Duration::from_millis(20)).await;
        assert_eq!(
            app.heard().len(),
            tries + 1,
            "too soon after {} tries",
            tries + 1
        );
        skip(Duration::from_secs_f64(step * 0.1 + 0.8)).await;
    }
    let heard = app.hears_no_more_than(9).await;
    assert!(
        heard
            .iter()
            .all(|post| post.id() == heard[0].id() && post.body == heard[0].body)
    );
    assert_eq!(delivered(&sidecar, "retry").await, 8);
    assert_eq!(delivered(&sidecar, "delivered").await, 1);
}

#[tokio::test]
async fn a_2xx_of_any_kind_is_success() {
    const RAW: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nand no more",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
        b"HTTP/1.0 201 Created\r\n\r\n<html>",
    ];
    let statuses = [200, 201, 202, 203, 204, 205, 206, 207, 226, 299];
    let app = App::new(move |post| {
        let number = usize::try_from(post.amount()).unwrap() - 1;
        statuses.get(number).map_or_else(
            || Say::Raw(RAW[number - 10]),
            |status| Say::Status(*status, "Retry-After: 9\r\n"),
        )
    })
    .await;
    let sidecar = app.sidecar(&[]);
    for number in 1..=13 {
        paid(&sidecar, number).await;
    }
    app.has_heard(13).await;
    sleep(Duration::from_millis(1300)).await;
    assert_eq!(app.heard().len(), 13, "each once");
    assert_eq!(delivered(&sidecar, "delivered").await, 13);
    assert_eq!(delivered(&sidecar, "retry").await, 0);
}

#[tokio::test]
async fn what_the_app_asks_for_only_lengthens_the_wait() {
    let asked: [(&'static str, f64); 9] = [
        ("Retry-After: 0\r\n", 1.0),
        ("Retry-After: 1\r\n", 1.0),
        ("Retry-After: 7\r\n", 7.0),
        ("Retry-After: 3600\r\n", 3600.0),
        ("Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", 1.0),
        ("Retry-After: soon\r\n", 1.0),
        ("Retry-After: -5\r\n", 1.0),
        ("Retry-After: 7.5\r\n", 1.0),
        ("Retry-After: \r\n", 1.0),
    ];
    for status in [503, 429, 302] {
        let app = App::new(move |post| {
            let number = usize::try_from(post.amount()).unwrap() - 1;
            if post.tries == 1 {
                Say::Status(status, asked[number].0)
            } else {
                OK
            }
        })
        .await;
        let sidecar = app.sidecar(&[]);
        for number in 1..=asked.len() {
            paid(&sidecar, number).await;
        }
        until("a failure of each", async || {
            (delivered(&sidecar, "retry").await > 8).then_some(())
        })
        .await;
        let first = app.heard();
        // All whose own second is over, and nobody else.
        skip(Duration::from_millis(1100)).await;
        assert_eq!(app.hears_no_more_than(9 + 7).await.len(), 16);
        skip(Duration::from_secs(5)).await;
        app.hears_no_more_than(16).await;
        skip(Duration::from_secs(1)).await;
        app.hears_no_more_than(17).await;
        skip(Duration::from_secs(3590)).await;
        let heard = app.hears_no_more_than(18).await;
        for post in &heard[9..] {
            let expected = asked[usize::try_from(post.amount()).unwrap() - 1].1;
            let before = first.iter().find(|first| first.id() == post.id()).unwrap();
            let apart = (post.at - before.at).as_secs_f64();
            assert!(
                (expected..expected + 5.0).contains(&apart),
                "{apart}: {post:?}"
            );
        }
    }
}

#[tokio::test]
async fn when_the_next_try_is_can_be_read() {
    let app = App::new(|_| Say::Status(503, "Retry-After: 3600\r\n")).await;
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    let post = app.has_heard(1).await.remove(0);
    let shown = delivery(&sidecar, post.id(), |delivery| delivery["tries"] == 1).await;
    let wait = seconds_between(&shown["created_at"], &shown["next_try_at"]);
    assert!((3599.0..3960.0).contains(&wait), "{wait}: {shown}");
}

#[tokio::test]
async fn a_restart_does_not_cut_short_what_the_app_asked_for() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|_| Say::Status(503, "Retry-After: 3600\r\n")).await;
    let store = format!("file:{}", app.directory.path().join("store").display());
    let (sidecar, api, _) = app.program(&gateway, &[("store.url", &store)]).await;
    let payment = start_at(api, r#"{"amount":1}"#).await;
    pay_at(&gateway, payment.text("code")).await;
    app.hears_no_more_than(1).await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let (_sidecar, _, _) = app.program(&gateway, &[("store.url", &store)]).await;
    app.hears_no_more_than(1).await;
}

#[tokio::test]
async fn an_app_that_asks_for_a_very_long_wait_loses_no_message() {
    for asked in [
        "Retry-After: 300000\r\n",
        "Retry-After: 99999999999999999999\r\n",
    ] {
        let app = App::new(move |_| Say::Status(503, asked)).await;
        let sidecar = app.sidecar(&[]);
        paid(&sidecar, 1).await;
        let post = app.has_heard(1).await.remove(0);
        let shown = delivery(&sidecar, post.id(), |delivery| delivery["tries"] == 1).await;
        assert_eq!(shown["state"], "pending", "{shown}");
    }
}

#[tokio::test]
async fn a_410_ends_that_message_and_no_other() {
    let app = App::new(|post| {
        if post.amount() == 2 {
            Say::Status(410, "Retry-After: 1\r\n")
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[]);
    for number in 1..=3 {
        paid(&sidecar, number).await;
    }
    let heard = app.has_heard(3).await;
    let gone = heard.iter().find(|post| post.amount() == 2).unwrap();
    let shown = delivery(&sidecar, gone.id(), |delivery| delivery["tries"] == 1).await;
    assert_eq!(
        (&shown["state"], &shown["next_try_at"]),
        (&"failed".into(), &Value::Null)
    );
    assert_eq!(shown["last_error"], "status 410");
    sleep(Duration::from_millis(1300)).await;
    assert_eq!(app.heard().len(), 3);
    assert_eq!(delivered(&sidecar, "gone").await, 1);
    assert_eq!(delivered(&sidecar, "delivered").await, 2);
    assert_eq!(pending(&sidecar).await, 0);
    paid(&sidecar, 4).await;
    app.has_heard(4).await;
    // Who asks for it gets it again.
    assert_eq!(redeliver(&sidecar, gone.id()).await.status, 200);
    let again = app.has_heard(5).await.pop().unwrap();
    assert_eq!((again.id(), &again.body), (gone.id(), &gone.body));
}

#[tokio::test]
async fn an_app_that_hangs_delays_neither_polls_nor_answers_nor_the_other_messages() {
    // As many as hang at once leave the rest a place.
    let app = App::new(|post| {
        if post.amount() <= 15 {
            Say::Nothing
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[]);
    for number in 1..=15 {
        paid(&sidecar, number).await;
    }
    app.has_heard(15).await;
    let began = Instant::now();
    let open = started(&sidecar, 100).await;
    for number in 16..=45 {
        paid(&sidecar, number).await;
    }
    app.has_heard(45).await;
    assert_eq!(sidecar.watch(&open.1).await.status, 200);
    let polls = sidecar.gateway_watches();
    until("more polls", async || {
        (sidecar.gateway_watches() > polls + 3).then_some(())
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(pending(&sidecar).await, 15);
}

#[tokio::test]
async fn an_app_that_is_dead_delays_neither_starts_nor_polls() {
    let app = App::new(|_| Say::Nothing).await;
    let sidecar = app.sidecar(&[]);
    for number in 1..=60 {
        paid(&sidecar, number).await;
    }
    app.hears_no_more_than(16).await;
    let (code, watch_code) = started(&sidecar, 100).await;
    sidecar.pay(&code);
    until("the payment is known as completed", async || {
        let payments = sidecar.api(get("/payments?limit=1")).await.json();
        (payments["payments"][0]["status"] == "completed").then_some(())
    })
    .await;
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    assert_eq!(pending(&sidecar).await, 61);
}

#[tokio::test]
async fn within_a_payment_the_second_message_comes_after_the_first_was_taken() {
    let app = App::new(|post| match (post.kind().as_str(), post.tries) {
        ("payment.polling_ended", 1) => Say::Status(500, "Retry-After: 4\r\n"),
        ("payment.polling_ended", _) => Say::Late(Duration::from_millis(200), 200),
        _ => OK,
    })
    .await;
    let sidecar = app.sidecar(&[("watch.give_up_after", "300ms"), ("watch.fresh_for", "1ms")]);
    let (code, watch_code) = started(&sidecar, 1).await;
    let ended = app.has_heard(1).await.remove(0);
    assert_eq!(ended.kind(), "payment.polling_ended");
    app.assert_signed(&ended);
    let data = &ended.json()["data"];
    assert_eq!(
        (&data["status"], &data["completed_at"]),
        (&"created".into(), &Value::Null),
        "no status is invented"
    );
    assert_eq!(
        (&data["code"], &data["watch_code"]),
        (&code.as_str().into(), &watch_code.as_str().into())
    );
    let mut fields: Vec<_> = data.as_object().unwrap().keys().collect();
    fields.sort_unstable();
    assert_eq!(fields, FIELDS);
    // Nobody polls it any more, and who asks gets the truth.
    assert_eq!(sidecar.followed(), 0);
    sidecar.pay(&code);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(app.heard().len(), 1);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    let listed = deliveries(&sidecar).await;
    let kinds: Vec<_> = listed
        .iter()
        .map(|delivery| delivery["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["payment.completed", "payment.polling_ended"]);
    assert!(listed.iter().all(|delivery| delivery["state"] == "pending"));
    assert_eq!(pending(&sidecar).await, 2);
    let heard = app.hears_no_more_than(3).await;
    let kinds: Vec<_> = heard.iter().map(Post::kind).collect();
    assert_eq!(
        kinds,
        [
            "payment.polling_ended",
            "payment.polling_ended",
            "payment.completed"
        ]
    );
    assert!(
        heard[2].at - heard[1].at >= Duration::from_millis(200),
        "the first was not taken yet"
    );
    assert_ne!(heard[2].id(), heard[0].id());
    assert_eq!(heard[2].json()["data"]["status"], "completed");
}

#[tokio::test]
async fn a_410_for_the_first_message_of_a_payment_lets_the_second_through() {
    let app = App::new(|post| {
        if post.kind() == "payment.polling_ended" {
            Say::Status(410, "")
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[("watch.give_up_after", "100ms"), ("watch.fresh_for", "1ms")]);
    let (code, watch_code) = started(&sidecar, 1).await;
    app.has_heard(1).await;
    sidecar.pay(&code);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    let heard = app.hears_no_more_than(2).await;
    assert_eq!(heard[1].kind(), "payment.completed");
}

#[tokio::test]
async fn the_end_of_polling_is_told_once_whoever_asks_and_waits_afterwards() {
    polling_ended_once(|_| "memory:".to_owned()).await;
}

#[tokio::test]
async fn the_end_of_polling_is_told_once_also_where_writing_it_down_takes_a_while() {
    polling_ended_once(|app| format!("file:{}", app.directory.path().join("store").display()))
        .await;
}

async fn polling_ended_once(store: fn(&App) -> String) {
    let app = App::new(|_| OK).await;
    let store = &*store(&app);
    let sidecar = app.sidecar(&[
        ("watch.give_up_after", "400ms"),
        ("watch.fresh_for", "1ms"),
        ("watch.max_wait", "1s"),
        ("store.url", store),
    ]);
    let mut codes = Vec::new();
    for number in 1..=20 {
        codes.push(started(&sidecar, number).await.1);
    }
    // Those who wait come and go in the very moment too.
    let asked = codes.iter().map(|code| {
        let sidecar = &sidecar;
        async move {
            for _ in 0..150 {
                let path = format!("/watch/{code}?wait=1");
                let _ =
                    tokio::time::timeout(Duration::from_millis(5), sidecar.api(get(&path))).await;
            }
        }
    });
    join_all(asked).await;
    app.has_heard(20).await;
    sleep(Duration::from_millis(300)).await;
    let heard = app.heard();
    let of: HashSet<_> = heard.iter().map(Post::amount).collect();
    assert!(
        heard.len() == 20 && of.len() == 20,
        "{store}: {} posts of {} payments",
        heard.len(),
        of.len()
    );
    assert!(
        heard
            .iter()
            .all(|post| post.json()["data"]["status"] == "created")
    );
}

#[tokio::test]
async fn a_payment_that_the_gateway_never_told_about_is_shown_with_what_is_known() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[("watch.give_up_after", "300ms")]);
    sidecar.faults(&["watch:status=500"]);
    let (code, watch_code) = started(&sidecar, 9).await;
    let post = app.has_heard(1).await.remove(0);
    let expected = json!({
        "status": "created", "amount": 9, "merchant": null, "created_at": null, "completed_at": null,
        "code": code, "watch_code": watch_code,
    });
    assert_eq!(
        (post.kind().as_str(), &post.json()["data"]),
        ("payment.polling_ended", &expected)
    );
}

#[tokio::test]
async fn only_completed_is_completed_and_it_is_told_once() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[("watch.fresh_for", "1ms")]);
    sidecar.faults(&["watch:unknown-status"]);
    let (code, watch_code) = started(&sidecar, 1).await;
    sidecar.pay(&code);
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "on_hold");
    let polls = sidecar.gateway_watches();
    until("more polls", async || {
        (sidecar.gateway_watches() > polls + 3).then_some(())
    })
    .await;
    assert!(app.heard().is_empty(), "{:?}", app.heard());
    for fault in [
        "watch:reopen",
        "watch:not-json",
        "watch:status=404",
        "watch:missing-field",
    ] {
        sidecar.faults(&[fault]);
        sleep(Duration::from_millis(60)).await;
        assert!(app.heard().is_empty(), "{fault}: {:?}", app.heard());
    }
    sidecar.faults(&[]);
    assert_eq!(
        app.has_heard(1).await[0].json()["data"]["status"],
        "completed"
    );
    sidecar.faults(&["watch:reopen"]);
    for _ in 0..5 {
        assert_eq!(
            sidecar
                .watch_with(&watch_code, "cache-control", "no-cache")
                .await
                .text("status"),
            "completed"
        );
    }
    app.hears_no_more_than(1).await;
}

#[tokio::test]
async fn who_finds_it_out_makes_no_difference() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[("watch.fresh_for", "1ms")]);
    let mut codes = Vec::new();
    for number in 1..=20 {
        codes.push(paid(&sidecar, number).await.1);
    }
    // Callers, long-polls and the background at the same moment.
    let asked = codes.iter().map(|code| {
        let sidecar = &sidecar;
        async move {
            let paths = [format!("/watch/{code}"), format!("/watch/{code}?wait=1")];
            join_all(paths.iter().map(|path| sidecar.api(get(path)))).await
        }
    });
    join_all(asked).await;
    let heard = app.hears_no_more_than(20).await;
    assert_eq!(
        heard.iter().map(Post::amount).collect::<HashSet<_>>().len(),
        20
    );
}

#[tokio::test]
async fn nothing_is_posted_about_a_payment_that_was_only_asked_for() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|_| OK).await;
    let (_sidecar, api, _) = app.program(&gateway, &[]).await;
    let body = format!("{{\"merchant_secret\":\"{DEFAULT_SECRET}\",\"amount\":5}}");
    let json = [("content-type", "application/json")];
    let foreign = call(
        address_of(&gateway),
        Method::POST,
        "/api/start_payment",
        &json,
        &body,
    )
    .await;
    let path = format!("/watch/{}", foreign.text("watch_code"));
    assert_eq!(get_at(api, &path).await.text("status"), "created");
    pay_at(&gateway, foreign.text("code")).await;
    until("completed", async || {
        (get_at(api, &path).await.text("status") == "completed").then_some(())
    })
    .await;
    let own = start_at(api, r#"{"amount":6}"#).await;
    pay_at(&gateway, own.text("code")).await;
    let heard = app.hears_no_more_than(1).await;
    assert_eq!(heard[0].amount(), 6);
}

#[tokio::test]
async fn a_secret_in_the_gateways_answer_reaches_no_webhook() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    sidecar.faults(&["watch:echo-secret"]);
    paid(&sidecar, 1).await;
    let post = app.has_heard(1).await.remove(0);
    assert!(!post.body.contains(DEFAULT_SECRET), "{post:?}");
    assert_eq!(post.json()["data"]["note"], "Asked on behalf of [redacted]");
    app.assert_signed(&post);
}

#[tokio::test]
async fn deliveries_are_listed_the_newest_first_page_by_page() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    assert_eq!(
        page(&sidecar, "").await,
        json!({ "deliveries": [], "next": null })
    );
    for number in 1..=5 {
        paid(&sidecar, number).await;
        app.has_heard(number).await;
    }
    until("all", async || {
        (delivered(&sidecar, "delivered").await > 4).then_some(())
    })
    .await;
    let all = deliveries(&sidecar).await;
    let ids: Vec<_> = all
        .iter()
        .map(|delivery| delivery["id"].as_str().unwrap().to_owned())
        .collect();
    let mut heard: Vec<_> = app
        .heard()
        .iter()
        .map(|post| post.id().to_owned())
        .collect();
    heard.reverse();
    assert_eq!(ids, heard);
    for delivery in &all {
        let mut fields: Vec<_> = delivery.as_object().unwrap().keys().collect();
        fields.sort_unstable();
        assert_eq!(
            fields,
            [
                "code",
                "created_at",
                "id",
                "last_error",
                "next_try_at",
                "state",
                "tries",
                "type",
                "watch_code"
            ]
        );
        time(&delivery["created_at"]);
        assert!(delivery["id"].as_str().unwrap().starts_with("msg_"));
    }
    for limit in [1, 2, 3, 4, 5, 6] {
        let (mut seen, mut query) = (Vec::new(), format!("?limit={limit}"));
        loop {
            let page = page(&sidecar, &query).await;
            let deliveries = page["deliveries"].as_array().unwrap();
            assert!(!deliveries.is_empty() && deliveries.len() <= limit);
            seen.extend(
                deliveries
                    .iter()
                    .map(|delivery| delivery["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else {
                break;
            };
            query = format!("?after={next}&limit={limit}");
        }
        assert_eq!(seen, ids, "{limit}");
    }
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=1&limit=1",
        "after=0",
        "after=x",
        "status=created",
        "x=1",
    ] {
        let answer = sidecar.api(get(&format!("/deliveries?{bad}"))).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (400, "invalid_query"),
            "{bad}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn deliveries_are_for_those_who_may_list() {
    let app = App::new(|_| OK).await;
    let (url, file) = (app.url(), app.key_file());
    let own = [
        ("webhook.url", &*url),
        ("webhook.secret_file", file.to_str().unwrap()),
    ];
    let sidecar = Sidecar::with(&[&FAST, &own[..]].concat());
    paid(&sidecar, 1).await;
    let post = app.has_heard(1).await.remove(0);
    assert_eq!(
        sidecar.api(get("/deliveries")).await.text("error"),
        "token_required"
    );
    for id in [post.id(), "msg_nobody"] {
        let answer = redeliver(&sidecar, id).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (403, "token_required"),
            "{answer:?}"
        );
        assert!(answer.text("detail").contains("token_file"), "{answer:?}");
        assert!(answer.json()["outcome"].is_null());
    }
    app.hears_no_more_than(1).await;

    let tokens = app.directory.path().join("tokens");
    fs::write(&tokens, "a-token-of-32-characters-or-more!!\n").unwrap();
    let sidecar = Sidecar::with(
        &[
            &FAST,
            &own[..],
            &[("listen.token_file", tokens.to_str().unwrap())],
        ]
        .concat(),
    );
    for (token, status) in [
        (None, 401),
        (Some("Bearer wrong"), 401),
        (Some("Bearer a-token-of-32-characters-or-more!!"), 200),
    ] {
        let mut request = get("/deliveries");
        if let Some(token) = token {
            request
                .headers_mut()
                .insert("authorization", token.parse().unwrap());
        }
        assert_eq!(sidecar.api(request).await.status, status, "{token:?}");
    }
}

#[tokio::test]
async fn without_webhooks_there_are_no_deliveries() {
    let sidecar = Sidecar::dev(&FAST);
    let (_, watch_code) = paid(&sidecar, 1).await;
    assert_eq!(sidecar.watch(&watch_code).await.text("status"), "completed");
    assert_eq!(
        page(&sidecar, "").await,
        json!({ "deliveries": [], "next": null })
    );
    assert_eq!(redeliver(&sidecar, "msg_x").await.status, 404);
}

#[tokio::test]
async fn what_was_delivered_can_be_posted_again() {
    let app = App::new(|post| {
        if post.tries == 2 {
            Say::Status(500, "")
        } else {
            OK
        }
    })
    .await;
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    paid(&sidecar, 2).await;
    let heard = app.has_heard(2).await;
    let first = &heard[0];
    delivery(&sidecar, first.id(), |delivery| {
        delivery["state"] == "delivered"
    })
    .await;
    let answer = redeliver(&sidecar, first.id()).await;
    assert_eq!(
        (answer.status, answer.text("id"), answer.text("state")),
        (200, first.id(), "pending"),
        "{answer:?}"
    );
    // This try fails, and is followed by another by itself.
    let again = app.hears_no_more_than(3).await.pop().unwrap();
    let shown = delivery(&sidecar, first.id(), |delivery| delivery["tries"] == 2).await;
    assert_eq!(
        (&shown["state"], &shown["last_error"]),
        (&"pending".into(), &"status 500".into())
    );
    // While it waits it can be posted at once.
    assert_eq!(redeliver(&sidecar, first.id()).await.status, 200);
    let last = app.hears_no_more_than(4).await.pop().unwrap();
    for post in [&again, &last] {
        assert_eq!((post.id(), &post.body), (first.id(), &first.body));
        app.assert_signed(post);
    }
    let shown = delivery(&sidecar, first.id(), |delivery| {
        delivery["state"] == "delivered"
    })
    .await;
    assert_eq!(shown["tries"], 4 - 1);

    for unknown in [
        "msg_nobody",
        "",
        "1",
        "%2e",
        "..",
        first.id().to_lowercase().as_str(),
    ] {
        let answer = redeliver(&sidecar, unknown).await;
        assert_eq!(
            (answer.status, answer.text("error")),
            (404, "not_found"),
            "{unknown}: {answer:?}"
        );
    }
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        let mut request = empty_post(&format!("/deliveries/{}/redeliver", first.id()));
        *request.method_mut() = method.parse().unwrap();
        let answer = sidecar.api(request).await;
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "POST"),
            "{method}: {answer:?}"
        );
    }
    let answer = sidecar.api(empty_post("/deliveries")).await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, "GET"),
        "{answer:?}"
    );
    assert_eq!(app.heard().len(), 4);
}

#[tokio::test]
async fn a_storm_of_redeliveries_ends_and_every_post_is_counted() {
    storm(|_| "memory:".to_owned()).await;
}

#[tokio::test]
async fn a_storm_of_redeliveries_ends_and_every_post_is_counted_also_with_a_file() {
    storm(|app| format!("file:{}", app.directory.path().join("store").display())).await;
}

async fn storm(store: fn(&App) -> String) {
    let app = App::new(|post| {
        if post.tries % 3 == 1 {
            Say::Status(500, "")
        } else {
            Say::Late(Duration::from_millis(20), 200)
        }
    })
    .await;
    let store = &*store(&app);
    let sidecar = app.sidecar(&[("store.url", store)]);
    for number in 1..=20 {
        paid(&sidecar, number).await;
    }
    let heard = app.has_heard(20).await;
    let ids: HashSet<_> = heard.iter().map(|post| post.id().to_owned()).collect();
    for _ in 0..20 {
        for answer in join_all(ids.iter().map(|id| redeliver(&sidecar, id))).await {
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        sleep(Duration::from_millis(5)).await;
    }
    until("everything delivered", async || {
        let all = deliveries(&sidecar).await;
        let mut is_pending = false;
        for delivery in all.iter().filter(|delivery| delivery["state"] == "pending") {
            is_pending = true;
            redeliver(&sidecar, delivery["id"].as_str().unwrap()).await;
        }
        sleep(Duration::from_millis(50)).await;
        (!is_pending).then_some(())
    })
    .await;
    assert_eq!(pending(&sidecar).await, 0);
    assert!(app.shared.most_at_once.load(Ordering::SeqCst) <= 16);
    let heard = app.heard();
    let mut bodies = HashMap::new();
    for post in &heard {
        assert_eq!(bodies.entry(post.id()).or_insert(&post.body), &&post.body);
        app.assert_signed(post);
    }
    assert_eq!(bodies.len(), 20);
    let tries: u64 = deliveries(&sidecar)
        .await
        .iter()
        .map(|delivery| delivery["tries"].as_u64().unwrap())
        .sum();
    assert_eq!(tries, heard.len() as u64, "{store}: every post is counted");
    let sum = delivered(&sidecar, "delivered").await + delivered(&sidecar, "retry").await;
    assert_eq!(sum as usize, heard.len());
}

#[tokio::test]
async fn hundreds_at_once_go_to_a_slow_app_sixteen_at_a_time_and_each_once() {
    let app = App::new(|_| Say::Late(Duration::from_millis(200), 200)).await;
    let sidecar = app.sidecar(&[]);
    let mut codes = Vec::new();
    for number in 1..=320 {
        codes.push(started(&sidecar, number).await.0);
    }
    let began = Instant::now();
    codes.iter().for_each(|code| sidecar.pay(code));
    app.has_heard(320).await;
    until("all", async || {
        (delivered(&sidecar, "delivered").await > 319).then_some(())
    })
    .await;
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(9)).contains(&took),
        "{took:?}"
    );
    assert_eq!(app.shared.most_at_once.load(Ordering::SeqCst), 16);
    let heard = app.hears_no_more_than(320).await;
    assert_eq!(
        heard.iter().map(Post::amount).collect::<HashSet<_>>().len(),
        320
    );
    assert_eq!(
        heard.iter().map(Post::id).collect::<HashSet<_>>().len(),
        320
    );
    assert_eq!(pending(&sidecar).await, 0);
}

#[tokio::test]
async fn a_keyed_start_that_is_replayed_is_told_once() {
    let app = App::new(|_| OK).await;
    let sidecar = app.sidecar(&[]);
    let ask = || {
        let mut request = crate::harness::post("/api/start_payment", r#"{"amount":1}"#);
        request
            .headers_mut()
            .insert("idempotency-key", "order-1".parse().unwrap());
        sidecar.api(request)
    };
    let first = ask().await;
    ask().await;
    sidecar.pay(first.text("code"));
    app.has_heard(1).await;
    assert_eq!(ask().await.body, first.body);
    app.hears_no_more_than(1).await;
}

#[tokio::test]
async fn what_is_wrong_with_the_settings_is_told_and_never_quoted() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write("good", text_of(&key(1)).as_bytes());
    let faults = |url: &str, file: &str| {
        let settings: Vec<_> = [("webhook.url", url), ("webhook.secret_file", file)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        tillgate::app::Sidecar::new(&settings, Options::default(), false)
            .err()
            .unwrap_or_default()
            .join("\n")
    };
    let there = "http://127.0.0.1:9/hook";
    assert_eq!(faults(there, &good), "");
    assert_eq!(faults("https://shop.example", &good), "");
    let told = faults(there, "");
    assert!(
        told.starts_with("webhook.secret_file: ") && told.contains("webhook.url"),
        "{told}"
    );
    let told = faults("", &good);
    assert!(
        told.starts_with("webhook.secret_file: ") && told.contains("webhook.url"),
        "{told}"
    );
    for url in [
        "nowhere",
        "/hook",
        "//shop.example/hook",
        "ftp://shop.example/hook",
        "file:///etc/passwd",
        "unix:/run/app.sock",
        "http://",
        "http://user@shop.example/",
        "http://:hunter2@shop.example/",
        "http://user:hunter2@shop.example/",
        "http://hunter2@shop.example:99999/",
    ] {
        let told = faults(url, &good);
        assert!(told.contains("webhook.url: "), "{url}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    let short = format!("whsec_{}", STANDARD.encode([1; 23]));
    let long = format!("whsec_{}", STANDARD.encode([1; 65]));
    for (number, (text, why)) in [
        ("", "no key"),
        ("\n\n", "no key"),
        (&*short, "line 1"),
        (&*long, "line 1"),
        ("whsec_", "line 1"),
        ("whsec_hunter2!hunter2!hunter2!hunter2!hunter2!", "line 1"),
        ("hunter2hunter2hunter2hunter2hunter2hunter2", "line 1"),
        (&*format!("{}\nhunter2", text_of(&key(1))), "line 2"),
        (&*format!(" {}", text_of(&key(1))), "line 1"),
        (&*format!("{} ", text_of(&key(1))), "line 1"),
        (&*text_of(&key(1)).to_uppercase(), "line 1"),
    ]
    .into_iter()
    .enumerate()
    {
        let told = faults(there, &write(&number.to_string(), text.as_bytes()));
        assert!(
            told.starts_with("webhook.secret_file: ") && told.contains(why),
            "{text:?}: {told}"
        );
        assert!(
            !told.contains("hunter2") && !told.contains("AQEB"),
            "{told}"
        );
    }
    let told = faults(there, directory.path().join("missing").to_str().unwrap());
    assert!(
        told.contains("webhook.secret_file: ") && told.contains("missing"),
        "{told}"
    );
    let told = faults(there, directory.path().to_str().unwrap());
    assert!(told.starts_with("webhook.secret_file: "), "{told}");
    // All at once.
    let told = faults("ftp://x", &write("bad", b"bad"));
    assert!(told.contains("webhook.url: "), "{told}");
}

#[tokio::test]
async fn a_bad_url_is_one_fault() {
    let app = App::new(|_| OK).await;
    let file = app.key_file();
    let settings = [
        ("webhook.url", "nowhere"),
        ("webhook.secret_file", file.to_str().unwrap()),
    ];
    let faults = tillgate::app::Sidecar::new(&settings, Options::default(), false)
        .err()
        .unwrap();
    assert!(
        faults.len() == 1 && faults[0].starts_with("webhook.url: "),
        "{faults:#?}"
    );
}

#[tokio::test]
async fn check_says_what_webhooks_without_a_durable_store_mean() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    fs::write(&file, text_of(&key(1))).unwrap();
    let mut variables = vec![
        ("gateway.url", "http://127.0.0.1:9"),
        ("merchant.secret", "a_secret_of_this_test_only"),
        ("webhook.url", "http://127.0.0.1:9/hook"),
        ("webhook.secret_file", file.to_str().unwrap()),
    ];
    let (code, out, err) = run(&["check"], &variables).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("note: webhooks without a durable store"),
        "{out}"
    );
    assert!(
        !out.contains("whsec_") && !out.contains(&STANDARD.encode(key(1))),
        "{out}"
    );
    let store = format!("file:{}", directory.path().join("store").display());
    variables.push(("store.url", &store));
    let (code, out, _) = run(&["check"], &variables).await;
    assert!(
        code == 0 && !out.contains("without a durable store"),
        "{out}"
    );
    variables.retain(|(name, _)| *name != "webhook.secret_file");
    let (code, _, err) = run(&["check"], &variables).await;
    assert_eq!(code, 2, "{err}");
    assert!(
        err.contains("webhook.secret_file") && err.contains("tillgate webhook-secret"),
        "{err}"
    );
    variables.retain(|(name, _)| !name.starts_with("webhook."));
    variables.push(("webhook.url", "http://bob:hunter2@127.0.0.1/"));
    let (code, out, err) = run(&["check"], &variables).await;
    assert!(
        code == 2 && err.contains("webhook.url") && !(out + &err).contains("hunter2"),
        "{err}"
    );
}

#[tokio::test]
async fn a_fresh_key_is_one_line_that_can_be_used_and_no_two_are_the_same() {
    let mut keys = HashSet::new();
    for _ in 0..3 {
        let (code, out, err) = run(&["webhook-secret"], &[]).await;
        assert_eq!((code, err.as_str()), (0, ""));
        let line = out.strip_suffix('\n').unwrap();
        let bytes = STANDARD
            .decode(line.strip_prefix("whsec_").unwrap())
            .unwrap();
        assert!((24..=64).contains(&bytes.len()), "{line}");
        assert!(keys.insert(bytes));
    }
    let app = App::new(|_| OK).await;
    let lines: Vec<_> = keys.iter().map(|key| text_of(key)).collect();
    fs::write(app.key_file(), lines.join("\n")).unwrap();
    paid(&app.sidecar(&[]), 1).await;
}

#[tokio::test]
async fn deliveries_can_be_listed_and_posted_again_from_the_command_line() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|post| {
        if post.amount() == 2 {
            Say::Status(410, "")
        } else {
            OK
        }
    })
    .await;
    let tokens = app.directory.path().join("tokens");
    fs::write(
        &tokens,
        "a-token-of-32-characters-or-more!!\nanother-token-of-32-characters-or-so\n",
    )
    .unwrap();
    let tokens = tokens.to_str().unwrap();
    let (sidecar, api, _) = app
        .program(&gateway, &[("listen.token_file", tokens)])
        .await;
    let address = api.to_string();
    let with_token = [("listen.address", &*address), ("listen.token_file", tokens)];
    for arguments in [&["deliveries"][..], &["deliveries", "list"]] {
        let (code, out, err) = run(arguments, &with_token).await;
        assert_eq!((code, out.trim(), err.as_str()), (0, "there are none", ""));
    }
    let mut ids = Vec::new();
    for amount in 1..=3 {
        let headers = [
            ("content-type", "application/json"),
            ("authorization", "Bearer a-token-of-32-characters-or-more!!"),
        ];
        let body = format!("{{\"amount\":{amount}}}");
        let payment = call(api, Method::POST, "/api/start_payment", &headers, &body).await;
        pay_at(&gateway, payment.text("code")).await;
        ids.push(app.has_heard(amount).await[amount - 1].id().to_owned());
    }
    let (code, out, err) = run(&["deliveries", "list"], &with_token).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    for (line, id) in lines.iter().zip(ids.iter().rev()) {
        assert!(
            line.starts_with(id.as_str()) && line.contains("payment.completed"),
            "{out}"
        );
    }
    assert!(
        lines[1].contains("failed") && lines[1].contains("status 410"),
        "{out}"
    );
    assert!(
        lines[0].contains("delivered") && !out.contains("whsec_"),
        "{out}"
    );
    assert_eq!(run(&["deliveries"], &with_token).await.1, out);

    let (code, out, err) = run(&["deliveries", "redeliver", &ids[1]], &with_token).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with(&ids[1]), "{out}");
    assert_eq!(app.hears_no_more_than(4).await[3].id(), ids[1]);
    let (code, out, err) = run(&["deliveries", "redeliver", "msg_nobody"], &with_token).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("no delivery of that id"), "{err}");
    for odd in ["a b", "../x", "é", "x?y"] {
        let (code, out, err) = run(&["deliveries", "redeliver", odd], &with_token).await;
        assert_eq!((code, out.as_str()), (1, ""), "{odd}: {err}");
        assert!(!err.is_empty() && !err.contains("panicked"), "{odd}: {err}");
    }
    let (code, _, err) = run(&["deliveries", "redeliver"], &with_token).await;
    assert_eq!(code, 2, "{err}");

    // With another configuration than the sidecar's.
    let (code, out, err) = run(&["deliveries"], &with_token[..1]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(
        err.starts_with("tillgate: ") && err.contains("oken"),
        "{err}"
    );
    let missing = app.directory.path().join("missing");
    let with_missing = [
        with_token[0],
        ("listen.token_file", missing.to_str().unwrap()),
    ];
    let (code, _, err) = run(&["deliveries"], &with_missing).await;
    assert!(code == 2 && err.contains("listen.token_file"), "{err}");
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    for arguments in [
        &["deliveries", "list"][..],
        &["deliveries", "redeliver", &ids[0]],
    ] {
        let (code, out, err) = run(arguments, &with_token).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(
            err.contains("is tillgate running")
                && err.contains(&address)
                && err.lines().count() == 1,
            "{err}"
        );
    }
}

#[tokio::test]
async fn without_a_token_file_the_command_line_says_what_is_missing() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|_| OK).await;
    let (_sidecar, api, _) = app.program(&gateway, &[]).await;
    let address = api.to_string();
    for arguments in [&["deliveries"][..], &["deliveries", "redeliver", "msg_x"]] {
        let (code, out, err) = run(arguments, &[("listen.address", &address)]).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains("listen.token_file"), "{err}");
    }
}

#[tokio::test]
async fn the_key_is_in_no_log_no_page_and_no_list() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|post| {
        if post.tries == 1 {
            Say::Status(500, "")
        } else {
            OK
        }
    })
    .await;
    let (sidecar, api, admin) = app
        .program(
            &gateway,
            &[("log.level", "trace"), ("listen.drain_timeout", "2s")],
        )
        .await;
    let payment = start_at(api, r#"{"amount":1}"#).await;
    pay_at(&gateway, payment.text("code")).await;
    let heard = app.has_heard(2).await;
    fs::write(
        app.key_file(),
        text_of(&key(1)) + "\nwhsec_" + &"x".repeat(41),
    )
    .unwrap();
    sidecar.signal("HUP");
    until("what is bad is counted", async || {
        let failures = metric_at(admin, "tillgate_webhook_key_reload_failures_total").await;
        (failures == 1).then_some(())
    })
    .await;
    let mut told = String::new();
    for path in ["/metrics", "/status", "/", "/readyz?verbose"] {
        let page = get_at(admin, path).await.body;
        assert!(
            !page.contains(payment.text("code")) && !page.contains(payment.text("watch_code")),
            "{path}"
        );
        assert!(!page.contains(heard[0].id()), "{path}");
        told.push_str(&page);
    }
    sidecar.signal("TERM");
    let (code, out, log) = sidecar.end().await;
    assert_eq!(code, 0);
    told.push_str(&(out + &log));
    assert!(
        log.contains("webhook delivered") && log.contains("webhook not delivered"),
        "{log}"
    );
    for part in [
        &STANDARD.encode(key(1)),
        &STANDARD.encode(key(1))[..20],
        "xxxxxxxx",
    ] {
        assert!(!told.contains(part), "{part}");
    }
    let hex: String = key(1).iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!told.contains(&hex) && !told.contains(&format!("{:?}", key(1))));
}

#[tokio::test]
async fn a_post_that_hangs_holds_the_end_up_for_the_drain_timeout_at_most() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    // What takes its time is waited for, and nothing else is begun.
    for (timeout, drain, least, most) in [("60s", "700ms", 600, 2500), ("700ms", "60s", 0, 2500)] {
        let app = App::new(|_| Say::Nothing).await;
        let settings = [
            ("webhook.timeout", timeout),
            ("listen.drain_timeout", drain),
        ];
        let (sidecar, api, _) = app.program(&gateway, &settings).await;
        let payment = start_at(api, r#"{"amount":1}"#).await;
        pay_at(&gateway, payment.text("code")).await;
        app.has_heard(1).await;
        let began = Instant::now();
        sidecar.signal("TERM");
        let (code, _, log) = sidecar.end().await;
        let took = began.elapsed().as_millis();
        assert_eq!(code, 0, "{log}");
        assert!((least..most).contains(&took), "{took}: {log}");
        assert_eq!(
            log.contains("drain_timeout is over"),
            drain == "700ms",
            "{log}"
        );
        assert_eq!(app.heard().len(), 1);
    }
}

#[tokio::test]
async fn what_the_app_did_not_take_before_the_end_it_is_told_after_the_next_start() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|post| match post.amount() {
        1 if post.tries == 1 => Say::Nothing,
        2 if post.tries == 1 => Say::Status(503, "Retry-After: 2\r\n"),
        4 => Say::Status(410, ""),
        _ => OK,
    })
    .await;
    let store = format!("file:{}", app.directory.path().join("store").display());
    let settings = [("store.url", &*store), ("listen.drain_timeout", "1s")];
    let (sidecar, api, _) = app.program(&gateway, &settings).await;
    let mut codes = Vec::new();
    for amount in 1..=5 {
        codes.push(
            start_at(api, &format!("{{\"amount\":{amount}}}"))
                .await
                .text("code")
                .to_owned(),
        );
    }
    // 1 hangs, 2 is to come again, 3 is taken, 4 is not wanted; 5 is paid while it ends.
    for (number, code) in codes[..4].iter().enumerate() {
        pay_at(&gateway, code).await;
        app.has_heard(number + 1).await;
    }
    sleep(Duration::from_millis(100)).await;
    sidecar.signal("TERM");
    pay_at(&gateway, &codes[4]).await;
    assert_eq!(sidecar.end().await.0, 0);
    let before = app.heard();
    let (_sidecar, _, _) = app.program(&gateway, &settings).await;
    let left = if before.iter().any(|post| post.amount() == 5) {
        2
    } else {
        3
    };
    let heard = app.hears_no_more_than(before.len() + left).await;
    for amount in [1, 2] {
        let posts: Vec<_> = heard
            .iter()
            .filter(|post| post.amount() == amount)
            .collect();
        let [first, second] = posts[..] else {
            panic!("{amount}: {heard:#?}")
        };
        assert_eq!((first.id(), &first.body), (second.id(), &second.body));
        app.assert_signed(second);
    }
    for (amount, times) in [(3, 1), (4, 1), (5, 1)] {
        assert_eq!(
            heard.iter().filter(|post| post.amount() == amount).count(),
            times,
            "{amount}: {heard:#?}"
        );
    }
}

#[tokio::test]
async fn completions_that_come_while_it_ends_are_told_now_or_after_the_next_start() {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let app = App::new(|_| Say::Late(Duration::from_millis(50), 200)).await;
    let store = format!("file:{}", app.directory.path().join("store").display());
    let settings = [
        ("store.url", &*store),
        ("watch.poll_rate", "1000"),
        ("start.burst", "1000"),
    ];
    let (sidecar, api, _) = app.program(&gateway, &settings).await;
    let mut codes = Vec::new();
    for amount in 1..=60 {
        codes.push(
            start_at(api, &format!("{{\"amount\":{amount}}}"))
                .await
                .text("code")
                .to_owned(),
        );
    }
    // Something that keeps it from ending at once.
    set_faults(&gateway, &["start:delay=700ms"]).await;
    let last = tokio::spawn(async move { start_at(api, r#"{"amount":61}"#).await });
    sleep(Duration::from_millis(150)).await;
    for (number, code) in codes.iter().enumerate() {
        pay_at(&gateway, code).await;
        if number == 20 {
            sidecar.signal("TERM");
        }
    }
    assert_eq!(last.await.unwrap().status, 200);
    let (code, _, log) = sidecar.end().await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("everything is finished"), "{log}");
    set_faults(&gateway, &[]).await;
    let (_sidecar, _, _) = app.program(&gateway, &settings).await;
    let told = || app.heard().iter().map(Post::amount).collect::<HashSet<_>>();
    until("all are told", async || (told().len() >= 60).then_some(())).await;
    let heard = app.heard();
    let mut ids: HashMap<u64, &str> = HashMap::new();
    for post in &heard {
        assert_eq!(
            *ids.entry(post.amount()).or_insert(post.id()),
            post.id(),
            "one id a payment"
        );
    }
    // What was answered with 200 before the end was written down, so it does not come again.
    assert_eq!(
        heard.len(),
        60,
        "{:?}",
        heard.iter().map(Post::amount).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_drain_in_process_lets_the_posts_go_on() {
    let app = App::new(|_| Say::Late(Duration::from_millis(100), 200)).await;
    let sidecar = app.sidecar(&[]);
    paid(&sidecar, 1).await;
    app.has_heard(1).await;
    sidecar.drain();
    settles(|| true).await;
    sidecar.idle().await;
    assert_eq!(delivered(&sidecar, "delivered").await, 1);
}

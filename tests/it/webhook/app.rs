//! The merchant's app, as far as webhooks go: what it does with a request is a script, and what it has got can be asked.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};
use socket2::SockRef;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::FAST;
use crate::harness::{Program, Sidecar, until};

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
    pub line: String,
    pub headers: HeaderMap,
    pub body: String,
    pub at: Instant,
    /// Which try this is of its id, from 1.
    pub tries: usize,
}

impl Post {
    pub fn header(&self, name: &str) -> &str {
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

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    pub fn amount(&self) -> u64 {
        self.json()["data"]["amount"].as_u64().unwrap()
    }

    pub fn timestamp(&self) -> u64 {
        self.header("webhook-timestamp").parse().unwrap()
    }
}

pub type Script = dyn Fn(&Post) -> Say + Send + Sync;

/// The merchant's app, as far as webhooks go.
pub struct App {
    pub address: SocketAddr,
    pub shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// Its keys, as the bytes that they are.
    pub keys: Vec<Vec<u8>>,
    pub directory: TempDir,
}

pub struct Shared {
    script: Box<Script>,
    heard: Mutex<Vec<Post>>,
    at_once: AtomicUsize,
    pub most_at_once: AtomicUsize,
}

/// The same bytes for the same number.
pub fn key(number: u8) -> Vec<u8> {
    Sha256::digest([number]).to_vec()
}

pub fn text_of(key: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(key))
}

impl App {
    /// An app that does this with what it gets.
    pub async fn new(script: impl Fn(&Post) -> Say + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", script).await
    }

    pub async fn at(address: &str, script: impl Fn(&Post) -> Say + Send + Sync + 'static) -> Self {
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

    pub fn key_file(&self) -> PathBuf {
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
    pub fn assert_signed(&self, post: &Post) {
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

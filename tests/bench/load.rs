//! A cheap load: raw sockets, the same bytes again and again, and a reader that knows just enough of HTTP.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections at once; each sends its next request when it has the answer to the last.
pub(crate) const CONNECTIONS: usize = 32;

/// Every request shows it; only the sidecar that lists codes asks for it.
pub(crate) const TOKEN: &str = "a-token-of-the-bench";

pub(crate) fn get(path: &str) -> Vec<u8> {
    get_with(path, "")
}

/// `headers` end in a line end, each.
pub(crate) fn get_with(path: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{headers}\r\n"
    )
    .into_bytes()
}

pub(crate) fn start() -> Vec<u8> {
    start_of(r#"{"amount": 1000}"#)
}

/// A start as the gateway itself takes it.
pub(crate) fn start_with_secret() -> Vec<u8> {
    let secret = tillgate::sandbox::DEFAULT_SECRET;
    start_of(&format!(
        r#"{{"merchant_secret":"{secret}","amount":1000}}"#
    ))
}

/// A start of what is paid for under this name.
pub(crate) fn start_with_reference(reference: &str) -> Vec<u8> {
    start_of(&format!(r#"{{"amount":1000,"reference":"{reference}"}}"#))
}

fn start_of(body: &str) -> Vec<u8> {
    let head =
        "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    format!(
        "{head}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A load that runs until it is dropped.
pub(crate) struct Load {
    answers: Arc<AtomicU64>,
    connections: JoinSet<()>,
}

impl Load {
    pub(crate) async fn begin(address: SocketAddr, request: Vec<u8>) -> Self {
        Self::of(CONNECTIONS, address, request).await
    }

    /// With so many connections.
    pub(crate) async fn of(count: usize, address: SocketAddr, request: Vec<u8>) -> Self {
        let answers = Arc::new(AtomicU64::new(0));
        let mut connections = JoinSet::new();
        for _ in 0..count {
            let mut stream = connect(address).await;
            let (request, answers) = (request.clone(), answers.clone());
            connections.spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                loop {
                    exchange(&mut stream, &request, &mut buffer).await;
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self {
            answers,
            connections,
        }
    }

    /// Answers so far.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Fails if one of the connections did.
    pub(crate) fn end(mut self) {
        assert!(
            self.connections.try_join_next().is_none(),
            "not every answer was a good one"
        );
    }
}

/// One request and its whole answer, which is at the start of the buffer then; says how long it is.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> usize {
    stream.write_all(request).await.expect("it reads");
    let mut filled = 0;
    loop {
        let n = stream
            .read(&mut buffer[filled..])
            .await
            .expect("it answers");
        assert!(
            n > 0,
            "the connection ended: {}",
            String::from_utf8_lossy(&buffer[..filled])
        );
        filled += n;
        if whole_length(&buffer[..filled]).is_some_and(|length| length <= filled) {
            return filled;
        }
    }
}

/// The length of a 200 with its body, once its head is there.
fn whole_length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).expect("a head of ASCII");
    assert!(
        text.starts_with("HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(answer)
    );
    // hyper writes names in small letters, nginx does not.
    let (_, rest) = text
        .split_once("\r\ncontent-length: ")
        .or_else(|| text.split_once("\r\nContent-Length: "))
        .expect("a length");
    Some(
        head + 4
            + rest
                .split("\r\n")
                .next()?
                .parse::<usize>()
                .expect("a number"),
    )
}

/// A payment that was started.
#[derive(Clone)]
pub(crate) struct Payment {
    pub(crate) code: String,
    pub(crate) watch_code: String,
}

/// Starts a payment.
pub(crate) async fn started(address: SocketAddr) -> Payment {
    let mut stream = connect(address).await;
    ask(&mut stream, &start(), payment).await
}

/// Pays it at the gateway there.
pub(crate) async fn complete(gateway: SocketAddr, payment: &Payment) {
    let path = format!("/_sandbox/payments/{}/complete", payment.code);
    let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    ask(&mut connect(gateway).await, request.as_bytes(), |_| {}).await;
}

/// Starts so many, some at once.
pub(crate) async fn fill(address: SocketAddr, count: usize) -> Vec<Payment> {
    each(address, &vec![start(); count], payment).await
}

/// Asks for each of these; gives the tags of the answers.
pub(crate) async fn tags(address: SocketAddr, payments: &[Payment]) -> Vec<String> {
    let requests: Vec<_> = payments
        .iter()
        .map(|payment| get(&format!("/watch/{}", payment.watch_code)))
        .collect();
    each(address, &requests, |answer| {
        between(answer, "\r\netag: ", "\r\n")
    })
    .await
}

/// Reads the answer to a start.
pub(crate) fn payment(answer: &str) -> Payment {
    let field = |name| between(answer, &format!(r#""{name}":""#), "\"");
    Payment {
        code: field("code"),
        watch_code: field("watch_code"),
    }
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Sends the request, and reads what it needs from its answer.
pub(crate) async fn ask<T>(stream: &mut TcpStream, request: &[u8], read: impl Fn(&str) -> T) -> T {
    let mut buffer = vec![0; 16 * 1024];
    let length = exchange(stream, request, &mut buffer).await;
    read(&String::from_utf8_lossy(&buffer[..length]))
}

/// Sends all these requests, some at once; what was read from their answers is in the order of the requests.
async fn each<T>(
    address: SocketAddr,
    requests: &[Vec<u8>],
    read: impl Fn(&str) -> T + Copy,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let next = &next;
    let connections = (0..CONNECTIONS).map(|_| async move {
        let (mut stream, mut answers) = (connect(address).await, Vec::new());
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = requests.get(i) else {
                return answers;
            };
            answers.push((i, ask(&mut stream, request, read).await));
        }
    });
    let mut answers: Vec<_> = futures_util::future::join_all(connections)
        .await
        .into_iter()
        .flatten()
        .collect();
    answers.sort_by_key(|(i, _)| *i);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

fn between(text: &str, before: &str, after: &str) -> String {
    let (_, rest) = text.split_once(before).expect("it stands there");
    rest.split(after).next().unwrap_or_default().to_owned()
}

/// Whether the admin listener there says that it is ready.
pub(crate) fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(admin) else {
        return false;
    };
    let mut answer = [0; 12];
    let asked = stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .and_then(|()| stream.write_all(&get("/readyz")));
    asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer.ends_with(b" 200")
}

/// How many wait in that way, as the admin listener there says.
pub(crate) fn waiters(admin: SocketAddr, kind: &str) -> usize {
    let name = format!("tillgate_waiters{{kind=\"{kind}\"}} ");
    metrics(admin)
        .lines()
        .find_map(|line| line.strip_prefix(&name)?.parse().ok())
        .unwrap_or(0)
}

/// All metrics of the admin listener there.
pub(crate) fn metrics(admin: SocketAddr) -> String {
    let mut stream = std::net::TcpStream::connect(admin).expect("it listens");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).expect("it answers");
    metrics
}

//! A cheap load: raw sockets, the same bytes again and again, and a reader that knows just enough of HTTP.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections at once; each sends its next request when it has the answer to the last.
pub(crate) const CONNECTIONS: usize = 32;

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

pub(crate) fn start() -> Vec<u8> {
    let body = r#"{"amount": 1000}"#;
    let head = "POST /api/start_payment HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A load that runs until it is dropped.
pub(crate) struct Load {
    answers: Arc<AtomicU64>,
    connections: JoinSet<()>,
}

impl Load {
    pub(crate) async fn begin(address: SocketAddr, request: Vec<u8>) -> Self {
        let answers = Arc::new(AtomicU64::new(0));
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            stream.set_nodelay(true).expect("a socket");
            let (request, answers) = (request.clone(), answers.clone());
            connections.spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                loop {
                    exchange(&mut stream, &request, &mut buffer).await;
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { answers, connections }
    }

    /// Answers so far.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Fails if one of the connections did.
    pub(crate) fn end(mut self) {
        assert!(self.connections.try_join_next().is_none(), "not every answer was a good one");
    }
}

/// One request and its whole answer, which is at the start of the buffer then; says how long it is.
async fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> usize {
    stream.write_all(request).await.expect("it reads");
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await.expect("it answers");
        assert!(n > 0, "the connection ended: {}", String::from_utf8_lossy(&buffer[..filled]));
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
    assert!(text.starts_with("HTTP/1.1 200 "), "{}", String::from_utf8_lossy(answer));
    let (_, rest) = text.split_once("\r\ncontent-length: ").expect("a length");
    Some(head + 4 + rest.split("\r\n").next()?.parse::<usize>().expect("a number"))
}

/// Starts a payment; gives its watch code.
pub(crate) async fn started(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let mut buffer = vec![0; 16 * 1024];
    let length = exchange(&mut stream, &start(), &mut buffer).await;
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let (_, rest) = answer.split_once(r#""watch_code":""#).expect("a watch code");
    rest.split('"').next().unwrap_or_default().to_owned()
}

/// Whether the admin listener there says that it is ready.
pub(crate) fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = std::net::TcpStream::connect(admin) else { return false };
    let mut answer = [0; 12];
    let asked = stream.set_read_timeout(Some(Duration::from_secs(1))).and_then(|()| stream.write_all(&get("/readyz")));
    asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer.ends_with(b" 200")
}

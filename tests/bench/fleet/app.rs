//! The app that webhooks are posted to.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// One app for all replicas.
pub(super) struct App {
    pub(super) url: String,
    ids: Arc<Mutex<HashSet<String>>>,
}

impl App {
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let ids = Arc::<Mutex<HashSet<String>>>::default();
        let seen = ids.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, seen.clone()));
            }
        });
        let url = format!("http://{address}/");
        Self { url, ids }
    }

    /// The settings of its webhooks.
    pub(super) fn settings(&self) -> [(&'static str, &str); 2] {
        let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/bench-webhook-key");
        if !Path::new(file).exists() {
            std::fs::write(file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a file");
        }
        [("WEBHOOK__URL", &self.url), ("WEBHOOK__SECRET_FILE", file)]
    }

    /// Waits until so many messages have come.
    pub(super) async fn has(&self, count: usize) {
        let began = Instant::now();
        while self.ids.lock().expect("no panic").len() < count {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "not all messages have come"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn answer(mut stream: TcpStream, ids: Arc<Mutex<HashSet<String>>>) {
    let mut request = Vec::new();
    // The body comes with the head, or right after it, and nothing of it is needed.
    while let Ok(1..) = stream.read_buf(&mut request).await {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let field = |name| head.lines().find_map(|line| line.strip_prefix(name));
        let length = field("content-length: ").and_then(|length| length.parse().ok());
        if body.len() < length.unwrap_or(0) {
            continue;
        }
        let id = field("webhook-id: ").expect("an id").to_owned();
        ids.lock().expect("no panic").insert(id);
        let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(answer).await;
        break;
    }
}

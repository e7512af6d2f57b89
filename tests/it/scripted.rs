//! A gateway that is written here, byte by byte: for answers that no sandbox gives.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::harness::Answer;

pub const STARTED: &str = r#"{"code":"pay_1","message":"Payment started","watch_code":"watch_1"}"#;
pub const WATCHED: &str = r#"{"status":"created","amount":1000,"merchant":"M","created_at":"2030-01-01 00:00:00","completed_at":null}"#;

/// The variables that name a proxy to other programs.
pub const PROXY_VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
];

/// What the gateway does once it has read a request.
#[derive(Clone)]
pub enum Act {
    /// Writes this; the connection goes on.
    Say(Vec<u8>),
    /// Writes this, and after a while the other, which nobody asked for; the connection goes on.
    SayTwice(Vec<u8>, Duration, Vec<u8>),
    /// Writes this and ends the connection in order.
    SayAndEnd(Vec<u8>),
    /// The same, but ends it only after a while.
    SayAndEndLater(Vec<u8>, Duration),
    /// Writes this and is gone: over TLS without saying that this was all.
    SayAndVanish(Vec<u8>),
    /// Ends the connection with a reset.
    Reset,
    /// Writes this after a while; the connection goes on.
    Late(Duration, Vec<u8>),
    /// Writes this, waits for it to arrive, and does the same.
    SayAndReset(Vec<u8>),
    /// Writes this, and then the other again and again, as fast as it is read.
    Flood(Vec<u8>, Vec<u8>),
    /// Writes this, and then one byte now and then for ever.
    Drip(Vec<u8>),
    /// Says nothing for as long as the connection is open.
    Hang,
}

/// The right answer to a request.
pub fn good(request: &str) -> Act {
    Act::Say(answer(
        200,
        if request.starts_with("POST") {
            STARTED
        } else {
            WATCHED
        },
    ))
}

pub fn answer(status: u16, body: &str) -> Vec<u8> {
    answer_with(status, "", body)
}

pub fn answer_with(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
        .into()
}

pub struct Gateway {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// Heads and bodies as they came.
    requests: Arc<Mutex<Vec<String>>>,
    /// Ends every idle connection.
    pub end_idle: Arc<Notify>,
    /// Connections whose other side has ended them too.
    pub ended: Arc<AtomicUsize>,
    /// Bytes of floods that were taken.
    pub flooded: Arc<AtomicUsize>,
}

impl Gateway {
    pub async fn new(act: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> Self {
        Self::with_tls(None, act).await
    }

    /// `act` is told the number of the request, from 0, and the request.
    pub async fn with_tls(
        tls: Option<TlsAcceptor>,
        act: impl Fn(usize, &str) -> Act + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0", tls, act).await
    }

    /// The same at this address.
    pub async fn at(
        address: &str,
        tls: Option<TlsAcceptor>,
        act: impl Fn(usize, &str) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let gateway = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
            end_idle: Arc::default(),
            ended: Arc::default(),
            flooded: Arc::default(),
        };
        let act = Arc::new(act);
        let (connections, requests) = (gateway.connections.clone(), gateway.requests.clone());
        let (end_idle, ended, flooded) = (
            gateway.end_idle.clone(),
            gateway.ended.clone(),
            gateway.flooded.clone(),
        );
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (act, requests, tls) = (act.clone(), requests.clone(), tls.clone());
                let (end_idle, ended, flooded) = (end_idle.clone(), ended.clone(), flooded.clone());
                tokio::spawn(async move {
                    let act = move |request: &str| {
                        let mut requests = requests.lock().unwrap();
                        requests.push(request.to_owned());
                        act(requests.len() - 1, request)
                    };
                    match tls {
                        None => talk(stream, act, &end_idle, &ended, &flooded).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                talk(stream, act, &end_idle, &ended, &flooded).await;
                            }
                        }
                    }
                });
            }
        });
        gateway
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// From here on its end is a reset.
    fn resets(&self) {}
}

impl Stream for TcpStream {
    fn resets(&self) {
        SockRef::from(self)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

impl Stream for tokio_rustls::server::TlsStream<TcpStream> {}

/// Reads one request after the other.
async fn talk(
    mut stream: impl Stream,
    act: impl Fn(&str) -> Act,
    end_idle: &Notify,
    ended: &AtomicUsize,
    flooded: &AtomicUsize,
) {
    let mut bytes = Vec::new();
    loop {
        let request = loop {
            if let Some(length) = whole(&bytes) {
                break bytes.drain(..length).collect::<Vec<_>>();
            }
            tokio::select! {
                read = stream.read_buf(&mut bytes) => if read.unwrap_or(0) == 0 { return },
                () = end_idle.notified() => {
                    let _ = stream.shutdown().await;
                    while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {}
                    ended.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        };
        match act(&String::from_utf8(request).unwrap()) {
            // Whoever asked may have had enough of it.
            Act::Say(answer) => {
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
            Act::Late(time, answer) => {
                tokio::time::sleep(time).await;
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
            Act::SayTwice(answer, time, other) => {
                if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                tokio::time::sleep(time).await;
                if stream.write_all(&other).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
            Act::SayAndEndLater(answer, time) => {
                let _ = stream.write_all(&answer).await;
                let _ = stream.flush().await;
                tokio::time::sleep(time).await;
                let _ = stream.shutdown().await;
                return;
            }
            Act::SayAndEnd(answer) => {
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                return;
            }
            Act::SayAndVanish(answer) => {
                let _ = stream.write_all(&answer).await;
                let _ = stream.flush().await;
                return;
            }
            Act::Reset => return stream.resets(),
            Act::SayAndReset(answer) => {
                let _ = stream.write_all(&answer).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                return stream.resets();
            }
            Act::Flood(head, again) => {
                let _ = stream.write_all(&head).await;
                while stream.write_all(&again).await.is_ok() {
                    flooded.fetch_add(again.len(), Ordering::SeqCst);
                }
                return;
            }
            Act::Drip(head) => {
                let _ = stream.write_all(&head).await;
                while stream.write_all(b" ").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                return;
            }
            Act::Hang => {
                while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {}
                return;
            }
        }
    }
}

/// How long the request at the start of these bytes is, when it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    (bytes.len() >= head + length).then_some(head + length)
}

/// What a failed start says: status, error, outcome.
pub fn told(answer: &Answer) -> (u16, String, String) {
    let problem = answer.json();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    (answer.status, text("error"), text("outcome"))
}

pub fn as_told(status: u16, error: &str, outcome: &str) -> (u16, String, String) {
    (status, error.to_owned(), outcome.to_owned())
}

/// A certificate authority as PEM, and a server with a certificate of it for this name.
pub fn tls(name: &str) -> (String, TlsAcceptor) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    (ca.pem(), TlsAcceptor::from(Arc::new(server)))
}

//! A gateway that is written here, byte by byte: for answers that no sandbox gives.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::harness::Answer;
use crate::server::{Server, next_request};
pub use crate::server::{answer, answer_with};

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

pub struct Gateway {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    /// Heads and bodies as they came.
    requests: Mutex<Vec<String>>,
    end_idle: Notify,
    ended: AtomicUsize,
    flooded: AtomicUsize,
}

impl Gateway {
    pub async fn new(act: impl Fn(usize, &str) -> Act + Send + Sync + 'static) -> Self {
        Self::with_tls(None, act).await
    }

    /// `act` is given the number of the request, from 0, and the request.
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
        let (shared, act) = (Arc::new(Shared::default()), Arc::new(act));
        let of_server = shared.clone();
        let serve = move |stream| {
            let (shared, act, tls) = (of_server.clone(), act.clone(), tls.clone());
            shared.connections.fetch_add(1, Ordering::SeqCst);
            async move {
                let act = |request: &str| {
                    let mut requests = shared.requests.lock().unwrap();
                    requests.push(request.to_owned());
                    act(requests.len() - 1, request)
                };
                match tls {
                    None => talk(stream, act, &shared).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            talk(stream, act, &shared).await;
                        }
                    }
                }
            }
        };
        Self {
            server: Server::at(address, serve).await,
            shared,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The URL of one that has a certificate for `localhost`.
    pub fn https_url(&self) -> String {
        format!("https://localhost:{}", self.address().port())
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Ends every idle connection.
    pub fn end_idle(&self) {
        self.shared.end_idle.notify_waiters();
    }

    /// How many connections the other side has ended too.
    pub fn ended(&self) -> usize {
        self.shared.ended.load(Ordering::SeqCst)
    }

    /// How many bytes of floods were taken.
    pub fn flooded(&self) -> usize {
        self.shared.flooded.load(Ordering::SeqCst)
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
async fn talk(mut stream: impl Stream, act: impl Fn(&str) -> Act, shared: &Shared) {
    let mut bytes = Vec::new();
    loop {
        let request = tokio::select! {
            request = next_request(&mut stream, &mut bytes) => request,
            () = shared.end_idle.notified() => {
                let _ = stream.shutdown().await;
                while stream.read_buf(&mut bytes).await.is_ok_and(|n| n > 0) {}
                shared.ended.fetch_add(1, Ordering::SeqCst);
                return;
            }
        };
        let Some(request) = request else { return };
        match act(&request) {
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
                    shared.flooded.fetch_add(again.len(), Ordering::SeqCst);
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

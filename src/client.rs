//! HTTP out: a pool of connections, TLS, nothing else. No redirects are followed, no proxy variables read, no
//! session keys logged: none of it is built in.

use std::error::Error as _;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tower::ServiceExt;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;

use crate::clock::{self, Instant};
use crate::file::{Patience, Watched};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The other side as seen from here: a request goes in, the head of an answer comes out. A network or the sandbox
/// stands behind it.
pub(crate) trait Transport: Send + Sync {
    /// Sends it, once. The body of the answer must be read within the same deadline, by the caller.
    fn send(&self, request: Request<Full<Bytes>>, deadline: Instant) -> Sending<'_>;
}

/// What [`Transport::send`] gives.
pub(crate) type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Body>, TransportError>> + Send + 'a>>;

/// Nothing came back.
#[derive(Debug)]
pub(crate) enum TransportError {
    /// Surely no byte reached the other side; says why.
    NotSent(String),
    /// The connection broke after some may have.
    Broken(String),
    /// The deadline passed after some may have.
    TimedOut,
}

/// A pooled connection that has been idle longer is not used again: Node, for one, closes them after five seconds, and
/// a start that meets a closing connection has an unknown outcome.
const POOL_IDLE: Duration = Duration::from_secs(4);

type Connector = BoxCloneSyncService<hyper::Uri, Connection, BoxError>;
type Connection = hyper_rustls::MaybeHttpsStream<hyper_util::rt::TokioIo<tokio::net::TcpStream>>;

/// The network. With `ca_file` the roots, and the pool with them, change when the file does.
pub(crate) enum Network {
    BuiltIn(Arc<Pooled>),
    CaFile(Watched<Pooled>),
}

/// A pool, and what makes its connections.
pub(crate) struct Pooled {
    pool: Client<Connector, Full<Bytes>>,
    connector: Connector,
}

impl Network {
    /// Reads the roots from this file, if they are not the built-in ones. `timeout` is for one connection.
    ///
    /// # Errors
    /// What is wrong with the file; it must be there from the start.
    pub(crate) fn open(ca_file: Option<&Path>, timeout: Duration) -> Result<Self, String> {
        let Some(path) = ca_file else {
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            return Ok(Self::BuiltIn(Arc::new(pool(roots, timeout)?)));
        };
        let file = Watched::open(path, move |pem| pool(roots(pem)?, timeout))?;
        if file.get().is_none() {
            return Err(format!("{} is missing", path.display()));
        }
        Ok(Self::CaFile(file))
    }

    /// Makes one connection, TLS included, and drops it.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn connect(&self, url: &str) -> Result<(), String> {
        let pooled = self.pooled().ok_or("there are no roots")?;
        let uri = url.parse().map_err(|_| "the URL has characters that no request can have")?;
        let connection = pooled.connector.clone().oneshot(uri).await;
        connection.map(drop).map_err(|error| causes(Some(&*error)))
    }

    /// The file to look at for changes, if there is one.
    pub(crate) fn look(&self, patience: Patience) -> bool {
        match self {
            Self::BuiltIn(_) => false,
            Self::CaFile(file) => file.look(patience),
        }
    }

    fn pooled(&self) -> Option<Arc<Pooled>> {
        match self {
            Self::BuiltIn(pool) => Some(pool.clone()),
            Self::CaFile(file) => file.get(),
        }
    }
}

impl Transport for Network {
    fn send(&self, mut request: Request<Full<Bytes>>, deadline: Instant) -> Sending<'_> {
        Box::pin(async move {
            let pooled = self.pooled().ok_or_else(|| TransportError::NotSent("there are no roots".to_owned()))?;
            let connection = capture_connection(&mut request);
            match clock::timeout_at(deadline, pooled.pool.request(request)).await {
                Ok(Ok(answer)) => Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync())),
                Ok(Err(error)) if error.is_connect() => Err(TransportError::NotSent(causes(error.source()))),
                Ok(Err(error)) => Err(TransportError::Broken(causes(error.source()))),
                // As long as no connection was chosen for the request, nothing of it can have left.
                Err(_) if connection.connection_metadata().is_none() => {
                    Err(TransportError::NotSent("no connection in time".to_owned()))
                }
                Err(_) => Err(TransportError::TimedOut),
            }
        })
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a certificate in it cannot be used: {error}"))?;
    }
    if roots.is_empty() { Err("there is no certificate in it (PEM is expected)".to_owned()) } else { Ok(roots) }
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn pool(roots: RootCertStore, connect_timeout: Duration) -> Result<Pooled, String> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let https =
        HttpsConnectorBuilder::new().with_tls_config(tls(roots)?).https_or_http().enable_http1().wrap_connector(tcp);
    let connector = BoxCloneSyncService::new(Timeout::new(https, connect_timeout));
    let pool = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(32)
        .http1_max_buf_size(32 * 1024)
        .build(connector.clone());
    Ok(Pooled { pool, connector })
}

/// What went wrong, with all its causes: the outermost alone says "client error (Connect)".
fn causes(mut cause: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut text = String::new();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.ends_with(&line) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&line);
        }
        cause = error.source();
    }
    if text.is_empty() { "it says no more".to_owned() } else { text }
}

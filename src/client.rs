//! HTTP out: a pool of connections, TLS, nothing else. No redirects are followed, no proxy variables read, no
//! session keys logged: none of it is built in.

mod tls;
mod why;

use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use rustls::ClientConfig;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tower::ServiceExt;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;

use self::tls::Files;
pub(crate) use self::tls::{Identity, Roots, chain, key, roots};
use crate::clock::{self, Instant};
use crate::file::Patience;

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

/// So long a new connection is listened to.
const A_MOMENT: Duration = Duration::from_secs(1);

type Connector = BoxCloneSyncService<hyper::Uri, Connection, BoxError>;
type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;

/// The network. Its pool changes when one of the files does that TLS is made of: nothing of the old one is used again.
pub(crate) struct Network {
    files: Files,
    /// For one connection.
    timeout: Duration,
    pooled: ArcSwap<Pooled>,
}

/// A pool, and what makes its connections.
struct Pooled {
    pool: Client<Connector, Full<Bytes>>,
    connector: Connector,
}

impl Network {
    /// Over TLS with these roots, as this client. `timeout` is for one connection.
    ///
    /// # Errors
    /// Says why TLS cannot be had.
    pub(crate) fn new(roots: Roots, identity: Option<Identity>, timeout: Duration) -> Result<Self, String> {
        let files = Files::new(roots, identity);
        let pooled = ArcSwap::from_pointee(pool(files.config()?, timeout));
        Ok(Self { files, timeout, pooled })
    }

    /// Makes one connection, TLS included, and drops it.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn connect(&self, url: &str) -> Result<(), String> {
        let uri = url.parse().map_err(|_| "the URL has characters that no request can have")?;
        let connector = self.pooled.load().connector.clone();
        let connection = connector.oneshot(uri).await.map_err(|error| why::causes(Some(&*error)))?;
        if !matches!(connection, MaybeHttpsStream::Https(_)) {
            return Ok(());
        }
        // In TLS 1.3 a gateway that wants another certificate of ours says so when we believe that all is well.
        match clock::timeout(A_MOMENT, TokioIo::new(connection).read_u8()).await {
            Ok(Err(error)) => Err(why::causes(Some(&error))),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    /// Looks at its files. True when something new was taken.
    pub(crate) fn look(&self, patience: Patience) -> bool {
        if !self.files.look(patience) {
            return false;
        }
        match self.files.config() {
            Ok(tls) => {
                self.pooled.store(Arc::new(pool(tls, self.timeout)));
                true
            }
            Err(why) => {
                tracing::warn!(why, "TLS stays as it was");
                false
            }
        }
    }

    /// Adds this room's metric.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let failures = self.files.failures.clone();
        registry.register("tls_reload_failures", "Looks at the TLS files that found nothing usable", failures);
    }
}

impl Transport for Network {
    fn send(&self, mut request: Request<Full<Bytes>>, deadline: Instant) -> Sending<'_> {
        Box::pin(async move {
            let pooled = self.pooled.load_full();
            let connection = capture_connection(&mut request);
            match clock::timeout_at(deadline, pooled.pool.request(request)).await {
                Ok(Ok(answer)) => Ok(answer.map(|body| body.map_err(BoxError::from).boxed_unsync())),
                Ok(Err(error)) if error.is_connect() || why::is_refused_handshake(&error) => {
                    Err(TransportError::NotSent(why::causes(error.source())))
                }
                Ok(Err(error)) => Err(TransportError::Broken(why::causes(error.source()))),
                // As long as no connection was chosen for the request, nothing of it can have left.
                Err(_) if connection.connection_metadata().is_none() => {
                    Err(TransportError::NotSent("none within gateway.timeout".to_owned()))
                }
                Err(_) => Err(TransportError::TimedOut),
            }
        })
    }
}

fn pool(tls: ClientConfig, connect_timeout: Duration) -> Pooled {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
    let connector = BoxCloneSyncService::new(Timeout::new(https, connect_timeout));
    let pool = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(32)
        // A longer head is no answer, nor is one of more than 100 fields: that is hyper's own limit.
        .http1_max_buf_size(16 * 1024)
        .build(connector.clone());
    Pooled { pool, connector }
}

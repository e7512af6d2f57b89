//! HTTP out: one clean connection for one answer. No redirects are followed, no proxy variables are read, no session keys
//! are logged: none of it is built in.

mod connect;
mod exchange;
mod pool;
mod proxy;
mod race;
mod resolve;
mod step;
mod target;
mod tls;
mod why;

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response};
use prometheus_client::registry::Registry;
use tokio::io::AsyncReadExt;
use tokio_util::either::Either;

use self::connect::{Connected, Connector};
use self::exchange::{Exchange, Read};
use self::pool::{Pool, Ticket};
pub(crate) use self::proxy::{Proxy, ProxyAuthorization, ProxyUrl};
pub(crate) use self::target::Target;
use self::tls::Files;
pub(crate) use self::tls::{Identity, Roots, chain, key, roots};
use crate::clock::{self, Instant};
use crate::file::Settle;

/// The other side as seen from here: a request goes in, its answer comes out. A network or the sandbox stands behind it.
pub(crate) trait Transport: Send + Sync {
    /// Sends the request once and reads its answer.
    fn exchange(&self, request: Request<Full<Bytes>>, terms: Terms) -> Exchanging<'_>;
}

/// What [`Transport::exchange`] returns.
pub(crate) type Exchanging<'a> =
    Pin<Box<dyn Future<Output = Result<Answer, TransportError>> + Send + 'a>>;

/// How one exchange goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// When it is over, the body included.
    pub(crate) deadline: Instant,
    /// The largest body that is read.
    pub(crate) max_bytes: usize,
    pub(crate) connection: Sharing,
}

/// Whether other requests go over the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// It is opened for this request and closed behind its answer: no other answer can come on it.
    Own,
    /// It may have been used before, and may be again. An answer that was sent too late or too often can be taken for
    /// the answer to this request.
    Shared,
}

/// An answer, as far as it came.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// What was read of it.
    pub(crate) body: Bytes,
    /// Why that is not all.
    pub(crate) cut: Option<Cut>,
    /// The connection that it came on carried nothing else.
    pub(crate) connection: Sharing,
}

/// Why an answer is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is larger than was asked for.
    TooLarge,
    /// The connection broke, or it is not clear where the answer ends; says why.
    Broken(String),
    /// The deadline passed.
    TimedOut,
}

/// Nothing came back.
#[derive(Debug)]
pub(crate) enum TransportError {
    /// Surely no byte reached the other side; says which step failed, and why.
    NotSent(String),
    /// The connection broke after some may have.
    Broken(String),
    /// The deadline passed after some may have.
    TimedOut,
}

/// Which section of the configuration a client belongs to: errors name its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Gateway,
    Webhook,
}

impl Side {
    /// The full name of a key of that section.
    fn key(self, name: &str) -> String {
        let section = match self {
            Self::Gateway => "gateway",
            Self::Webhook => "webhook",
        };
        format!("{section}.{name}")
    }
}

/// How long a new connection is listened to by [`Network::probe`], and the body of an answer that counts by its head.
const A_MOMENT: Duration = Duration::from_secs(1);

/// The way to one target over the network.
pub(crate) struct Network {
    side: Side,
    files: Files,
    connector: Connector,
    pool: Pool,
}

/// What [`Network::probe`] found.
pub(crate) struct Probe {
    /// The addresses of the name that was looked up: the proxy's, where there is one.
    pub(crate) addresses: Vec<IpAddr>,
    /// The one that was connected to.
    pub(crate) address: IpAddr,
    /// The steps to the connection, and how long each took.
    pub(crate) steps: Vec<(&'static str, Duration)>,
    /// Only a ClientHello that fits into one packet came through.
    pub(crate) has_small_hello: bool,
}

impl Network {
    /// A client for this target, through the proxy if there is one, over TLS with these roots, as this client.
    /// `connect_timeout` is for one address.
    ///
    /// # Errors
    /// Says why TLS cannot be had.
    pub(crate) fn new(
        side: Side,
        target: Target,
        proxy: Option<Proxy>,
        roots: Roots,
        identity: Option<Identity>,
        connect_timeout: Duration,
    ) -> Result<Self, String> {
        let files = Files::new(roots, identity);
        let connector = Connector::new(side, target, proxy, files.tls()?, connect_timeout);
        Ok(Self {
            side,
            files,
            connector,
            pool: Pool::default(),
        })
    }

    /// Makes one connection, TLS included, and drops it.
    ///
    /// # Errors
    /// Says which step failed, and why.
    pub(crate) async fn probe(&self, deadline: Instant) -> Result<Probe, String> {
        let connected = self
            .connector
            .connect(deadline)
            .await
            .map_err(|failure| failure.to_string())?;
        let Connected {
            mut stream,
            address,
            steps,
            has_small_hello,
        } = connected;
        if matches!(stream, Either::Right(_)) {
            // In TLS 1.3 a gateway that wants another certificate of ours says so when we believe that all is well.
            if let Ok(Err(error)) = clock::timeout(A_MOMENT, stream.read_u8()).await {
                return Err(format!("TLS: {}", why::causes(self.side, &error)));
            }
        }
        let addresses = self.connector.known_addresses();
        let steps = steps
            .into_iter()
            .map(|(step, took)| (step.name(), took))
            .collect();
        Ok(Probe {
            addresses,
            address: address.ip(),
            steps,
            has_small_hello,
        })
    }

    /// Looks at its files, and drops idle connections that are too old. True when something new was taken.
    pub(crate) fn reload(&self, settle: Settle) -> bool {
        self.pool.sweep();
        let authorization = self.connector.proxy().and_then(Proxy::authorization);
        let has_authorization = authorization.is_some_and(|file| file.reload(settle));
        if !self.files.reload(settle) {
            return has_authorization;
        }
        match self.files.tls() {
            Ok(tls) => {
                self.connector.tls.store(Arc::new(tls));
                // Nothing of the old one is used again.
                self.pool.clear();
                true
            }
            Err(why) => {
                tracing::warn!(why, "TLS stays as it was");
                false
            }
        }
    }

    /// Adds this room's metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let failures = self.files.failures.clone();
        let (connect, tls) = match self.side {
            Side::Gateway => ("gateway_connect", "tls_reload_failures"),
            Side::Webhook => ("webhook_connect", "webhook_tls_reload_failures"),
        };
        registry.register(
            tls,
            "Looks at the TLS files that found nothing usable",
            failures,
        );
        if let Some(file) = self.connector.proxy().and_then(Proxy::authorization) {
            let failures = file.failures.clone();
            let help = "Looks at the proxy's authorization file that found nothing usable";
            registry.register("proxy_authorization_reload_failures", help, failures);
        }
        self.connector.durations.register(connect, registry);
    }

    /// Sends a request over a connection of its own, or over one that was used before if there is a clean one, and waits
    /// for the head of the answer.
    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        connection: Sharing,
        deadline: Instant,
    ) -> Result<(Exchange, Ticket), TransportError> {
        let path = request
            .uri()
            .path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = path.into();
        request
            .headers_mut()
            .insert(HOST, self.connector.target().authority().clone());
        let known = match connection {
            Sharing::Own => {
                request
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
                None
            }
            Sharing::Shared => self.pool.take(),
        };
        let (stream, ticket) = match known {
            Some(known) => known,
            None => {
                let ticket = self.pool.ticket();
                let connected = self.connector.connect(deadline).await;
                (
                    connected
                        .map_err(|failure| TransportError::NotSent(failure.to_string()))?
                        .stream,
                    ticket,
                )
            }
        };
        let exchange = Exchange::send(stream, request, deadline, self.side).await;
        match &exchange {
            Ok(exchange) if exchange.head.status.is_server_error() => self.doubt(),
            Err(TransportError::Broken(_) | TransportError::TimedOut) => self.doubt(),
            _ => {}
        }
        Ok((exchange?, ticket))
    }

    /// Posts a request over a connection of its own. The first `max_bytes` of the body are read where the answer is no
    /// success; a success says all that there is with its head.
    ///
    /// # Errors
    /// Fails if the head of an answer does not come by the deadline.
    pub(crate) async fn post(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        max_bytes: usize,
    ) -> Result<Response<Bytes>, TransportError> {
        let (exchange, _) = self.send(request, Sharing::Own, deadline).await?;
        if exchange.head.status.is_success() {
            return Ok(Response::from_parts(exchange.head, Bytes::new()));
        }
        let read = exchange
            .read(max_bytes, deadline.min(clock::now() + A_MOMENT))
            .await;
        Ok(Response::from_parts(read.head, read.body))
    }

    /// Something went wrong at the other side: other idle connections to it are not used again, and its name is looked
    /// up before the next one is made.
    fn doubt(&self) {
        self.pool.clear();
        self.connector.doubt();
    }
}

impl Transport for Network {
    fn exchange(&self, request: Request<Full<Bytes>>, terms: Terms) -> Exchanging<'_> {
        Box::pin(async move {
            let Terms {
                deadline,
                max_bytes,
                connection,
            } = terms;
            let (exchange, ticket) = self.send(request, connection, deadline).await?;
            let Read {
                head,
                body,
                cut,
                stream,
            } = match exchange.announces_more_than(max_bytes) {
                true => exchange.unread(Cut::TooLarge),
                false => exchange.read(max_bytes, deadline).await,
            };
            match (&cut, stream, connection) {
                (Some(Cut::Broken(_) | Cut::TimedOut), _, _) => self.doubt(),
                (None, Some(stream), Sharing::Shared) => self.pool.put(stream, ticket),
                _ => {}
            }
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
                cut,
                connection,
            })
        })
    }
}

//! The HTTP client: one clean connection for one answer. It follows no redirects, reads no proxy variables and logs no
//! session keys.

mod connect;
mod exchange;
mod interim;
mod pool;
mod proxy;
mod race;
mod resolve;
mod step;
mod target;
mod tls;
mod transport;
mod why;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, HOST, HeaderValue};
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
pub(crate) use self::transport::{
    Answer, Cut, Exchanging, Posting, Sharing, Terms, Transport, TransportError,
};
pub(crate) use self::why::{Side, causes, is_of_tls};
use crate::clock::{self, Instant};
use crate::file::Settle;

/// How long [`Network::probe`] listens to a new connection, and a post reads a body that is only for people.
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
    /// The addresses of the name that was looked up: that of the proxy, where there is one.
    pub(crate) addresses: Vec<IpAddr>,
    /// The address of the connection.
    pub(crate) address: IpAddr,
    /// The steps to the connection, and how long each took.
    pub(crate) steps: Vec<(&'static str, Duration)>,
    /// Whether only a ClientHello that fits into one packet got an answer.
    pub(crate) has_small_hello: bool,
}

impl Network {
    /// A client for this target, through the proxy if there is one. TLS uses these roots and this client certificate.
    /// `connect_timeout` limits the attempt at one address, TLS included.
    ///
    /// # Errors
    /// Says why the TLS files cannot be used.
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
            // In TLS 1.3 the handshake of the client is over before a gateway refuses its certificate.
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

    /// Reads its files again, and drops idle connections that are too old. Returns true if a file has new content.
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
                // No connection of the old configuration is used again.
                self.pool.clear();
                true
            }
            Err(why) => {
                tracing::warn!(why, "TLS configuration not changed");
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
            // A database has a client of its own, with metrics of its own.
            Side::Store => ("store_connect", "store_tls_reload_failures"),
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

    /// Sends a request over a connection of its own, or over a clean one from the pool if `connection` allows it, and waits
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

    /// Reports that something is wrong at the other side: idle connections to it are not used again, and its name is
    /// looked up before the next connection.
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

    /// The body of a success is not read.
    fn post(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        max_bytes: usize,
    ) -> Posting<'_> {
        Box::pin(async move {
            let (exchange, _) = self.send(request, Sharing::Own, deadline).await?;
            if exchange.head.status.is_success() {
                return Ok(Response::from_parts(exchange.head, Bytes::new()));
            }
            let read = exchange
                .read(max_bytes, deadline.min(clock::now() + A_MOMENT))
                .await;
            Ok(Response::from_parts(read.head, read.body))
        })
    }
}

//! Makes one connection: the name, the addresses, the proxy, TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::select_ok;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::proxy::Proxy;
use super::race::race;
use super::resolve::Resolver;
use super::step::{Durations, Failure, Step};
use super::target::Target;
use super::tls::Tls;
use super::why::{self, Side};
use crate::clock::{self, Instant};

/// A connection to the other side.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The setting that limits the time for one address, also for webhooks.
const CONNECT_TIMEOUT: &str = "gateway.connect_timeout";
/// How long the small ClientHello is used at once after it was needed.
const SMALL_HELLO_FOR: Duration = Duration::from_secs(600);

/// A connection, and how it was made.
pub(super) struct Connected {
    pub(super) stream: Stream,
    /// The address at its other end: that of the proxy, where there is one.
    pub(super) address: SocketAddr,
    /// Its steps, and how long each took.
    pub(super) steps: Vec<(Step, Duration)>,
    /// Whether only the small ClientHello got an answer.
    pub(super) has_small_hello: bool,
}

/// Makes connections to one target.
pub(super) struct Connector {
    side: Side,
    target: Target,
    proxy: Option<Proxy>,
    /// Looks up the name of the proxy, where there is one, and that of the target otherwise.
    resolver: Resolver,
    pub(super) tls: ArcSwap<Tls>,
    /// The time limit for one address, TLS included.
    timeout: Duration,
    memory: Mutex<Memory>,
    pub(super) durations: Durations,
}

/// What was learned from the last connections.
#[derive(Default)]
struct Memory {
    /// The address of the last good connection.
    address: Option<IpAddr>,
    small_hello_until: Option<Instant>,
}

impl Connector {
    /// `timeout` is for one address.
    pub(super) fn new(
        side: Side,
        target: Target,
        proxy: Option<Proxy>,
        tls: Tls,
        timeout: Duration,
    ) -> Self {
        let resolver = Resolver::new(proxy.as_ref().map_or(&target, Proxy::target).host());
        let memory = Mutex::default();
        Self {
            side,
            target,
            proxy,
            resolver,
            tls: ArcSwap::from_pointee(tls),
            timeout,
            memory,
            durations: Durations::new(),
        }
    }

    pub(super) fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the known addresses of the name that is looked up.
    pub(super) fn known_addresses(&self) -> Vec<IpAddr> {
        self.resolver.known_addresses()
    }

    /// Makes a connection. All addresses of the name are tried, each 250 ms after the one before it.
    ///
    /// # Errors
    /// Fails if no address gives a connection by the deadline. No byte of a request has left then.
    pub(super) async fn connect(&self, deadline: Instant) -> Result<Connected, Failure> {
        let connected = match self.look_up(deadline).await {
            Ok((addresses, took)) => self.connect_to(addresses, took, deadline).await,
            Err(failure) => Err(failure),
        };
        connected.map_err(|failure| match &self.proxy {
            // These steps lead to the proxy.
            Some(_) if failure.step < Step::Proxy => Failure {
                why: format!("{} (gateway.proxy)", failure.why),
                ..failure
            },
            _ => failure,
        })
    }

    /// Returns the addresses of the name, and how long the lookup took.
    async fn look_up(&self, deadline: Instant) -> Result<(Vec<IpAddr>, Duration), Failure> {
        let began = clock::now();
        let found = clock::timeout_at(deadline, self.resolver.addresses()).await;
        let took = clock::now() - began;
        if !matches!(found, Ok(Ok((_, false)))) {
            self.durations.observe(Step::Dns, took);
        }
        let late = |_| format!("no answer within {}", self.side.key("timeout"));
        let (addresses, _) = found
            .map_err(late)
            .flatten()
            .map_err(|why| Failure::new(Step::Dns, why))?;
        Ok((addresses, took))
    }

    async fn connect_to(
        &self,
        mut addresses: Vec<IpAddr>,
        looked_up_in: Duration,
        deadline: Instant,
    ) -> Result<Connected, Failure> {
        let last = self.memory().address;
        if let Some(i) = last.and_then(|last| addresses.iter().position(|ip| *ip == last)) {
            addresses[..=i].rotate_right(1);
        }
        let leads_to = self.proxy.as_ref().map_or(&self.target, Proxy::target);
        let attempt = |ip| self.attempt(SocketAddr::new(ip, leads_to.port()), deadline);
        match race(addresses, attempt).await {
            Ok(mut connected) => {
                self.memory().address = Some(connected.address.ip());
                connected.steps.insert(0, (Step::Dns, looked_up_in));
                Ok(connected)
            }
            Err(failures) => {
                self.doubt();
                // The failure at the latest step says most.
                let furthest = failures.into_iter().max_by_key(|failure| failure.step);
                Err(furthest.unwrap_or_else(|| Failure::new(Step::Dns, "the name has no address")))
            }
        }
    }

    /// Reports that something is wrong at the address in use: the next connection looks the name up again, and prefers
    /// no address.
    pub(super) fn doubt(&self) {
        self.memory().address = None;
        self.resolver.doubt();
    }

    /// Tries one address. If the full ClientHello gets no answer in half the time, or its connection breaks, the small one
    /// is tried beside it.
    async fn attempt(&self, address: SocketAddr, deadline: Instant) -> Result<Connected, Failure> {
        let own = clock::now() + self.timeout;
        let deadline = deadline.min(own);
        if self.target.server_name().is_none() || self.is_small_hello_known() {
            return self.once(address, true, deadline, own).await;
        }
        let mut full = self.once(address, false, deadline, own).boxed();
        let heard = clock::timeout(self.timeout / 2, &mut full).await;
        let small = async {
            let connected = self.once(address, true, deadline, own).await?;
            self.memory().small_hello_until = Some(clock::now() + SMALL_HELLO_FOR);
            Ok(connected)
        };
        match heard {
            Ok(Err(failure)) if failure.is_unheard => small.await.map_err(|_: Failure| failure),
            Ok(settled) => settled,
            Err(_) => select_ok([full, small.boxed()])
                .await
                .map(|(connected, _)| connected),
        }
    }

    async fn once(
        &self,
        address: SocketAddr,
        small: bool,
        deadline: Instant,
        own: Instant,
    ) -> Result<Connected, Failure> {
        let key = if deadline < own {
            self.side.key("timeout")
        } else {
            CONNECT_TIMEOUT.to_owned()
        };
        let mut path = Path {
            connector: self,
            address,
            deadline,
            key,
            steps: Vec::with_capacity(4),
        };
        let mut tcp = path.tcp().await?;
        if let Some(proxy) = &self.proxy {
            path.tunnel(proxy, &mut tcp).await?;
        }
        let stream = match self.target.server_name() {
            Some(name) => Either::Right(Box::new(path.tls(name, small, tcp).await?)),
            None => Either::Left(tcp),
        };
        let has_small_hello = small && matches!(stream, Either::Right(_));
        Ok(Connected {
            stream,
            address,
            steps: path.steps,
            has_small_hello,
        })
    }

    fn is_small_hello_known(&self) -> bool {
        self.memory()
            .small_hello_until
            .is_some_and(|until| clock::now() < until)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The steps to one address, within one deadline.
struct Path<'a> {
    connector: &'a Connector,
    address: SocketAddr,
    deadline: Instant,
    /// The setting that sets the deadline, for errors.
    key: String,
    steps: Vec<(Step, Duration)>,
}

impl Path<'_> {
    async fn tcp(&mut self) -> Result<TcpStream, Failure> {
        let (side, address) = (self.connector.side, self.address);
        let tcp = self.step(Step::Tcp, TcpStream::connect(address)).await?;
        let tcp = tcp.map_err(|error| {
            Failure::new(
                Step::Tcp,
                format!("{address}: {}", why::causes(side, &error)),
            )
        })?;
        // Without it small writes wait for acknowledgements. A connection works even if it cannot be set.
        let _ = tcp.set_nodelay(true);
        Ok(tcp)
    }

    async fn tunnel(&mut self, proxy: &Proxy, tcp: &mut TcpStream) -> Result<(), Failure> {
        let (address, to) = (self.address, self.connector.target.host_and_port());
        let tunnel = self.step(Step::Proxy, proxy.connect(tcp, &to)).await?;
        tunnel.map_err(|why| Failure::new(Step::Proxy, format!("{address}: {why}")))
    }

    async fn tls(
        &mut self,
        name: &ServerName<'static>,
        small: bool,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let side = self.connector.side;
        let config = {
            let tls = self.connector.tls.load();
            if small {
                tls.small.clone()
            } else {
                tls.full.clone()
            }
        };
        let handshake = TlsConnector::from(config).connect(name.clone(), tcp);
        self.step(Step::Tls, handshake)
            .await?
            .map_err(|error| Failure {
                is_unheard: !why::is_of_tls(&error),
                ..Failure::new(Step::Tls, why::causes(side, &error))
            })
    }

    /// Runs a step within the deadline, and records how long it took, however it ends.
    ///
    /// # Errors
    /// Fails if the deadline passes.
    async fn step<T>(&mut self, step: Step, work: impl Future<Output = T>) -> Result<T, Failure> {
        let began = clock::now();
        let done = clock::timeout_at(self.deadline, work).await;
        let took = clock::now() - began;
        self.connector.durations.observe(step, took);
        self.steps.push((step, took));
        done.map_err(|_| Failure {
            is_unheard: step == Step::Tls,
            ..Failure::new(
                step,
                format!("no answer from {} within {}", self.address, self.key),
            )
        })
    }
}

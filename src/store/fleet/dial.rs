//! Makes one connection to one address: TCP or a Unix socket, TLS, the login.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Connection, NoTls};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::tls::{self, Policy};
use super::trouble::{Reason, Trouble};
use super::url::{Host, is_localhost};
use crate::client::{self, Side};
use crate::clock::{self, Instant};

/// A connection that is silent for this long is looked after, so that a balancer does not end it.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The time between two looks without an answer, and how many of them end a connection.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_TRIES: u32 = 3;

/// The bytes to a server.
pub(super) type Stream = Either<TcpStream, Either<Box<TlsStream<TcpStream>>, UnixStream>>;
/// What drives a client's statements.
pub(super) type Driver = Connection<Stream, NoTlsStream>;

/// One place to connect to.
#[derive(Clone, Debug)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Address {
    /// Returns the addresses of a host, and how long it took to look them up.
    ///
    /// # Errors
    /// Fails if it has none, or if the lookup does not end within the time limit.
    pub(super) async fn of(host: &Host, limit: Duration) -> Result<(Vec<Self>, Duration), Trouble> {
        let (name, port) = match host {
            Host::Unix { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                return Ok((vec![Self::Unix(path)], Duration::ZERO));
            }
            Host::Tcp { name, port } => (name.as_str(), *port),
        };
        let fixed = match name.parse() {
            Ok(ip) => vec![ip],
            Err(_) if is_localhost(name) => {
                vec![
                    IpAddr::from(Ipv4Addr::LOCALHOST),
                    Ipv6Addr::LOCALHOST.into(),
                ]
            }
            Err(_) => Vec::new(),
        };
        if !fixed.is_empty() {
            let fixed = fixed.into_iter().map(|ip| Self::Tcp((ip, port).into()));
            return Ok((fixed.collect(), Duration::ZERO));
        }
        let began = clock::now();
        let found = clock::timeout(limit, lookup_host((name, port))).await;
        let unreachable = |what: String| Trouble::new(Reason::Unreachable, what);
        let found = found.map_err(|_| unreachable("its name was not found in time".to_owned()))?;
        let found: Vec<_> = found
            .map_err(|error| unreachable(format!("its name was not found: {error}")))?
            .map(Self::Tcp)
            .collect();
        match found.is_empty() {
            true => Err(unreachable("its name has no address".to_owned())),
            false => Ok((found, clock::now() - began)),
        }
    }
}

/// How to connect: the same for each server.
pub(super) struct Terms {
    /// User, database, password.
    pub(super) login: tokio_postgres::Config,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) may_be_plain: bool,
    /// The time limit for one address.
    pub(super) limit: Duration,
    /// How long sent bytes may stay without an acknowledgement.
    pub(super) user_timeout: Duration,
}

impl Terms {
    fn policy(&self, host: &Host) -> Policy {
        match (host.is_local(), self.may_be_plain) {
            (true, _) => Policy::Never,
            (false, true) => Policy::IfOffered,
            (false, false) => Policy::Always,
        }
    }
}

/// The steps to one address, within one deadline.
pub(super) struct Attempt<'a> {
    terms: &'a Terms,
    host: &'a Host,
    address: &'a Address,
    deadline: Instant,
    /// How long each step took.
    pub(super) steps: Vec<(&'static str, Duration)>,
    pub(super) is_tls: bool,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(terms: &'a Terms, host: &'a Host, address: &'a Address) -> Self {
        Self {
            terms,
            host,
            address,
            deadline: clock::now() + terms.limit,
            steps: Vec::with_capacity(5),
            is_tls: false,
        }
    }

    /// Connects and logs in. No byte of a password is sent before TLS is done, where TLS is to be.
    pub(super) async fn log_in(&mut self) -> Result<(Client, Driver), Trouble> {
        let stream = match self.address {
            Address::Unix(path) => {
                let unix = self.step("socket", UnixStream::connect(path)).await?;
                Either::Right(Either::Right(unix.map_err(|error| unreachable(&error))?))
            }
            Address::Tcp(address) => self.tcp(*address).await?,
        };
        let login = self.terms.login.connect_raw(stream, NoTls);
        self.step("login", login)
            .await?
            .map_err(|error| Trouble::of_login(&error, self.terms.login.get_password().is_some()))
    }

    async fn tcp(&mut self, address: SocketAddr) -> Result<Stream, Trouble> {
        let tcp = self.step("TCP", TcpStream::connect(address)).await?;
        let mut tcp = tcp.map_err(|error| unreachable(&error))?;
        keep_alive(&tcp, self.terms.user_timeout);
        let (policy, name) = match self.host {
            Host::Tcp { name, .. } => (self.terms.policy(self.host), name.as_str()),
            Host::Unix { .. } => (Policy::Never, ""),
        };
        if policy == Policy::Never {
            return Ok(Either::Left(tcp));
        }
        let began = clock::now();
        if !self.step("TLS", tls::is_offered(&mut tcp)).await?? {
            return match policy {
                Policy::IfOffered => Ok(Either::Left(tcp)),
                _ => Err(Trouble::new(
                    Reason::Refused,
                    "it has no TLS, so everyone on the way could read what is sent: turn it on there (ssl = on), or accept that risk with this line in [store]: allow_plain_tcp = true",
                )),
            };
        }
        let handshake = tls::handshake(self.terms.tls.clone(), name, tcp);
        let tls = self.step("TLS", handshake).await??;
        // Both round trips are one step for who reads it.
        self.steps.truncate(self.steps.len() - 2);
        self.steps.push(("TLS", clock::now() - began));
        self.is_tls = true;
        Ok(Either::Right(Either::Left(Box::new(tls))))
    }

    /// Runs a step within the deadline, and records how long it took.
    ///
    /// # Errors
    /// Fails if the deadline passes.
    pub(super) async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = T>,
    ) -> Result<T, Trouble> {
        let began = clock::now();
        let done = clock::timeout_at(self.deadline, work).await;
        self.steps.push((name, clock::now() - began));
        done.map_err(|_| {
            let limit = clock::format_duration(self.terms.limit);
            Trouble::new(
                Reason::Timeout,
                format!("no answer within {limit} ({name})"),
            )
        })
    }
}

fn unreachable(error: &io::Error) -> Trouble {
    Trouble::new(Reason::Unreachable, client::causes(Side::Store, error))
}

/// Makes a dead connection known. A connection works even if none of it can be set.
fn keep_alive(tcp: &TcpStream, user_timeout: Duration) {
    let _ = tcp.set_nodelay(true);
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_TRIES);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(user_timeout));
}

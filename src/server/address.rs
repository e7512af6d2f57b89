//! Where to listen over TCP, as configuration says it.

use std::fmt::{self, Display};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// `localhost:8700` (both loopbacks), `:8701` (all addresses of both families), or `IP:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Localhost(u16),
    Everywhere(u16),
    One(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("unix:") || text.starts_with("fd:") {
            return Err(format!(
                "{text:?} is no address of TCP, and only listen.address takes others: write \"localhost:8701\", \"127.0.0.1:8701\" or \":8701\""
            ));
        }
        let no_address = || {
            format!(
                "{text:?} is not an address: write \"localhost:PORT\", \"127.0.0.1:PORT\" or \":PORT\""
            )
        };
        if let Ok(one) = text.parse() {
            return Ok(Self::One(one));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(no_address)?;
        let port = port.parse().map_err(|_| no_address())?;
        match host {
            "localhost" => Ok(Self::Localhost(port)),
            "" => Ok(Self::Everywhere(port)),
            _ => Err(no_address()),
        }
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Localhost(port) => write!(f, "localhost:{port}"),
            Self::Everywhere(port) => write!(f, ":{port}"),
            Self::One(address) => address.fmt(f),
        }
    }
}

impl Address {
    /// Only programs of this machine (or Pod) can reach it.
    pub(crate) fn is_loopback(self) -> bool {
        match self {
            Self::Localhost(_) => true,
            Self::Everywhere(_) => false,
            Self::One(address) => address.ip().to_canonical().is_loopback(),
        }
    }

    /// Whether both want a socket at the same place, so that only one of them can have it.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let hosts = |address: Self| {
            let (first, second) = address.hosts();
            [Some(first), second].into_iter().flatten()
        };
        let meet = |one: IpAddr, two: IpAddr| {
            one.is_ipv4() == two.is_ipv4()
                && (one == two || one.is_unspecified() || two.is_unspecified())
        };
        self.port() == other.port()
            && self.port() > 0
            && hosts(self).any(|one| hosts(other).any(|two| meet(one, two)))
    }

    /// An address to reach it at from this machine.
    pub(crate) fn reachable(self) -> String {
        match self {
            Self::Localhost(port) | Self::Everywhere(port) => format!("localhost:{port}"),
            Self::One(address) if address.ip().is_unspecified() => {
                // The other family's port may be another program's.
                let loopback: IpAddr = match address.ip() {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                };
                SocketAddr::new(loopback, address.port()).to_string()
            }
            Self::One(address) => address.to_string(),
        }
    }

    /// 0 stands for any that is free.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Localhost(port) | Self::Everywhere(port) => port,
            Self::One(address) => address.port(),
        }
    }

    /// The same with another port.
    pub(crate) fn with_port(self, port: u16) -> Self {
        match self {
            Self::Localhost(_) => Self::Localhost(port),
            Self::Everywhere(_) => Self::Everywhere(port),
            Self::One(address) => Self::One(SocketAddr::new(address.ip(), port)),
        }
    }

    /// The hosts whose port it takes.
    fn hosts(self) -> (IpAddr, Option<IpAddr>) {
        match self {
            Self::Localhost(_) => (Ipv4Addr::LOCALHOST.into(), Some(Ipv6Addr::LOCALHOST.into())),
            Self::Everywhere(_) => (
                Ipv4Addr::UNSPECIFIED.into(),
                Some(Ipv6Addr::UNSPECIFIED.into()),
            ),
            Self::One(address) => (address.ip(), None),
        }
    }

    /// Opens the sockets. A family that this machine does not have is left out; port 0 takes one free port for all.
    pub(crate) fn bind(self) -> io::Result<Vec<TcpListener>> {
        let listening = self.sockets()?.into_iter().map(|socket| {
            socket.listen(1024)?;
            TcpListener::from_std(socket.into())
        });
        listening.collect()
    }

    /// Finds out whether the address could be listened on, without listening.
    ///
    /// # Errors
    /// Why it could not.
    pub(crate) fn look(self) -> io::Result<()> {
        self.sockets().map(drop)
    }

    /// Sockets that have the address.
    fn sockets(self) -> io::Result<Vec<Socket>> {
        let ((first, second), port) = (self.hosts(), self.port());
        // With port 0 the one that is free for the first family may be taken in the second: then another is drawn.
        let mut draws = if port == 0 { 20 } else { 1 };
        loop {
            draws -= 1;
            let socket = match (open(SocketAddr::new(first, port)), second) {
                (Err(error), Some(second)) if absent(&error) => {
                    return Ok(vec![open(SocketAddr::new(second, port))?]);
                }
                (socket, _) => socket?,
            };
            let Some(second) = second else {
                return Ok(vec![socket]);
            };
            let local = socket.local_addr()?.as_socket();
            let port = local.map_or(port, |local| local.port());
            match open(SocketAddr::new(second, port)) {
                Ok(other) => return Ok(vec![socket, other]),
                Err(error) if absent(&error) => return Ok(vec![socket]),
                Err(_) if draws > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The machine does not have that family.
fn absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(97 /* EAFNOSUPPORT, which has no kind */)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    // A restart must not wait until the connections of the last run have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Each family has its own socket: what an IPv6 socket does with IPv4 differs between machines.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

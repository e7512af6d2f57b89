//! Sockets that are open and not served yet: every one is opened before any is served.

use std::fmt::{self, Display};
use std::io;

use tokio::net::TcpListener;
use tokio_util::either::Either;

use crate::server::{Address, InheritedSocket, ListenAddr, Listener, SocketFile};

/// A place to listen at that cannot be had.
#[derive(Debug)]
pub(crate) struct CannotBind {
    key: &'static str,
    why: String,
    is_taken: bool,
}

impl Display for CannotBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

impl CannotBind {
    fn tcp(key: &'static str, address: Address, error: &io::Error) -> Self {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    "the port of {address} is taken: end what listens there, or set another {key}"
                )
            }
            io::ErrorKind::PermissionDenied => {
                format!("this user may not listen on {address}: take a port of 1024 or more")
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        Self {
            key,
            why,
            is_taken: error.kind() == io::ErrorKind::AddrInUse,
        }
    }

    /// Somebody else has the port.
    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken
    }
}

/// The sockets of an address, and the address with the port that was taken.
pub(crate) struct Bound {
    pub(super) listeners: Vec<Listener>,
    pub(crate) address: Address,
}

impl Bound {
    /// Opens them. `key` is the setting that names the address.
    pub(crate) fn new(key: &'static str, address: Address) -> Result<Self, CannotBind> {
        let opened = address.bind().and_then(|listeners| {
            let port = listeners
                .first()
                .map(TcpListener::local_addr)
                .transpose()?
                .map_or(0, |local| local.port());
            let listeners = listeners.into_iter().map(Either::Left).collect();
            Ok(Self {
                listeners,
                address: address.with_port(port),
            })
        });
        opened.map_err(|error| CannotBind::tcp(key, address, &error))
    }
}

/// The API's way in, whichever it is.
pub(crate) struct Opened {
    pub(super) listeners: Vec<Listener>,
    /// Where it is, for the log.
    pub(super) place: String,
    pub(super) file: Option<SocketFile>,
}

impl From<Bound> for Opened {
    fn from(bound: Bound) -> Self {
        Self {
            listeners: bound.listeners,
            place: bound.address.to_string(),
            file: None,
        }
    }
}

impl Opened {
    /// Opens it; `inherited` is the socket that the address names, where it names one that was passed.
    pub(crate) fn new(
        listen_addr: &ListenAddr,
        inherited: Option<&InheritedSocket>,
    ) -> Result<Self, CannotBind> {
        const KEY: &str = "listen.address";
        let cannot = |why| CannotBind {
            key: KEY,
            why,
            is_taken: false,
        };
        match (listen_addr, inherited) {
            (ListenAddr::Tcp(address), _) => Ok(Bound::new(KEY, *address)?.into()),
            (ListenAddr::Unix(path), _) => {
                let (file, listener) = SocketFile::open(path).map_err(cannot)?;
                Ok(Self {
                    listeners: vec![Either::Right(listener)],
                    place: listen_addr.to_string(),
                    file: Some(file),
                })
            }
            (ListenAddr::Inherited(_), Some(inherited)) => {
                let listener = inherited
                    .listener()
                    .map_err(|error| cannot(format!("{listen_addr}: {error}")))?;
                Ok(Self {
                    listeners: vec![listener],
                    place: inherited.place(),
                    file: None,
                })
            }
            (ListenAddr::Inherited(_), None) => Err(cannot(format!(
                "no socket was passed to this process as {listen_addr} (LISTEN_FDS and LISTEN_PID tell): \
                 start it by its socket unit, or set another {KEY}"
            ))),
        }
    }
}

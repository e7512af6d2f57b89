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

/// The API's ways in, whichever they are.
#[derive(Default)]
pub(crate) struct Opened {
    pub(super) listeners: Vec<Listener>,
    /// Where they are, for the log.
    pub(super) places: Vec<String>,
    pub(super) files: Vec<SocketFile>,
}

impl From<Bound> for Opened {
    fn from(bound: Bound) -> Self {
        Self {
            listeners: bound.listeners,
            places: vec![bound.address.to_string()],
            files: Vec::new(),
        }
    }
}

impl Opened {
    /// Opens all of these; `inherited` has the sockets that were passed.
    pub(crate) fn new(
        addresses: &[ListenAddr],
        inherited: &[InheritedSocket],
    ) -> Result<Self, CannotBind> {
        let mut opened = Self::default();
        for address in addresses {
            let place = opened.open(address, inherited)?;
            opened.places.push(place);
        }
        Ok(opened)
    }

    /// Opens this one; gives where it is.
    fn open(
        &mut self,
        address: &ListenAddr,
        inherited: &[InheritedSocket],
    ) -> Result<String, CannotBind> {
        const KEY: &str = "listen.address";
        let cannot = |why| CannotBind {
            key: KEY,
            why,
            is_taken: false,
        };
        match address {
            ListenAddr::Tcp(tcp) => {
                let bound = Bound::new(KEY, *tcp)?;
                self.listeners.extend(bound.listeners);
                Ok(bound.address.to_string())
            }
            ListenAddr::Unix(path) => {
                let (file, listener) = SocketFile::open(path).map_err(cannot)?;
                self.listeners.push(Either::Right(listener));
                self.files.push(file);
                Ok(address.to_string())
            }
            ListenAddr::Inherited(number) => {
                let passed = inherited.iter().find(|socket| socket.number() == *number);
                let passed = passed.ok_or_else(|| {
                    cannot(format!(
                        "no socket was passed to this process as {address} (LISTEN_FDS and LISTEN_PID tell): \
                         start it by its socket unit, or set another {KEY}"
                    ))
                })?;
                let listener = passed.listener();
                let listener = listener.map_err(|error| cannot(format!("{address}: {error}")))?;
                self.listeners.push(listener);
                Ok(passed.place())
            }
        }
    }
}

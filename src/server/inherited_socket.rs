//! A socket that this process was started with: systemd listens, and we take over from there.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::either::Either;

use super::listener::Listener;

/// A socket that listens, TCP or Unix as it says itself.
pub(crate) struct InheritedSocket {
    /// The number that it was passed as.
    number: RawFd,
    socket: Socket,
}

impl InheritedSocket {
    /// Takes it, if it is one that we can listen on.
    ///
    /// # Errors
    /// Says what it is instead.
    pub(crate) fn new(socket: &Socket) -> Result<Self, String> {
        let system = |error: io::Error| format!("it cannot be used: {error}");
        if !socket.is_listener().map_err(system)? {
            let help = "with systemd, Accept=no in the socket unit";
            return Err(format!("it is a connection, or not listening yet ({help})"));
        }
        let known =
            [Domain::UNIX, Domain::IPV4, Domain::IPV6].contains(&socket.domain().map_err(system)?);
        if !known || socket.r#type().map_err(system)? != Type::STREAM {
            return Err("it is neither TCP nor a Unix stream socket".to_owned());
        }
        Ok(Self {
            number: socket.as_raw_fd(),
            socket: socket.try_clone().map_err(system)?,
        })
    }

    /// The number that it was passed as.
    pub(crate) fn number(&self) -> RawFd {
        self.number
    }

    /// Only who may open its file reaches it.
    pub(crate) fn is_unix(&self) -> bool {
        self.socket
            .domain()
            .is_ok_and(|domain| domain == Domain::UNIX)
    }

    /// Other machines reach it.
    pub(crate) fn is_exposed(&self) -> bool {
        let local = self
            .socket
            .local_addr()
            .ok()
            .and_then(|local| local.as_socket());
        !self.is_unix() && !local.is_some_and(|local| local.ip().to_canonical().is_loopback())
    }

    /// Where it listens, for the log.
    pub(crate) fn place(&self) -> String {
        let Ok(local) = self.socket.local_addr() else {
            return "nowhere".to_owned();
        };
        match (local.as_socket(), local.as_pathname()) {
            (Some(address), _) => address.to_string(),
            (None, Some(path)) => format!("unix:{}", path.display()),
            (None, None) => "unix: without a path".to_owned(),
        }
    }

    /// As one that we accept from. Its file, if it has one, stays with who made it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn listener(&self) -> io::Result<Listener> {
        self.socket.set_nonblocking(true)?;
        let socket = OwnedFd::from(self.socket.try_clone()?);
        Ok(match self.is_unix() {
            true => Either::Right(UnixListener::from_std(socket.into())?),
            false => Either::Left(TcpListener::from_std(socket.into())?),
        })
    }
}

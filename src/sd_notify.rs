//! Notifies the service manager that started us (sd_notify(3)): ready, stopping, still alive.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clock;

/// A manager that does not read holds us up no longer than this.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager, if there is one that wants notifications.
#[derive(Default)]
pub(crate) struct SdNotify {
    address: Option<SocketAddr>,
    /// A process that is silent for longer is taken for dead, and started again.
    watchdog: Option<Duration>,
}

/// One notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceState {
    /// Callers are answered.
    Ready,
    /// The end has begun.
    Stopping,
    /// Still alive.
    Alive,
}

impl SdNotify {
    /// Listens at a path, or at an abstract name that is written with an `@` before it.
    ///
    /// # Errors
    /// It is no address that a datagram can be sent to.
    pub(crate) fn at(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "neither a path nor an abstract name",
                ));
            }
        };
        Ok(Self {
            address: Some(address),
            watchdog,
        })
    }

    /// Notifies it; logs when that fails.
    pub(crate) fn tell(&self, state: ServiceState) {
        let Some(address) = &self.address else { return };
        let message: &[u8] = match state {
            ServiceState::Ready => b"READY=1",
            ServiceState::Stopping => b"STOPPING=1",
            ServiceState::Alive => b"WATCHDOG=1",
        };
        let told = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
            socket.send_to_addr(message, address)
        });
        if let Err(error) = told {
            tracing::warn!(?state, %error, "the service manager (NOTIFY_SOCKET) cannot be told");
        }
    }

    /// Notifies it in time, again and again, that we are alive. Never returns.
    pub(crate) async fn keep_alive(&self) -> Infallible {
        let Some(limit) = self.watchdog.filter(|_| self.address.is_some()) else {
            return std::future::pending().await;
        };
        loop {
            self.tell(ServiceState::Alive);
            clock::sleep(limit / 2).await;
        }
    }
}

//! Notifies the service manager that started this process (sd_notify(3)): ready, stopping, still alive.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clock;

/// How long a notification may block if the manager does not read it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The service manager, if there is one that wants notifications.
#[derive(Default)]
pub(crate) struct SdNotify {
    address: Option<SocketAddr>,
    /// The time without a sign of life after which the manager restarts this process.
    watchdog: Option<Duration>,
}

/// One notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceState {
    /// Requests are answered.
    Ready,
    /// The shutdown has begun.
    Stopping,
    /// The process is alive.
    Alive,
}

impl SdNotify {
    /// A service manager at a path, or at an abstract name with an `@` before it.
    ///
    /// # Errors
    /// Fails if the address is neither.
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

    /// Sends a notification. Logs a failure.
    pub(crate) fn tell(&self, state: ServiceState) {
        let Some(address) = &self.address else { return };
        let message: &[u8] = match state {
            ServiceState::Ready => b"READY=1",
            ServiceState::Stopping => b"STOPPING=1",
            ServiceState::Alive => b"WATCHDOG=1",
        };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
            socket.send_to_addr(message, address)
        });
        if let Err(error) = sent {
            tracing::warn!(?state, %error, "the service manager (NOTIFY_SOCKET) cannot be told");
        }
    }

    /// Sends signs of life, twice as often as the manager expects them. Never returns.
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

//! Sockets that take connections.

use std::io;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use super::write_timeout::WRITE_TIMEOUT;

/// A socket that takes connections.
pub(crate) type Listener = Either<TcpListener, UnixListener>;
/// A connection.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// What the system keeps for one that does not read; it doubles this (socket(7)), and would take megabytes.
const SEND_BUFFER: usize = 64 * 1024;

/// What every connection inherits from its listener (tcp(7)). The gate sees only who lets the system's buffers fill up:
/// that the little in them is read is for the system to see to. A Unix socket has no such options, and needs none but
/// the timer: what one of its callers does not read is at most 208 KiB, and stays in the caller's own buffer.
pub(super) fn prepare(listener: &Listener) -> io::Result<()> {
    let Either::Left(tcp) = listener else {
        return Ok(());
    };
    let socket = SockRef::from(tcp);
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_user_timeout(Some(WRITE_TIMEOUT))?;
    Ok(())
}

/// The next connection.
pub(super) async fn accept(listener: &Listener) -> io::Result<Stream> {
    Ok(match listener {
        Either::Left(tcp) => Either::Left(tcp.accept().await?.0),
        Either::Right(unix) => Either::Right(unix.accept().await?.0),
    })
}

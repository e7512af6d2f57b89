//! HTTP/1.1 in: listeners, the limits of a connection, and the end of both. What is said over it is the service's.

mod address;
mod answered;
mod chunk;
mod connection;
mod fd_limit;
#[cfg(fuzzing)]
pub mod fuzz;
mod gate;
mod head;
mod inherited_socket;
mod listen_addr;
mod socket_file;
mod write_timeout;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;
use tower::Service;

pub(crate) use self::address::Address;
pub(crate) use self::connection::ConnectionHandle;
pub(crate) use self::fd_limit::room_for;
pub(crate) use self::inherited_socket::InheritedSocket;
pub(crate) use self::listen_addr::ListenAddr;
pub(crate) use self::socket_file::SocketFile;
use crate::clock;

/// A socket that takes connections.
pub(crate) type Listener = Either<TcpListener, UnixListener>;
/// A connection.
type Stream = Either<TcpStream, UnixStream>;

/// Any error, for where nobody looks at its kind.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Whether the Host is a name that only this machine can mean by it, whatever its port and case: another one can be a
/// page's own name that was made to point here (DNS rebinding). Its form is the gate's matter.
pub(crate) fn is_local_host(headers: &HeaderMap) -> bool {
    let host = headers
        .get(HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|local| name.eq_ignore_ascii_case(local))
}

/// What one connection may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A connection over it gets [`Rejection::Overloaded`] and is closed.
    pub(crate) max_connections: usize,
    /// From the first byte of a request, or of a silent new connection, to the end of its head.
    pub(crate) header_timeout: Duration,
    /// A kept-alive connection between two requests.
    pub(crate) idle_timeout: Duration,
}

/// Why a request gets no further than its form. The connection ends after the answer, and no later byte of it is read as
/// a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// It is not a request as RFC 9112 has it, or two readers could read it in two ways; says where.
    Malformed(&'static str),
    /// The head is over 16 KiB, or has more than 100 fields.
    HeadersTooLarge,
    /// The target is over 8 KiB.
    TargetTooLong,
    /// It expects something else than `100-continue`.
    Expectation,
    /// The head did not come in time.
    TooSlow,
    /// There are as many connections as there may be.
    Overloaded,
}

/// A server and everything that runs in it. Dropping it does not end it: [`Server::close`] does.
pub(crate) struct Server {
    limits: Limits,
    slots: Arc<Semaphore>,
    /// Connections over the limit that get an answer; over this limit they are just closed.
    told: Arc<Semaphore>,
    /// One token for each request that the service is answering.
    requests: TaskTracker,
    connections: TaskTracker,
    stage: watch::Sender<Stage>,
}

/// A server's life, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// No new connection is taken; those open go on.
    NoMore,
    /// Every connection ends as soon as it is between two requests.
    Closing,
}

/// Each of them costs a socket for as long as a rejection lingers.
const MAX_TOLD: usize = 512;
/// Longest that what there is for the other side waits to be read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// What the system keeps for one that does not read; it doubles this (socket(7)), and would take megabytes.
const SEND_BUFFER: usize = 64 * 1024;

impl Server {
    /// A server that serves nothing yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(
                limits.max_connections.min(Semaphore::MAX_PERMITS),
            )),
            told: Arc::new(Semaphore::new(MAX_TOLD)),
            limits,
            requests: TaskTracker::new(),
            connections: TaskTracker::new(),
            stage: watch::Sender::new(Stage::Open),
        }
    }

    /// Accepts from the listener until the server drains. A request that is refused by its form is answered by
    /// `rejections` and never reaches the service. An error of the service cuts its connection without an answer.
    pub(crate) fn serve<S, R>(self: &Arc<Self>, listener: Listener, service: S, rejections: R)
    where
        S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Unpin + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        R: Fn(Rejection, &Parts) -> Response<Body> + Clone + Unpin + Send + 'static,
    {
        if let Err(error) = prepare(&listener) {
            tracing::warn!(%error, "connections keep the system's own limits");
        }
        let server = self.clone();
        let mut stage = self.stage.subscribe();
        // One task a listener: accepting waits for nothing else.
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    () = reached(&mut stage, Stage::NoMore) => return,
                    accepted = accept(&listener) => match accepted {
                        Ok(stream) => stream,
                        Err(error) => {
                            // Out of file descriptors, mostly: without a pause this loop would spin until one is free.
                            tracing::warn!(%error, "no connection could be accepted");
                            clock::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    },
                };
                let Some((slot, refused)) = server.slot() else {
                    continue;
                };
                let (service, rejections) = (service.clone(), rejections.clone());
                // One task a connection.
                let connection =
                    connection::run(server.clone(), stream, slot, refused, service, rejections);
                server.connections.spawn(connection);
            }
        });
    }

    /// A place for a new connection, and what it is refused for where there are too many; `None`: it is just closed.
    fn slot(&self) -> Option<(OwnedSemaphorePermit, Option<Rejection>)> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Some((slot, None));
        }
        let slot = self.told.clone().try_acquire_owned().ok()?;
        Some((slot, Some(Rejection::Overloaded)))
    }

    /// Takes no new connection from here on; those open go on.
    pub(crate) fn stop_accepting(&self) {
        self.stage.send_replace(Stage::NoMore);
    }

    /// Returns when no request is being answered.
    pub(crate) async fn idle(&self) {
        self.requests.close();
        self.requests.wait().await;
    }

    /// Ends every connection as soon as it is between two requests, and returns when all have ended.
    pub(crate) async fn close(&self) {
        self.stage.send_replace(Stage::Closing);
        self.connections.close();
        self.connections.wait().await;
    }
}

/// What every connection inherits from its listener (tcp(7)). The gate sees only who lets the system's buffers fill up:
/// that the little in them is read is for the system to see to. A Unix socket has no such options, and needs none but
/// the timer: what one of its callers does not read is at most 208 KiB, and stays in the caller's own buffer.
fn prepare(listener: &Listener) -> io::Result<()> {
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
async fn accept(listener: &Listener) -> io::Result<Stream> {
    Ok(match listener {
        Either::Left(tcp) => Either::Left(tcp.accept().await?.0),
        Either::Right(unix) => Either::Right(unix.accept().await?.0),
    })
}

/// Returns when the server has come so far.
async fn reached(stage: &mut watch::Receiver<Stage>, far: Stage) {
    // The sender lives as long as the server, and whoever waits here holds the server.
    let _ = stage.wait_for(|stage| *stage >= far).await;
}

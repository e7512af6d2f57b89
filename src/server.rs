//! HTTP/1.1 in: listeners, the limits of a connection, and the end of both. What is said over it is the service's.

mod address;
mod answered;
mod chunk;
mod fd_limit;
#[cfg(fuzzing)]
pub mod fuzz;
mod gate;
mod head;
mod inherited_socket;
mod listen_addr;
mod socket_file;
mod write_timeout;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

pub(crate) use self::address::Address;
use self::answered::{Answered, Answering};
pub(crate) use self::fd_limit::room_for;
use self::gate::Gate;
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

/// Why a request gets no further than its form. It comes to the service as an extension of a stand-in request, in the
/// order of the connection's requests; the connection ends after the answer, and no later byte of it is read as a
/// request.
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

/// An extension of every request: whether its caller still listens, and whether it may go on.
#[derive(Clone, Default)]
pub(crate) struct ConnectionHandle {
    hung_up: CancellationToken,
    last: CancellationToken,
}

impl ConnectionHandle {
    /// The connection ends with this answer, though its head is out already.
    pub(crate) fn close_after(&self) {
        self.last.cancel();
    }

    /// Returns when the other side has closed its sending half: it has hung up, or says so for whatever reason. One
    /// that sends very much beforehand is not looked at.
    pub(crate) async fn hung_up(&self) {
        self.hung_up.cancelled().await;
    }
}

/// An error of the service: the connection is cut.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cut(BoxError);

/// What was decided about the requests of one connection, in their order; the gate writes it, the service reads it.
type Verdicts = Arc<Mutex<VecDeque<Option<Rejection>>>>;

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

    /// Accepts from the listener until the server drains. An error of the service cuts its connection without an
    /// answer.
    pub(crate) fn serve<S>(self: &Arc<Self>, listener: Listener, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Unpin + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
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
                let (slot, rejection) = match server.slots.clone().try_acquire_owned() {
                    Ok(slot) => (slot, None),
                    Err(_) => match server.told.clone().try_acquire_owned() {
                        Ok(slot) => (slot, Some(Rejection::Overloaded)),
                        Err(_) => continue,
                    },
                };
                // One task a connection.
                let connection =
                    server
                        .clone()
                        .connection(stream, slot, rejection, service.clone());
                server.connections.spawn(connection);
            }
        });
    }

    async fn connection<S>(
        self: Arc<Self>,
        stream: Stream,
        _slot: OwnedSemaphorePermit,
        rejection: Option<Rejection>,
        service: S,
    ) where
        S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Unpin + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
    {
        let verdicts = Verdicts::default();
        let handle = ConnectionHandle::default();
        let gate = Gate::new(
            stream,
            self.limits,
            rejection,
            verdicts.clone(),
            handle.hung_up.clone(),
        );
        let last = handle.last.clone();
        let requests = self.requests.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let busy = requests.token();
            let (verdict, has_sent_more) = {
                let verdicts = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                (verdicts.front().copied().flatten(), verdicts.len() > 1)
            };
            request.extensions_mut().insert(handle.clone());
            if let Some(rejection) = verdict {
                request.extensions_mut().insert(rejection);
            }
            let (service, answering) = (service.clone(), Answering(verdicts.clone()));
            Box::pin(async move {
                if has_sent_more {
                    // Many requests at once would be answered in one go, and every other connection would wait for it.
                    tokio::task::yield_now().await;
                }
                // Made in here: one that is moved in has its room twice, where it came in and where it is awaited.
                let answer = service
                    .oneshot(request)
                    .await
                    .map_err(|error| Cut(error.into()));
                drop(busy);
                answer.map(|answer| {
                    answer.map(|body| Answered {
                        body,
                        _answering: answering,
                    })
                })
            })
        });
        // The gate is as strict or stricter in all of these, so that the words of a rejection are the service's. The number
        // of fields stays hyper's own, which is the gate's too: for any other hyper takes 8 KiB from the heap each time.
        let mut connection = http1::Builder::new()
            .max_buf_size(64 * 1024)
            .header_read_timeout(None)
            // Who sends a whole request and closes that direction still wants the answer.
            .half_close(true)
            .serve_connection(TokioIo::new(gate), service);
        let mut stage = self.stage.subscribe();
        let (mut closing, mut ending) = (false, false);
        let ended = loop {
            tokio::select! {
                ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
                () = reached(&mut stage, Stage::Closing), if !closing => {
                    closing = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                () = last.cancelled(), if !ending => {
                    ending = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        let stream = connection.into_parts().io.into_inner().into_inner();
        match ended {
            Err(error) if error.is_user() => {
                // The service wants the connection cut: an orderly end could be taken for the end of an answer.
                if let Either::Left(tcp) = &stream {
                    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
                }
            }
            _ if closing => {}
            _ => linger(stream).await,
        }
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

/// Ends a connection so that the other side sees the answer: closing a socket with unread bytes in it makes the system
/// send a reset, which can overtake the answer. So: say that we are done, and throw away what still comes, for a
/// moment and up to a bound (RFC 9112, section 9.6).
async fn linger(mut stream: Stream) {
    const PATIENCE: Duration = Duration::from_secs(1);
    const MOST: usize = 1 << 20;
    if stream.shutdown().await.is_err() {
        return;
    }
    let _ = clock::timeout(PATIENCE, async {
        // On the heap: every connection has room for this future, and few of them have anything left to read.
        let mut buffer = vec![0; 4096];
        let mut thrown_away = 0;
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            thrown_away += n;
            if thrown_away > MOST {
                break;
            }
        }
    })
    .await;
}

//! HTTP/1.1 in: listeners, the limits of a connection, and the end of both. What is said over it is the service's.

mod address;
mod answered;
mod body;
mod chunk;
mod connection;
mod fd_limit;
#[cfg(fuzzing)]
pub mod fuzz;
mod gate;
mod head;
mod inherited_socket;
mod limits;
mod listen_addr;
mod listener;
mod places;
mod rejection;
mod shared;
mod socket_file;
mod write_timeout;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Request, Response};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tower::Service;

pub(crate) use self::address::Address;
pub(crate) use self::body::{Body, BoxError, full};
pub(crate) use self::connection::ConnectionHandle;
pub(crate) use self::fd_limit::{look as look_at_files, room_for};
pub(crate) use self::inherited_socket::InheritedSocket;
pub(crate) use self::limits::{Hosts, Limits};
pub(crate) use self::listen_addr::ListenAddr;
pub(crate) use self::listener::Listener;
use self::listener::{accept, prepare};
use self::places::Places;
pub(crate) use self::rejection::Rejection;
use self::shared::{Shared, Stage, reached};
pub(crate) use self::socket_file::SocketFile;
use crate::clock;

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

/// A server and everything that runs in it. Dropping it does not end it: [`Server::close`] does.
pub(crate) struct Server {
    shared: Arc<Shared>,
    places: Arc<Places>,
    connections: TaskTracker,
}

impl Server {
    /// A server that serves nothing yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            places: Arc::new(Places::new(limits.max_connections)),
            connections: TaskTracker::new(),
            shared: Arc::new(Shared {
                limits,
                requests: TaskTracker::new(),
                stage: watch::Sender::new(Stage::Open),
            }),
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
        let mut stage = self.shared.stage.subscribe();
        // One task a listener: accepting waits for nothing else.
        let accepts = async move {
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
                let place = server.places.take();
                let (service, rejections) = (service.clone(), rejections.clone());
                // One task a connection.
                let connection =
                    connection::run(server.shared.clone(), stream, place, service, rejections);
                server.connections.spawn(connection);
            }
        };
        // Boxed, because tokio's part of a task is compiled twice for each kind of future.
        tokio::spawn(accepts.boxed());
    }

    /// Takes no new connection from here on; those open go on.
    pub(crate) fn stop_accepting(&self) {
        self.shared.stage.send_replace(Stage::NoMore);
    }

    /// Returns when no request is being answered.
    pub(crate) async fn idle(&self) {
        self.shared.requests.close();
        self.shared.requests.wait().await;
    }

    /// Ends every connection as soon as it is between two requests, and returns when all have ended.
    pub(crate) async fn close(&self) {
        self.shared.stage.send_replace(Stage::Closing);
        self.connections.close();
        self.connections.wait().await;
    }
}

//! A small HTTP client for the commands that talk to a running tillgate.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use crate::clock;
use crate::server::BoxError;

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// Sends one request over a TCP connection of its own.
///
/// # Errors
/// Fails if the connection fails, the body is over 1 MiB, or a step takes more than 15 seconds.
pub(super) async fn call(request: Request<Full<Bytes>>) -> Result<Answer, BoxError> {
    let uri = request.uri();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(80);
    // A hosts file may lack localhost, or have it for a family that this machine does not have.
    let stream = match host {
        "localhost" => within(TcpStream::connect(&loopbacks(port)[..])).await,
        _ => within(TcpStream::connect((host, port))).await,
    };
    exchange(Either::Left(stream??), request).await
}

fn loopbacks(port: u16) -> [SocketAddr; 2] {
    [
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    ]
}

/// Sends one request over a connection of its own to the Unix socket at this path.
pub(super) async fn call_unix(
    path: &Path,
    request: Request<Full<Bytes>>,
) -> Result<Answer, BoxError> {
    let stream = within(UnixStream::connect(path)).await??;
    exchange(Either::Right(stream), request).await
}

async fn exchange(
    stream: Either<TcpStream, UnixStream>,
    mut request: Request<Full<Bytes>>,
) -> Result<Answer, BoxError> {
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::try_from(authority.as_str())?;
        request.headers_mut().entry(HOST).or_insert(host);
    }
    if let Some(path) = request.uri().path_and_query() {
        *request.uri_mut() = path.clone().into();
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, 1 << 20).collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    };
    // The connection ends once its sender is dropped; the exchange gets its errors.
    let (answer, _) = within(async { tokio::join!(exchange, connection) }).await?;
    answer
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, BoxError> {
    Ok(clock::timeout(Duration::from_secs(15), work).await?)
}

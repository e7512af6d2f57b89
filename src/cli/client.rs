//! A small HTTP client for the commands that talk to a running tillgate.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::Connect;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;

use crate::clock;
use crate::serve::BoxError;

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// Sends one request over a connection of its own.
pub(super) async fn call(request: Request<Full<Bytes>>) -> Result<Answer, BoxError> {
    exchange(Client::builder(TokioExecutor::new()).build_http(), request).await
}

/// The same over the socket at this path.
pub(super) async fn call_unix(path: &Path, request: Request<Full<Bytes>>) -> Result<Answer, BoxError> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    });
    exchange(Client::builder(TokioExecutor::new()).build(connector), request).await
}

async fn exchange<C>(client: Client<C, Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Answer, BoxError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let exchange = async {
        let (head, body) = client.request(request).await?.into_parts();
        let body = Limited::new(body, 1 << 20).collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    clock::timeout(Duration::from_secs(15), exchange).await?
}

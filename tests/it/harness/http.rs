//! Requests, and connections that they go over.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::answer::{first_answer, is_described};
use super::{Answer, PATIENCE, Stream};
use crate::described::DOCUMENT;

/// A GET with a good Host.
pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header("host", "localhost")
        .body(Full::default())
        .unwrap()
}

/// A GET that asks for a stream, from after the event of that id if there is one.
pub fn get_stream(path: &str, last_event_id: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = get(path);
    let headers = request.headers_mut();
    headers.insert("accept", "text/event-stream".parse().unwrap());
    if let Some(id) = last_event_id {
        headers.insert("last-event-id", id.parse().unwrap());
    }
    request
}

/// A POST of JSON with a good Host.
pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/json");
    request.body(Full::new(body.into())).unwrap()
}

/// One request over a connection of its own.
pub async fn call(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let own = async || Box::pin(call(address, Method::GET, "/openapi.json", headers, "")).await;
    call_over(
        TcpStream::connect(address).await.expect("it listens"),
        method,
        path,
        headers,
        body,
        own,
    )
    .await
}

/// The same over the socket of this file.
pub async fn call_unix(
    socket: &Path,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let own = async || Box::pin(call_unix(socket, Method::GET, "/openapi.json", headers, "")).await;
    call_over(
        UnixStream::connect(socket).await.expect("it listens"),
        method,
        path,
        headers,
        body,
        own,
    )
    .await
}

/// `own` asks the same sidecar for its description.
async fn call_over<S>(
    stream: S,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    own: impl AsyncFnOnce() -> Answer,
) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let asked = method.clone();
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap();
    let sent = request.headers().clone();
    let (head, bytes) = sender
        .send_request(request)
        .await
        .expect("an answer")
        .into_parts();
    let answer = Answer::of(Response::from_parts(
        head,
        bytes.collect().await.expect("a whole body").to_bytes(),
    ));
    if answer.is_of_the_api() {
        is_described(&asked, path, &sent, body, &answer, own).await;
    }
    answer
}

/// One request over a connection of its own, and the bytes that come back until its end, or until nobody waits any
/// longer: whoever is at the other end may be killed at any moment.
pub async fn exchange(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    patience: Duration,
) -> Vec<u8> {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let mut read = Vec::new();
    let talk = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        while stream.read_buf(&mut read).await.ok()? > 0 {}
        Some(())
    };
    let _ = tokio::time::timeout(patience, talk).await;
    read
}

/// A stream over a connection of its own, with these headers, if there is an answer.
pub async fn try_stream_at(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> Option<Stream> {
    let mut request = get_stream(path, None);
    for (name, value) in headers {
        let name: hyper::header::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.ok()?.into_parts();
    if let Err(fault) = DOCUMENT.head(path, head.status.as_u16(), &head.headers) {
        panic!("openapi.json does not describe this answer to {path}: {fault}");
    }
    let body = body.map_err(Into::into).boxed_unsync();
    Some(Stream {
        target: path.to_owned(),
        status: head.status.as_u16(),
        headers: head.headers,
        retry: String::new(),
        body: body.into_data_stream(),
        read: String::new(),
    })
}

/// A start over a connection of its own.
pub async fn start_at(address: SocketAddr, body: &str) -> Answer {
    let json = [("content-type", "application/json")];
    call(address, Method::POST, "/api/start_payment", &json, body).await
}

/// A GET over a connection of its own.
pub async fn get_at(address: SocketAddr, path: &str) -> Answer {
    call(address, Method::GET, path, &[], "").await
}

/// The value of a metric, as [`Answer::metric`] reads it.
pub async fn metric_at(admin: SocketAddr, name: &str) -> u64 {
    get_at(admin, "/metrics").await.metric(name)
}

/// The status of a payment, asked of the gateway whatever is in memory.
pub async fn watch_anew(address: SocketAddr, code: &str) -> Answer {
    let anew = [("cache-control", "no-cache")];
    call(address, Method::GET, &format!("/watch/{code}"), &anew, "").await
}

/// One HTTP/1.1 connection, byte by byte.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.expect("it listens"),
            read: Vec::new(),
        }
    }

    /// Writes these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .await
            .expect("it reads");
    }

    /// The next whole answer.
    pub async fn answer(&mut self) -> Answer {
        let read = async {
            loop {
                if let Some((answer, length)) = first_answer(&self.read) {
                    self.read.drain(..length);
                    return answer;
                }
                let n = self
                    .stream
                    .read_buf(&mut self.read)
                    .await
                    .expect("an answer before a reset");
                assert!(
                    n > 0,
                    "closed before a whole answer: {:?}",
                    String::from_utf8_lossy(&self.read)
                );
            }
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("an answer in time")
    }

    /// Everything up to an orderly end, as answers.
    pub async fn answers(mut self) -> Vec<Answer> {
        let end = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await;
        end.expect("an end in time").expect("an orderly end");
        Answer::all(&self.read).unwrap()
    }

    /// The other side closes, and says nothing more.
    pub async fn closed(self) {
        let rest = self.answers().await;
        assert!(rest.is_empty(), "{rest:?}");
    }

    /// The stream, for what is not one request after the other.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.read.is_empty());
        self.stream
    }
}

//! One server for all the gateways, apps and proxies that tests write byte by byte.

use std::future::Future;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Listens until it is dropped, which ends its connections too.
pub struct Server {
    pub address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// On a free port; `serve` is given each connection.
    pub async fn new<F>(serve: impl FnMut(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Self::at("127.0.0.1:0", serve).await
    }

    /// The same at this address.
    pub async fn at<F>(
        address: &str,
        mut serve: impl FnMut(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().unwrap();
        let accept = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let served = serve(stream);
                connections.spawn(async move { drop(served.await) });
            }
        };
        Self {
            address,
            _task: AbortOnDropHandle::new(tokio::spawn(accept)),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The next whole request, head and body, of a connection; `None` at its end. What came behind it stays in `read`, also
/// where this is given up in the middle.
pub async fn next_request(
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut Vec<u8>,
) -> Option<String> {
    loop {
        if let Some(length) = whole(read) {
            let request = read.drain(..length).collect();
            return Some(String::from_utf8(request).expect("UTF-8"));
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

/// How long the request at the start of these bytes is, when it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let length = field(&String::from_utf8_lossy(&bytes[..head]), "content-length")
        .map_or(0, |length| length.parse().expect("a length"));
    (bytes.len() >= head + length).then_some(head + length)
}

/// A header field of this request.
pub fn field<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let (head, _) = request.split_once("\r\n\r\n")?;
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let (_, value) = fields.find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    Some(value)
}

/// The body of this request.
pub fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// An answer of JSON.
pub fn answer(status: u16, body: &str) -> Vec<u8> {
    answer_with(status, "", body)
}

/// The same with these header lines, each with its end.
pub fn answer_with(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
        .into()
}

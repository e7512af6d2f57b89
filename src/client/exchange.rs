//! One request and its answer, on a connection that carries nothing else at the same time.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use hyper::http::response::Parts;
use hyper_util::rt::TokioIo;

use super::connect::Stream;
use super::interim::Bounded;
use super::transport::{Cut, TransportError};
use super::why::{self, Side};
use crate::clock::{self, Instant};

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// The most fields in one head. hyper makes a table of this size for each answer.
const MAX_FIELDS: usize = 1024;

/// An answer whose head has been received.
pub(super) struct Exchange {
    pub(super) head: Parts,
    body: Incoming,
    sender: Sender,
    driver: Driver,
    side: Side,
}

/// hyper's end of a connection, on which nothing happens unless it is polled. It is dropped as soon as it has ended: a
/// request or a body that still waits for it fails only then.
struct Driver(Option<HttpConnection>);

impl Driver {
    /// Polls the connection until `work` is done.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(connection) = &mut self.0 {
            tokio::select! {
                biased;
                done = &mut work => return done,
                // Its errors reach `work`.
                _ = connection => self.0 = None,
            }
        }
        work.await
    }
}

impl Exchange {
    /// Sends the request and waits for the head of its answer.
    ///
    /// # Errors
    /// Says whether a byte of the request may have left.
    pub(super) async fn send(
        stream: Stream,
        mut request: Request<Full<Bytes>>,
        deadline: Instant,
        side: Side,
    ) -> Result<Self, TransportError> {
        let made = handshake(Bounded::new(stream, &mut request)).await;
        let (mut sender, connection) =
            made.map_err(|error| TransportError::NotSent(why::causes(side, &error)))?;
        let mut driver = Driver(Some(connection));
        let sent = driver.during(sender.try_send_request(request));
        let answer = match clock::timeout_at(deadline, sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(classify(side, &error)),
            Err(_) => return Err(TransportError::TimedOut),
        };
        let (head, body) = answer.into_parts();
        Ok(Self {
            head,
            body,
            sender,
            driver,
            side,
        })
    }

    /// Whether its Content-Length is larger than this.
    pub(super) fn announces_more_than(&self, max_bytes: usize) -> bool {
        self.body.size_hint().lower() > max_bytes as u64
    }

    /// Ends the connection without reading the body.
    pub(super) fn unread(self, cut: Cut) -> Read {
        Read {
            head: self.head,
            body: Bytes::new(),
            cut: Some(cut),
            stream: None,
        }
    }

    /// Reads the body, at most `max_bytes` of it.
    pub(super) async fn read(self, max_bytes: usize, deadline: Instant) -> Read {
        let Self {
            head,
            mut body,
            mut sender,
            mut driver,
            side,
        } = self;
        let mut bytes = BytesMut::new();
        let read = async {
            check_framing(&head.headers).map_err(Cut::Broken)?;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Cut::Broken(why::causes(side, &error)))?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                let room = max_bytes - bytes.len();
                bytes.extend_from_slice(&data[..data.len().min(room)]);
                if data.len() > room {
                    return Err(Cut::TooLarge);
                }
            }
            Ok(())
        };
        let cut = clock::timeout_at(deadline, driver.during(read))
            .await
            .unwrap_or(Err(Cut::TimedOut))
            .err();
        let body = bytes.freeze();
        let mut stream = None;
        if cut.is_none() {
            // The connection ends, or becomes ready for the next request.
            let ready = clock::timeout_at(deadline, driver.during(sender.ready())).await;
            let parts = driver
                .0
                .filter(|_| matches!(ready, Ok(Ok(()))))
                .map(Connection::into_parts);
            stream = parts
                .filter(|parts| parts.read_buf.is_empty())
                .map(|parts| parts.io.into_inner().into_inner());
        }
        Read {
            head,
            body,
            cut,
            stream,
        }
    }
}

type Sender = SendRequest<Full<Bytes>>;
type HttpConnection = Connection<TokioIo<Bounded<Stream>>, Full<Bytes>>;

/// Makes the two ends of an HTTP connection. They are lenient in everything that does not affect where an answer ends.
async fn handshake(stream: Bounded<Stream>) -> hyper::Result<(Sender, HttpConnection)> {
    Builder::new()
        .max_buf_size(2 * MAX_HEAD)
        .max_header_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await
}

/// Says whether a byte of the request may have left. hyper returns a request that it has not begun to write.
fn classify(side: Side, error: &TrySendError<Request<Full<Bytes>>>) -> TransportError {
    let why = why::causes(side, error.error());
    if error.message().is_some() {
        TransportError::NotSent(why)
    } else if why::is_refused_handshake(error.error()) {
        TransportError::NotSent(format!("TLS: {why}"))
    } else {
        TransportError::Broken(why)
    }
}

/// An answer whose body was read.
pub(super) struct Read {
    pub(super) head: Parts,
    pub(super) body: Bytes,
    /// Why the body is not whole.
    pub(super) cut: Option<Cut>,
    /// The connection, if it may be used again: nothing came on it after this answer.
    pub(super) stream: Option<Stream>,
}

/// Fails if the end of the answer is in doubt (RFC 9112, section 6.3). hyper is more lenient.
fn check_framing(headers: &HeaderMap) -> Result<(), String> {
    let lengths: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
    let codings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    let what = match (&lengths[..], &codings[..]) {
        ([], []) => return Ok(()),
        ([length], []) if length.as_bytes().iter().all(u8::is_ascii_digit) => return Ok(()),
        ([], [coding]) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => return Ok(()),
        ([_, ..], [_, ..]) => "it has both Content-Length and Transfer-Encoding",
        ([_, ..], []) => "its Content-Length is not one number",
        ([], _) => "its Transfer-Encoding is not chunked alone",
    };
    Err(what.to_owned())
}

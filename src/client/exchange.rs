//! One request and its answer, on a connection that carries nothing else meanwhile.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};
use hyper::http::response::Parts;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use super::connect::Stream;
use super::{Cut, Side, TransportError, why};
use crate::clock::{self, Instant};

/// Longest head of an answer.
const MAX_HEAD: usize = 64 * 1024;
/// Most fields in one. A table of them is made for each answer.
const MAX_FIELDS: usize = 1024;
/// Most interim answers (1xx) before the real one.
const MAX_INTERIM: usize = 100;

/// An answer whose head has come.
pub(super) struct Exchange {
    pub(super) head: Parts,
    body: Incoming,
    sender: SendRequest<Full<Bytes>>,
    driver: Driver,
    side: Side,
}

/// hyper's own end of a connection: nothing happens on it while it is not polled. It is dropped as soon as it is over, since
/// a request or a body that still waits for it fails only when it is dropped.
struct Driver(Option<Connection<TokioIo<Stream>, Full<Bytes>>>);

impl Driver {
    /// Polls the connection until `work` is done.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(connection) = &mut self.0 {
            tokio::select! {
                biased;
                done = &mut work => return done,
                // `work` gets its errors.
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
        let too_many = bound_interim(&mut request);
        // Lenient in what takes no part in where an answer ends.
        let made = Builder::new()
            .max_buf_size(2 * MAX_HEAD)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .allow_spaces_after_header_name_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .handshake(TokioIo::new(stream))
            .await;
        let (mut sender, connection) =
            made.map_err(|error| TransportError::NotSent(why::causes(side, &error)))?;
        let mut driver = Driver(Some(connection));
        let sent = sender.try_send_request(request);
        let sent = async {
            tokio::select! {
                sent = sent => Ok(sent),
                () = too_many.notified() => Err(TransportError::Broken(format!("over {MAX_INTERIM} interim answers (1xx)"))),
            }
        };
        let answer = match clock::timeout_at(deadline, driver.during(sent)).await {
            Ok(Ok(Ok(answer))) => answer,
            // hyper gives back what it has not begun to write.
            Ok(Ok(Err(unsent))) if unsent.message().is_some() => {
                return Err(TransportError::NotSent(why::causes(side, unsent.error())));
            }
            Ok(Ok(Err(broken))) if why::is_refused_handshake(broken.error()) => {
                return Err(TransportError::NotSent(format!(
                    "TLS: {}",
                    why::causes(side, broken.error())
                )));
            }
            Ok(Ok(Err(broken))) => {
                return Err(TransportError::Broken(why::causes(side, broken.error())));
            }
            Ok(Err(error)) => return Err(error),
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

    /// Its Content-Length says that it is larger.
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
            // It ends, or it is ready for the next request.
            let ready = clock::timeout_at(deadline, driver.during(sender.ready())).await;
            let parts = driver
                .0
                .filter(|_| matches!(ready, Ok(Ok(()))))
                .map(Connection::into_parts);
            stream = parts
                .filter(|parts| parts.read_buf.is_empty())
                .map(|parts| parts.io.into_inner());
        }
        Read {
            head,
            body,
            cut,
            stream,
        }
    }
}

/// An answer that was read.
pub(super) struct Read {
    pub(super) head: Parts,
    pub(super) body: Bytes,
    /// Why the body is not whole.
    pub(super) cut: Option<Cut>,
    /// The connection, if it may be used again: nothing but this answer came on it.
    pub(super) stream: Option<Stream>,
}

/// Rings when there were more interim answers than anybody needs: hyper skips them without an end.
fn bound_interim(request: &mut Request<Full<Bytes>>) -> Arc<Notify> {
    let (count, too_many) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let bell = too_many.clone();
    hyper::ext::on_informational(request, move |_| {
        if count.fetch_add(1, Ordering::Relaxed) >= MAX_INTERIM {
            bell.notify_one();
        }
    });
    too_many
}

/// Where the answer ends must not be in doubt (RFC 9112, section 6.3): hyper is more forgiving.
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

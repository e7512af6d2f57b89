//! The type-erased seam below the gateway: a request goes in, and its answer comes out.

use std::pin::Pin;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderMap;
use hyper::{Request, Response};

use crate::clock::Instant;

/// The way to the other side: a network, or something in this process that takes its place.
pub(crate) trait Transport: Send + Sync {
    /// Sends the request once and reads its answer.
    ///
    /// # Errors
    /// Fails if not even the head of an answer comes. An answer that is not whole is none: see [`Answer::cut`].
    fn exchange(&self, request: Request<Full<Bytes>>, terms: Terms) -> Exchanging<'_>;

    /// Sends a request over a connection of its own. Returns at most `max_bytes` of the body, and of that of a success
    /// maybe nothing.
    ///
    /// # Errors
    /// Fails if no head of an answer comes by the deadline.
    fn post(
        &self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        max_bytes: usize,
    ) -> Posting<'_> {
        Box::pin(async move {
            let terms = Terms {
                deadline,
                max_bytes,
                connection: Sharing::Own,
            };
            let answer = self.exchange(request, terms).await?;
            let mut response = Response::builder()
                .status(answer.status)
                .body(answer.body)
                .map_err(|error| TransportError::Broken(error.to_string()))?;
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}

/// What [`Transport::exchange`] returns.
pub(crate) type Exchanging<'a> =
    Pin<Box<dyn Future<Output = Result<Answer, TransportError>> + Send + 'a>>;

/// What [`Transport::post`] returns.
pub(crate) type Posting<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, TransportError>> + Send + 'a>>;

/// The conditions of one exchange.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The end of the exchange, the body included.
    pub(crate) deadline: Instant,
    /// The largest body that is read, in bytes.
    pub(crate) max_bytes: usize,
    pub(crate) connection: Sharing,
}

/// Whether other requests go over the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// It is opened for this request and closed after its answer, so no other answer can come on it.
    Own,
    /// It may have been used before, and may be used again. An answer to an earlier request that comes late or twice can
    /// be taken for the answer to this one.
    Shared,
}

/// An answer, as far as it was received.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The part of the body that was read.
    pub(crate) body: Bytes,
    /// Why the body is not whole; `None` if it is.
    pub(crate) cut: Option<Cut>,
    /// Whether other requests go over the connection that it came on.
    pub(crate) connection: Sharing,
}

/// Why an answer is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is larger than [`Terms::max_bytes`].
    TooLarge,
    /// The connection broke, or the end of the answer is in doubt. Says why.
    Broken(String),
    /// The deadline passed.
    TimedOut,
}

/// No answer came.
#[derive(Debug)]
pub(crate) enum TransportError {
    /// No byte of the request left. Says which step failed, and why.
    NotSent(String),
    /// The connection broke after bytes of the request may have left. Says how.
    Broken(String),
    /// The deadline passed after bytes of the request may have left.
    TimedOut,
}

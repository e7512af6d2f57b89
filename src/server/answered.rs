//! The body of an answer, which ends with its last byte.

use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::body::{Body, BoxError};
use super::rejection::Verdicts;

/// An answer until its last byte is handed on.
pub(super) struct Answered {
    pub(super) body: Body,
    pub(super) _answering: Answering,
}

/// While it lives the gate knows that a request is being answered.
pub(super) struct Answering(pub(super) Verdicts);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
    }
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! A bound on interim answers (1xx). hyper skips any number of them, and goes on while more can be read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most interim answers before the final one.
const MAX_INTERIM: usize = 100;

/// A stream from which nothing can be read after too many interim answers to one request.
pub(super) struct Bounded<S> {
    stream: S,
    seen: Arc<AtomicUsize>,
}

impl<S> Bounded<S> {
    /// Counts the interim answers to this request, which is sent on the returned stream.
    pub(super) fn new<B>(stream: S, request: &mut Request<B>) -> Self {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        hyper::ext::on_informational(request, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        Self { stream, seen }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.load(Ordering::Relaxed) > MAX_INTERIM {
            let why = format!("over {MAX_INTERIM} interim answers (1xx)");
            return Poll::Ready(Err(io::Error::other(why)));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::client::why::{Side, causes};

    /// Sends a request, and returns the status of its answer or why there is none, and how much of the answer was taken.
    async fn answered(answer: &[u8]) -> (Result<u16, String>, usize) {
        let (ours, mut theirs) = tokio::io::duplex(8 << 10);
        let client = async {
            let mut request = Request::new(Empty::<Bytes>::new());
            let stream = TokioIo::new(Bounded::new(ours, &mut request));
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
            let (sent, _) = tokio::join!(sender.send_request(request), connection);
            Ok(sent?.status().as_u16())
        };
        let server = async {
            let _ = theirs.read(&mut [0; 1024]).await;
            let mut taken = 0;
            while let Ok(length @ 1..) = theirs.write(&answer[taken..]).await {
                taken += length;
            }
            drop(theirs);
            taken
        };
        let (sent, taken): (hyper::Result<_>, _) = tokio::join!(client, server);
        (sent.map_err(|error| causes(Side::Gateway, &error)), taken)
    }

    #[tokio::test]
    async fn a_hundred_are_skipped() {
        let many = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(MAX_INTERIM);
        let answer = format!("{many}HTTP/1.1 204 No Content\r\n\r\n");
        let (sent, taken) = answered(answer.as_bytes()).await;
        assert_eq!((sent, taken), (Ok(204), answer.len()));
    }

    #[tokio::test]
    async fn of_many_more_nothing_is_read() {
        let many = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1 << 20);
        let (sent, taken) = answered(many.as_bytes()).await;
        let why = sent.expect_err("there is no answer");
        assert!(why.contains("over 100 interim answers (1xx)"), "{why}");
        assert!(taken < 64 << 10, "{taken} bytes were taken");
    }
}

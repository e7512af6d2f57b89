//! The gate: between the socket and hyper, it lets through only requests of good form.
//!
//! It reads each head whole, checks it, and counts the body off, so that it knows where the next head starts. In the
//! place of a bad head hyper gets a stand-in, with the reason among the verdicts beside it, and nothing after it is let
//! through. The timers of a connection live here too, because only here is known what the connection is waiting for.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::chunk::{bad_body, chunk_size, line};
use super::head::{self, Framing};
use super::limits::Limits;
use super::places::{Place, Silence};
use super::rejection::{Rejection, Verdicts};
use super::write_timeout::WriteTimeout;
use crate::clock;

/// How much is read from the socket at once.
const READ: usize = 4096;

/// A socket behind the gate.
pub(super) struct Gate<S> {
    socket: S,
    limits: Limits,
    verdicts: Verdicts,
    /// Read, and not yet handed on. An idle connection holds none.
    raw: BytesMut,
    /// How many of `raw`'s first bytes have been checked: hyper may have them.
    passed: usize,
    state: State,
    place: Arc<Place>,
    /// What is wrong with the body that is being let through.
    broken: Option<io::Error>,
    timer: Option<Timer>,
    write_timeout: WriteTimeout,
    /// Cancelled when the other side closes its sending half.
    hung_up: CancellationToken,
    /// No request has come yet.
    first: bool,
    /// The empty line that may stand before a head has been there.
    forgiven: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// The line end after the last chunk, where trailers would stand.
    LastLine,
    /// Nothing is let through any more.
    Shut,
}

/// Runs while the connection waits for the other side.
struct Timer {
    waiting: Waiting,
    sleep: Pin<Box<Sleep>>,
    /// A request has begun, or is the first one: the place may be another's by its end.
    _silence: Option<Silence>,
}

/// What a timer is running for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    FirstByte,
    NextRequest,
    RestOfHead,
}

impl<S> Gate<S> {
    pub(super) fn new(
        socket: S,
        limits: Limits,
        place: Arc<Place>,
        verdicts: Verdicts,
        hung_up: CancellationToken,
    ) -> Self {
        let raw = BytesMut::new();
        Self {
            socket,
            limits,
            verdicts,
            raw,
            passed: 0,
            state: State::Head,
            place,
            broken: None,
            timer: None,
            write_timeout: WriteTimeout::default(),
            hung_up,
            first: true,
            forgiven: false,
        }
    }

    pub(super) fn into_inner(self) -> S {
        self.socket
    }

    /// Looks at what has been read; lets through what it can.
    fn advance(&mut self) -> io::Result<()> {
        loop {
            let is_more_needed = match self.state {
                State::Head => self.advance_head(),
                State::Body(left) | State::Chunk(left) => self.advance_bytes(left),
                State::ChunkSize | State::ChunkEnd | State::LastLine => self.advance_line()?,
                State::Shut => true,
            };
            if is_more_needed {
                return Ok(());
            }
        }
    }

    /// Whether the head is not whole yet.
    fn advance_head(&mut self) -> bool {
        let rest = &self.raw[self.passed..];
        // One empty line before a request is forgiven (RFC 9112, section 2.2).
        if rest.starts_with(b"\r\n") && !self.forgiven {
            self.forgiven = true;
            let rest = self.raw.split_off(self.passed);
            self.raw.extend_from_slice(&rest[2..]);
            return false;
        }
        let verdict = match head::end_of_head(rest) {
            // The rest of it may never come, and would say no more.
            _ if head::is_tls(rest) => {
                tracing::warn!(
                    "a client speaks TLS to a port that speaks plain HTTP: its URL has to begin with http://"
                );
                Err(head::TLS)
            }
            Some(end) if end <= head::MAX_HEAD => {
                head::check(&rest[..end], self.limits.hosts).map(|framing| (end, framing))
            }
            None if rest.len() <= head::MAX_HEAD => return true,
            _ => Err(head::too_long(rest)),
        };
        match verdict {
            Ok((end, framing)) => {
                self.passed += end;
                self.first = false;
                self.forgiven = false;
                // It may be answered before anybody asks what the connection waits for.
                self.timer = None;
                let rejection = self.place.rejection();
                self.decide(rejection);
                self.state = match framing {
                    _ if rejection.is_some() => {
                        // It gets its answer, and the connection ends.
                        self.raw.truncate(self.passed);
                        State::Shut
                    }
                    Framing::Length(0) => State::Head,
                    Framing::Length(length) => State::Body(length),
                    Framing::Chunked => State::ChunkSize,
                };
            }
            Err(rejection) => self.reject(rejection),
        }
        false
    }

    /// Lets through what is there of the bytes that are `left` of a body or a chunk; whether there are none.
    fn advance_bytes(&mut self, left: u64) -> bool {
        let taken = left.min((self.raw.len() - self.passed) as u64);
        if taken == 0 {
            return true;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most the length of a buffer"
        )]
        let bytes = taken as usize;
        self.passed += bytes;
        self.state = match (self.state, left - taken) {
            (State::Body(_), 0) => State::Head,
            (State::Body(_), left) => State::Body(left),
            (_, 0) => State::ChunkEnd,
            (_, left) => State::Chunk(left),
        };
        false
    }

    /// Whether the line of a chunked body is not whole yet.
    fn advance_line(&mut self) -> io::Result<bool> {
        let rest = &self.raw[self.passed..];
        let Some(line) = line(rest)? else {
            return Ok(true);
        };
        self.state = match self.state {
            State::ChunkSize => match chunk_size(&rest[..line - 2])? {
                0 => State::LastLine,
                size => State::Chunk(size),
            },
            _ if line != 2 => return Err(bad_body("bytes after a chunk, or trailers")),
            State::ChunkEnd => State::ChunkSize,
            _ => State::Head,
        };
        self.passed += line;
        Ok(false)
    }

    /// Takes in what has been read from the socket.
    fn take_in(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        if let Err(error) = self.advance() {
            // What was let through before it is delivered first; nothing more is read.
            self.raw.truncate(self.passed);
            self.state = State::Shut;
            self.broken = Some(error);
        }
    }

    /// Whether a request is being answered.
    fn is_answering(&self) -> bool {
        !self
            .verdicts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// The connection ends here, with an answer.
    fn reject(&mut self, rejection: Rejection) {
        let stand_in = head::stand_in(&self.raw[self.passed..]);
        self.raw.truncate(self.passed);
        self.raw.extend_from_slice(stand_in.as_bytes());
        self.passed = self.raw.len();
        self.state = State::Shut;
        self.decide(Some(rejection));
    }

    fn decide(&self, verdict: Option<Rejection>) {
        self.verdicts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(verdict);
    }

    /// What the connection waits for now, if somebody has to keep an eye on it.
    fn waiting(&self) -> Option<Waiting> {
        match self.state {
            State::Head if !self.raw.is_empty() => Some(Waiting::RestOfHead),
            State::Head if self.first => Some(Waiting::FirstByte),
            // While a request is being answered the other side has every right to be silent.
            State::Head if !self.is_answering() => Some(Waiting::NextRequest),
            _ => None,
        }
    }

    /// Ready when the connection has waited long enough.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Waiting> {
        let Some(waiting) = self.waiting() else {
            self.timer = None;
            return Poll::Pending;
        };
        let limit = match waiting {
            Waiting::FirstByte | Waiting::RestOfHead => self.limits.header_timeout,
            Waiting::NextRequest => self.limits.idle_timeout,
        };
        // A silent connection that starts to speak keeps its first timer: the time of a head does not start anew.
        let keep = |running: &Timer| {
            running.waiting == waiting
                || (running.waiting, waiting) == (Waiting::FirstByte, Waiting::RestOfHead)
        };
        if !self.timer.as_ref().is_some_and(keep) {
            let is_silent = waiting != Waiting::NextRequest;
            self.timer = Some(Timer {
                waiting,
                sleep: Box::pin(clock::sleep(limit)),
                _silence: is_silent.then(|| self.place.falls_silent()),
            });
        }
        match &mut self.timer {
            Some(timer) => timer.sleep.as_mut().poll(cx).map(|()| waiting),
            None => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            if gate.passed > 0 {
                let n = gate.passed.min(out.remaining());
                out.put_slice(&gate.raw[..n]);
                gate.raw.advance(n);
                gate.passed -= n;
                if gate.raw.is_empty() {
                    // An idle connection holds no buffer.
                    gate.raw = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(error) = gate.broken.take() {
                // The service sees its body fail, and answers.
                return Poll::Ready(Err(error));
            }
            if matches!(gate.state, State::Shut) {
                // Not the end of the stream: hyper would take that for a caller who hung up. It closes by itself,
                // after the answer to the stand-in.
                return Poll::Pending;
            }
            let mut bytes = [0; READ];
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut gate.socket).poll_read(cx, &mut read) {
                Poll::Ready(read_whole) => read_whole?,
                Poll::Pending => match ready!(gate.poll_timer(cx)) {
                    Waiting::RestOfHead => {
                        let over = gate.place.rejection();
                        gate.reject(over.unwrap_or(Rejection::TooSlow));
                        continue;
                    }
                    Waiting::FirstByte | Waiting::NextRequest => return Poll::Ready(Ok(())),
                },
            }
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            gate.take_in(read.filled());
        }
    }
}

impl<S: AsyncRead + Unpin> Gate<S> {
    /// While a request is being answered hyper does not read, and would not notice that the caller has hung up: so the
    /// next bytes are read here, as many as one read may bring.
    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while matches!(self.state, State::Head) && self.raw.len() < READ && self.is_answering() {
            let mut bytes = [0; READ];
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.socket).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => self.take_in(read.filled()),
                Poll::Ready(_) => return self.hung_up.cancel(),
                Poll::Pending => return,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.write_timeout.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.write_timeout.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(cx));
        self.write_timeout = WriteTimeout::default();
        // After an answer hyper does not read again before there is something to read: the timer of an idle connection
        // has to be started here.
        let _ = self.poll_timer(cx);
        self.read_ahead(cx);
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

//! Server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};

use super::waiter_limit::WaiterSlot;
use super::waiting::Interruption;
use crate::server::Body;
use crate::telemetry::RequestId;
use crate::{clock, random};

/// A silent stream says so often that it is still there: many clients give up after five seconds.
const COMMENT_EVERY: Duration = Duration::from_secs(4);
/// When a client whose stream has ended should come back.
const RETRY: Duration = Duration::from_secs(1);
/// nginx, and others who read it, would keep a stream back until their buffer is full.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Where the messages of a stream come from.
pub(super) trait Source: Send + 'static {
    /// The next block; `None` when there will be no more. Whoever stops waiting for it loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Block>> + Send;
}

/// A block of a stream: an event or a comment. It always has data or a comment in it, because some clients take a block
/// of other fields alone for an event without data.
pub(super) struct Block {
    /// When a client whose stream has ended should come back.
    retry: Option<Duration>,
    lines: String,
}

impl Block {
    /// An event. Neither the id nor the data has a line end in it: ids are ours, and JSON escapes them.
    pub(super) fn event(kind: &str, id: &str, data: &str) -> Self {
        Self::of(format!("event: {kind}\nid: {id}\ndata: {data}\n"))
    }

    /// An event that cannot be resumed from.
    pub(super) fn event_without_id(kind: &str, data: &str) -> Self {
        Self::of(format!("event: {kind}\ndata: {data}\n"))
    }

    /// An id to resume from, without an event.
    pub(super) fn mark(id: &str, comment: &str) -> Self {
        Self::of(format!(": {comment}\nid: {id}\n"))
    }

    fn comment(comment: &str) -> Self {
        Self::of(format!(": {comment}\n"))
    }

    fn of(lines: String) -> Self {
        Self { retry: None, lines }
    }

    /// The same, which says when to come back.
    pub(super) fn retrying(self, after: Duration) -> Self {
        Self {
            retry: Some(after),
            ..self
        }
    }

    fn text(&self) -> String {
        let lines = &self.lines;
        match self.retry {
            Some(after) => format!("retry: {}\n{lines}\n", after.as_millis()),
            None => format!("{lines}\n"),
        }
    }
}

struct Stream<S> {
    source: S,
    request_id: RequestId,
    interruption: Interruption,
    stage: Stage,
    _slot: WaiterSlot,
}

#[derive(Clone, Copy)]
enum Stage {
    Beginning,
    Going,
    Over,
}

/// Streams until the source has no more, the caller hangs up, or the sidecar ends.
pub(super) fn response(
    source: impl Source,
    request_id: &RequestId,
    interruption: Interruption,
    slot: WaiterSlot,
) -> Response<Body> {
    let stream = Stream {
        source,
        request_id: request_id.clone(),
        interruption,
        stage: Stage::Beginning,
        _slot: slot,
    };
    let blocks = stream::unfold(stream, |mut stream| async move {
        let block = stream.block().await?.text();
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(block))), stream))
    });
    let mut response = Response::new(
        StreamBody::new(blocks)
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

impl<S: Source> Stream<S> {
    /// What is written next; `None` at the end.
    async fn block(&mut self) -> Option<Block> {
        if let Stage::Over = self.stage {
            return None;
        }
        let mut block = tokio::select! {
            biased;
            interrupted = self.interruption.comes() => {
                self.stage = Stage::Over;
                // Whoever comes back over it would get `draining`, and an `EventSource` takes
                // that for the end.
                self.interruption.close_after();
                // All of them come back to the next sidecar: not all at once.
                let after = RETRY + random::jitter(RETRY * 2);
                let last = Block::comment("shutting down").retrying(after);
                return interrupted.is_draining().then_some(last);
            }
            block = self.request_id.scope(self.source.next()) => block?,
            () = clock::sleep(COMMENT_EVERY) => Block::comment("nothing new"),
        };
        if let Stage::Beginning = self.stage {
            self.stage = Stage::Going;
            block.retry.get_or_insert(RETRY);
        }
        Some(block)
    }
}

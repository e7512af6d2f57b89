//! One connection: hyper behind the gate, what answers its requests, and its end.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use super::answered::{Answered, Answering};
use super::body::{Body, BoxError};
use super::gate::Gate;
use super::limits::{Hosts, Limits};
use super::listener::Stream;
use super::places::Place;
use super::rejection::{Rejection, Verdicts};
use super::shared::{Shared, Stage, reached};
use crate::clock;

/// An extension of every request: how its caller came, whether it still listens, and whether it may go on.
#[derive(Clone, Default)]
pub(crate) struct ConnectionHandle {
    is_unix: bool,
    hung_up: CancellationToken,
    last: CancellationToken,
}

impl ConnectionHandle {
    fn of(stream: &Stream) -> Self {
        Self {
            is_unix: matches!(stream, Either::Right(_)),
            ..Self::default()
        }
    }

    /// Returns the limits of a connection that came this way.
    fn limits(&self, limits: Limits) -> Limits {
        match self.is_unix {
            true => Limits {
                hosts: Hosts::Any,
                ..limits
            },
            false => limits,
        }
    }

    /// It came through a Unix socket: its caller may open the file.
    pub(crate) fn is_unix(&self) -> bool {
        self.is_unix
    }

    /// The connection ends with this answer, though its head is out already.
    pub(crate) fn close_after(&self) {
        self.last.cancel();
    }

    /// Returns when the other side has closed its sending half: it has hung up, or says so for whatever reason. One
    /// that sends very much beforehand is not looked at.
    pub(crate) async fn hung_up(&self) {
        self.hung_up.cancelled().await;
    }
}

/// What answers the requests of a connection.
struct Answers<S, R> {
    /// Those of good form.
    service: S,
    /// All others.
    rejections: R,
    /// One token for each request that the service is answering.
    requests: TaskTracker,
}

/// An error of the service: the connection is cut.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cut(BoxError);

/// Serves a connection until its end, or until its place is another's while it waits for a request.
pub(super) async fn run<S, R>(
    shared: Arc<Shared>,
    stream: Stream,
    place: Arc<Place>,
    service: S,
    rejections: R,
) where
    S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Unpin + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: Fn(Rejection, &Parts) -> Response<Body> + Clone + Unpin + Send + 'static,
{
    let verdicts = Verdicts::default();
    let handle = ConnectionHandle::of(&stream);
    let (hung_up, last) = (handle.hung_up.clone(), handle.last.clone());
    let limits = handle.limits(place.limits(shared.limits));
    let gate = Gate::new(stream, limits, place.clone(), verdicts.clone(), hung_up);
    let answers = Answers {
        service,
        rejections,
        requests: shared.requests.clone(),
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(handle.clone());
        answers.answer(request, &verdicts)
    });
    // The gate is as strict or stricter in all of these, so that the words of a rejection are our own. The number of
    // fields stays hyper's own, which is the gate's too: for any other hyper takes 8 KiB from the heap each time.
    let mut connection = http1::Builder::new()
        .max_buf_size(64 * 1024)
        .header_read_timeout(None)
        // Who sends a whole request and closes that direction still wants the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(gate), service);
    let mut stage = shared.stage.subscribe();
    let (mut closing, mut ending, mut lost) = (false, false, false);
    let ended = loop {
        tokio::select! {
            // First what has come: it may be a request.
            biased;
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = reached(&mut stage, Stage::Closing), if !closing => {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = last.cancelled(), if !ending => {
                ending = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            () = place.lost(), if !lost => {
                lost = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let stream = connection.into_parts().io.into_inner().into_inner();
    match ended {
        Err(error) if error.is_user() => cut(&stream),
        _ if closing || lost => {}
        _ => {
            let _silence = place.falls_silent();
            tokio::select! {
                () = linger(stream, place.at_most(PATIENCE)) => {}
                () = place.lost() => {}
            }
        }
    }
}

/// The service wants the connection cut: an orderly end could be taken for the end of an answer.
fn cut(stream: &Stream) {
    if let Either::Left(tcp) = stream {
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

impl<S, R> Answers<S, R>
where
    S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: Fn(Rejection, &Parts) -> Response<Body> + Clone + Unpin + Send + 'static,
{
    /// The answer to the request that is next in the order of the verdicts.
    fn answer(
        &self,
        request: Request<Incoming>,
        verdicts: &Verdicts,
    ) -> Pin<Box<impl Future<Output = Result<Response<Answered>, Cut>> + Send + use<S, R>>> {
        let busy = self.requests.token();
        let (verdict, has_sent_more) = {
            let verdicts = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
            (verdicts.front().copied().flatten(), verdicts.len() > 1)
        };
        let (service, rejections) = (self.service.clone(), self.rejections.clone());
        let answering = Answering(verdicts.clone());
        Box::pin(async move {
            if has_sent_more {
                // Many requests at once would be answered in one go, and every other connection would wait for it.
                tokio::task::yield_now().await;
            }
            let answer = match verdict {
                Some(rejection) => {
                    let mut answer = rejections(rejection, &request.into_parts().0);
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(CONNECTION, close);
                    Ok(answer)
                }
                // Made in here: one that is moved in has its room twice, where it came in and where it is awaited.
                None => service
                    .oneshot(request)
                    .await
                    .map_err(|error| Cut(error.into())),
            };
            drop(busy);
            answer.map(|answer| {
                answer.map(|body| Answered {
                    body,
                    _answering: answering,
                })
            })
        })
    }
}

/// Longest that is waited for what still comes after the last answer of a connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// Ends a connection so that the other side sees the answer: closing a socket with unread bytes in it makes the system
/// send a reset, which can overtake the answer. So: say that we are done, and throw away what still comes, for a
/// moment and up to a bound (RFC 9112, section 9.6).
async fn linger(mut stream: Stream, patience: Duration) {
    const MOST: usize = 1 << 20;
    if stream.shutdown().await.is_err() {
        return;
    }
    let _ = clock::timeout(patience, async {
        // On the heap: every connection has room for this future, and few of them have anything left to read.
        let mut buffer = vec![0; 4096];
        let mut thrown_away = 0;
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            thrown_away += n;
            if thrown_away > MOST {
                break;
            }
        }
    })
    .await;
}

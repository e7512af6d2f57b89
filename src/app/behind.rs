//! The gateway that the program stands before: one over the network, the sandbox in this process, or what a test wrote.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::{Request, Response};

use crate::client::{Answer, Cut, Exchanging, Network, Sharing, Terms, Transport, TransportError};
use crate::clock;
use crate::sandbox::Sandbox;
use crate::webhook::Sender;

/// Where the gateway is.
pub(crate) enum Behind {
    /// Over the network.
    Network,
    /// In this process.
    Sandbox(Sandbox),
    /// In this process, and the app that gets webhooks too.
    World(Arc<dyn World>),
}

/// The gateway and the app that gets webhooks, written by a test. The host of a request says which of them is asked.
pub trait World: Send + Sync {
    /// Answers a request. One that goes over a connection of its own has `Connection: close`.
    fn answer(&self, request: Request<Bytes>) -> Answering<'_>;
}

/// What [`World::answer`] returns.
pub type Answering<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, Unanswered>> + Send + 'a>>;

/// Why no answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// There was no connection, and so no byte of the request left.
    NotSent,
    /// The connection broke.
    Broken,
}

impl Behind {
    /// Returns the way of webhooks to the app: that of the configuration, unless a test stands in for the app.
    pub(super) fn app(&self, sender: Sender) -> Sender {
        match self {
            Self::Network | Self::Sandbox(_) => sender,
            Self::World(world) => sender.over(Arc::new(InTest(world.clone()))),
        }
    }

    pub(super) fn transport(self, network: &Arc<Network>) -> Arc<dyn Transport> {
        match self {
            Self::Network => network.clone(),
            Self::Sandbox(sandbox) => Arc::new(InProcess(sandbox)),
            Self::World(world) => Arc::new(InTest(world)),
        }
    }
}

/// The sandbox in the place of the network.
struct InProcess(Sandbox);

impl Transport for InProcess {
    fn exchange(&self, request: Request<Full<Bytes>>, terms: Terms) -> Exchanging<'_> {
        Box::pin(async move {
            let answer = match clock::timeout_at(terms.deadline, self.0.answer(request)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(reset)) => return Err(TransportError::Broken(reset.to_string())),
                Err(_) => return Err(TransportError::TimedOut),
            };
            let (head, body) = answer.into_parts();
            let (body, cut) = match clock::timeout_at(terms.deadline, body.collect()).await {
                Ok(Ok(body)) => (body.to_bytes(), None),
                Ok(Err(error)) => (Bytes::new(), Some(Cut::Broken(error.to_string()))),
                Err(_) => (Bytes::new(), Some(Cut::TimedOut)),
            };
            let cut = if body.len() > terms.max_bytes {
                Some(Cut::TooLarge)
            } else {
                cut
            };
            // There is no connection that could be shared.
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
                cut,
                connection: Sharing::Own,
            })
        })
    }
}

/// What a test wrote in the place of the network.
struct InTest(Arc<dyn World>);

impl Transport for InTest {
    fn exchange(&self, request: Request<Full<Bytes>>, terms: Terms) -> Exchanging<'_> {
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            if terms.connection == Sharing::Own {
                let close = HeaderValue::from_static("close");
                head.headers.insert(CONNECTION, close);
            }
            let request = Request::from_parts(head, body.to_bytes());
            let answer = clock::timeout_at(terms.deadline, self.0.answer(request)).await;
            let answer = answer.map_err(|_| TransportError::TimedOut)?;
            let (head, body) = answer
                .map_err(|why| match why {
                    Unanswered::NotSent => TransportError::NotSent("no connection".to_owned()),
                    Unanswered::Broken => TransportError::Broken("it broke".to_owned()),
                })?
                .into_parts();
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                cut: (body.len() > terms.max_bytes).then_some(Cut::TooLarge),
                body,
                connection: terms.connection,
            })
        })
    }
}

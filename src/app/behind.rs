//! The gateway that the program stands before: one over the network, or the sandbox in this process.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;

use crate::client::{Answer, Cut, Exchanging, Network, Sharing, Terms, Transport, TransportError};
use crate::clock;
use crate::sandbox::Sandbox;

/// Where the gateway is.
pub(crate) enum Behind {
    /// Over the network.
    Network,
    /// In this process.
    Sandbox(Sandbox),
}

impl Behind {
    pub(super) fn transport(self, network: &Arc<Network>) -> Arc<dyn Transport> {
        match self {
            Self::Network => network.clone(),
            Self::Sandbox(sandbox) => Arc::new(InProcess(sandbox)),
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

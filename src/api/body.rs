//! The body of a request, within its size and time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;

use super::Config;
use super::problem::{ErrorCode, Problem};
use crate::clock;
use crate::server::BoxError;

/// How much of a body is read, and for how long.
pub(super) struct BodyLimits {
    max_bytes: usize,
    timeout: Duration,
}

impl BodyLimits {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            max_bytes: config.max_body_bytes.get(),
            timeout: config.body_timeout,
        }
    }

    /// The whole body.
    pub(super) async fn read<B>(&self, body: B) -> Result<Vec<u8>, Problem>
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let too_large = || {
            let limit = self.max_bytes;
            Problem::new(
                ErrorCode::BodyTooLarge,
                format!("The body is over {limit} bytes (listen.max_body_bytes)."),
            )
        };
        if body.size_hint().lower() > self.max_bytes as u64 {
            return Err(too_large());
        }
        match clock::timeout(self.timeout, copied(Limited::new(body, self.max_bytes))).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_)) => Err(Problem::new(
                ErrorCode::BadRequest,
                "The body broke off, or is not framed as HTTP/1.1 has it (RFC 9112, section 7).",
            )),
            Err(_) => Err(Problem::new(
                ErrorCode::RequestTimeout,
                "The body did not come in time (listen.body_timeout).",
            )),
        }
    }
}

/// All of a body, copied: its pieces, if they were kept, would each hold on to the whole buffer that they came in, and a
/// body that comes byte by byte would cost many times its size.
async fn copied(
    mut body: impl HttpBody<Data = Bytes, Error = BoxError> + Unpin,
) -> Result<Vec<u8>, BoxError> {
    let mut copy = Vec::new();
    while let Some(frame) = body.frame().await {
        copy.extend_from_slice(frame?.data_ref().map_or(&[], Bytes::as_ref));
    }
    Ok(copy)
}

//! The codes of errors, and what goes with each.

/// What is wrong: one code of a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum ErrorCode {
    BadRequest,
    HeadersTooLarge,
    UriTooLong,
    ExpectationFailed,
    HostNotAllowed,
    BrowserNotAllowed,
    ForwardedNotAllowed,
    Unauthorized,
    NotFound,
    MethodNotAllowed,
    UnsupportedMediaType,
    BodyTooLarge,
    RequestTimeout,
    InvalidJson,
    SecretNotAccepted,
    UnknownField,
    InvalidAmount,
    RedirectNotAllowed,
    InvalidIdempotencyKey,
    IdempotencyMismatch,
    InvalidWatchCode,
    InvalidWait,
    InvalidQuery,
    TokenRequired,
    RateLimited,
    Overloaded,
    Draining,
    SecretUnavailable,
    StoreUnavailable,
    GatewayUnreachable,
    GatewayTimeout,
    GatewayBadAnswer,
    GatewayBusy,
    GatewayRejected,
    GatewayRefusedSecret,
    UnknownWatchCode,
    Internal,
}

impl ErrorCode {
    /// Code, status, title.
    pub(super) fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::BadRequest => ("bad_request", 400, "Not a well-formed request"),
            Self::HeadersTooLarge => ("headers_too_large", 431, "Too many or too large headers"),
            Self::UriTooLong => ("uri_too_long", 414, "The target is too long"),
            Self::ExpectationFailed => (
                "expectation_failed",
                417,
                "An expectation that cannot be met",
            ),
            Self::HostNotAllowed => ("host_not_allowed", 421, "Not a name of this listener"),
            Self::BrowserNotAllowed => ("browser_not_allowed", 403, "Not for browsers"),
            Self::ForwardedNotAllowed => ("forwarded_not_allowed", 403, "Not through a proxy"),
            Self::Unauthorized => ("unauthorized", 401, "No valid token"),
            Self::NotFound => ("not_found", 404, "No such path"),
            Self::MethodNotAllowed => ("method_not_allowed", 405, "No such method here"),
            Self::UnsupportedMediaType => ("unsupported_media_type", 415, "Not sent as JSON"),
            Self::BodyTooLarge => ("body_too_large", 413, "The body is too large"),
            Self::RequestTimeout => ("request_timeout", 408, "The request came too slowly"),
            Self::InvalidJson => ("invalid_json", 400, "Not a JSON object"),
            Self::SecretNotAccepted => (
                "secret_not_accepted",
                400,
                "The app must not send the secret",
            ),
            Self::UnknownField => ("unknown_field", 400, "A field that is not known"),
            Self::InvalidAmount => ("invalid_amount", 422, "Not a valid amount"),
            Self::RedirectNotAllowed => ("redirect_not_allowed", 422, "Not an allowed redirect"),
            Self::InvalidIdempotencyKey => (
                "invalid_idempotency_key",
                400,
                "Not a valid idempotency key",
            ),
            Self::IdempotencyMismatch => (
                "idempotency_mismatch",
                422,
                "The key was used for another start",
            ),
            Self::InvalidWatchCode => ("invalid_watch_code", 400, "Not a watch code"),
            Self::InvalidWait => ("invalid_wait", 400, "Not a time to wait"),
            Self::InvalidQuery => ("invalid_query", 400, "Not a valid query"),
            Self::TokenRequired => ("token_required", 403, "Only with a token"),
            Self::RateLimited => ("rate_limited", 429, "Too many starts"),
            Self::Overloaded => ("overloaded", 503, "Too much at once"),
            Self::Draining => ("draining", 503, "Shutting down"),
            Self::SecretUnavailable => ("secret_unavailable", 503, "No merchant secret yet"),
            Self::StoreUnavailable => ("store_unavailable", 503, "Payments cannot be kept"),
            Self::GatewayUnreachable => {
                ("gateway_unreachable", 503, "The gateway cannot be reached")
            }
            Self::GatewayTimeout => ("gateway_timeout", 504, "The gateway did not answer in time"),
            Self::GatewayBadAnswer => (
                "gateway_bad_answer",
                502,
                "The gateway's answer cannot be used",
            ),
            Self::GatewayBusy => ("gateway_busy", 503, "The gateway asks for patience"),
            Self::GatewayRejected => ("gateway_rejected", 422, "The gateway refuses the payment"),
            Self::GatewayRefusedSecret => (
                "gateway_refused_secret",
                502,
                "The gateway refuses the merchant secret",
            ),
            Self::UnknownWatchCode => (
                "unknown_watch_code",
                404,
                "The gateway does not know this watch code",
            ),
            Self::Internal => ("internal", 500, "A bug in tillgate"),
        }
    }

    pub(in crate::api) fn text(self) -> &'static str {
        self.row().0
    }

    /// Whose fault it is.
    pub(super) fn source(self) -> &'static str {
        match self {
            Self::GatewayUnreachable
            | Self::GatewayTimeout
            | Self::GatewayBadAnswer
            | Self::GatewayBusy
            | Self::GatewayRejected
            | Self::GatewayRefusedSecret
            | Self::UnknownWatchCode => "gateway",
            _ => "sidecar",
        }
    }

    /// The same request may do better later.
    pub(super) fn retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Overloaded
                | Self::Draining
                | Self::SecretUnavailable
                | Self::StoreUnavailable
                | Self::GatewayUnreachable
                | Self::GatewayTimeout
                | Self::GatewayBadAnswer
                | Self::GatewayBusy
                | Self::Internal
        )
    }
}

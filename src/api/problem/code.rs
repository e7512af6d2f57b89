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
    /// Code and title.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::BadRequest => ("bad_request", "Not a well-formed request"),
            Self::HeadersTooLarge => ("headers_too_large", "Too many or too large headers"),
            Self::UriTooLong => ("uri_too_long", "The target is too long"),
            Self::ExpectationFailed => ("expectation_failed", "An expectation that cannot be met"),
            Self::HostNotAllowed => ("host_not_allowed", "Not a name of this listener"),
            Self::BrowserNotAllowed => ("browser_not_allowed", "Not for browsers"),
            Self::ForwardedNotAllowed => ("forwarded_not_allowed", "Not through a proxy"),
            Self::Unauthorized => ("unauthorized", "No valid token"),
            Self::NotFound => ("not_found", "No such path"),
            Self::MethodNotAllowed => ("method_not_allowed", "No such method here"),
            Self::UnsupportedMediaType => ("unsupported_media_type", "Not sent as JSON"),
            Self::BodyTooLarge => ("body_too_large", "The body is too large"),
            Self::RequestTimeout => ("request_timeout", "The request came too slowly"),
            Self::InvalidJson => ("invalid_json", "Not a JSON object"),
            Self::SecretNotAccepted => ("secret_not_accepted", "The app must not send the secret"),
            Self::UnknownField => ("unknown_field", "A field that is not known"),
            Self::InvalidAmount => ("invalid_amount", "Not a valid amount"),
            Self::RedirectNotAllowed => ("redirect_not_allowed", "Not an allowed redirect"),
            Self::InvalidIdempotencyKey => {
                ("invalid_idempotency_key", "Not a valid idempotency key")
            }
            Self::IdempotencyMismatch => {
                ("idempotency_mismatch", "The key was used for another start")
            }
            Self::InvalidWatchCode => ("invalid_watch_code", "Not a watch code"),
            Self::InvalidWait => ("invalid_wait", "Not a time to wait"),
            Self::InvalidQuery => ("invalid_query", "Not a valid query"),
            Self::TokenRequired => ("token_required", "Only with a token"),
            Self::RateLimited => ("rate_limited", "Too many starts"),
            Self::Overloaded => ("overloaded", "Too much at once"),
            Self::Draining => ("draining", "Shutting down"),
            Self::SecretUnavailable => ("secret_unavailable", "No merchant secret yet"),
            Self::StoreUnavailable => ("store_unavailable", "Payments cannot be kept"),
            Self::GatewayUnreachable => ("gateway_unreachable", "The gateway cannot be reached"),
            Self::GatewayTimeout => ("gateway_timeout", "The gateway did not answer in time"),
            Self::GatewayBadAnswer => ("gateway_bad_answer", "The gateway's answer cannot be used"),
            Self::GatewayBusy => ("gateway_busy", "The gateway asks for patience"),
            Self::GatewayRejected => ("gateway_rejected", "The gateway refuses the payment"),
            Self::GatewayRefusedSecret => (
                "gateway_refused_secret",
                "The gateway refuses the merchant secret",
            ),
            Self::UnknownWatchCode => (
                "unknown_watch_code",
                "The gateway does not know this watch code",
            ),
            Self::Internal => ("internal", "A bug in tillgate"),
        }
    }

    pub(super) fn status(self) -> u16 {
        match self {
            Self::BadRequest
            | Self::InvalidJson
            | Self::SecretNotAccepted
            | Self::UnknownField
            | Self::InvalidIdempotencyKey
            | Self::InvalidWatchCode
            | Self::InvalidWait
            | Self::InvalidQuery => 400,
            Self::Unauthorized => 401,
            Self::BrowserNotAllowed | Self::ForwardedNotAllowed | Self::TokenRequired => 403,
            Self::NotFound | Self::UnknownWatchCode => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UnsupportedMediaType => 415,
            Self::ExpectationFailed => 417,
            Self::HostNotAllowed => 421,
            Self::InvalidAmount
            | Self::RedirectNotAllowed
            | Self::IdempotencyMismatch
            | Self::GatewayRejected => 422,
            Self::RateLimited => 429,
            Self::HeadersTooLarge => 431,
            Self::Internal => 500,
            Self::GatewayBadAnswer | Self::GatewayRefusedSecret => 502,
            Self::Overloaded
            | Self::Draining
            | Self::SecretUnavailable
            | Self::StoreUnavailable
            | Self::GatewayUnreachable
            | Self::GatewayBusy => 503,
            Self::GatewayTimeout => 504,
        }
    }

    pub(in crate::api) fn text(self) -> &'static str {
        self.words().0
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

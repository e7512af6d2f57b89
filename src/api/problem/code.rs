//! The codes of errors, and what goes with each.

/// Makes the codes of a table, so that each stands in one line with all that goes with it.
macro_rules! codes {
    ($($name:ident($text:literal, $status:literal, $title:literal),)*) => {
        /// What is wrong: one code of a closed set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::api) enum ErrorCode {
            $($name,)*
        }

        impl ErrorCode {
            /// Code, status, title.
            pub(super) fn row(self) -> (&'static str, u16, &'static str) {
                match self {
                    $(Self::$name => ($text, $status, $title),)*
                }
            }
        }
    };
}

codes! {
    BadRequest("bad_request", 400, "Not a well-formed request"),
    HeadersTooLarge("headers_too_large", 431, "Too many or too large headers"),
    UriTooLong("uri_too_long", 414, "The target is too long"),
    ExpectationFailed("expectation_failed", 417, "An expectation that cannot be met"),
    HostNotAllowed("host_not_allowed", 421, "Not a name of this listener"),
    BrowserNotAllowed("browser_not_allowed", 403, "Not for browsers"),
    ForwardedNotAllowed("forwarded_not_allowed", 403, "Not through a proxy"),
    Unauthorized("unauthorized", 401, "No valid token"),
    NotFound("not_found", 404, "No such path"),
    MethodNotAllowed("method_not_allowed", 405, "No such method here"),
    UnsupportedMediaType("unsupported_media_type", 415, "Not sent as JSON"),
    BodyTooLarge("body_too_large", 413, "The body is too large"),
    RequestTimeout("request_timeout", 408, "The request came too slowly"),
    InvalidJson("invalid_json", 400, "Not a JSON object"),
    SecretNotAccepted("secret_not_accepted", 400, "The app must not send the secret"),
    UnknownField("unknown_field", 400, "A field that is not known"),
    InvalidAmount("invalid_amount", 422, "Not a valid amount"),
    RedirectNotAllowed("redirect_not_allowed", 422, "Not an allowed redirect"),
    InvalidReference("invalid_reference", 422, "Not a valid reference"),
    IdempotencyRequired("idempotency_required", 400, "Neither a reference nor a key"),
    ReferenceMismatch("reference_mismatch", 422, "The reference is another payment's"),
    ReferencePaid("reference_paid", 409, "The reference is paid"),
    InvalidIdempotencyKey("invalid_idempotency_key", 400, "Not a valid idempotency key"),
    IdempotencyMismatch("idempotency_mismatch", 422, "The key was used for another start"),
    InvalidWatchCode("invalid_watch_code", 400, "Not a watch code"),
    InvalidWait("invalid_wait", 400, "Not a time to wait"),
    InvalidQuery("invalid_query", 400, "Not a valid query"),
    TokenRequired("token_required", 403, "Only with a token"),
    RateLimited("rate_limited", 429, "Too many starts"),
    Overloaded("overloaded", 503, "Too much at once"),
    Draining("draining", 503, "Shutting down"),
    SecretUnavailable("secret_unavailable", 503, "No merchant secret yet"),
    StoreUnavailable("store_unavailable", 503, "Payments cannot be kept"),
    GatewayUnreachable("gateway_unreachable", 503, "The gateway cannot be reached"),
    GatewayTimeout("gateway_timeout", 504, "The gateway did not answer in time"),
    GatewayBadAnswer("gateway_bad_answer", 502, "The gateway's answer cannot be used"),
    GatewayBusy("gateway_busy", 503, "The gateway asks for patience"),
    GatewayRejected("gateway_rejected", 422, "The gateway refuses the payment"),
    GatewayRefusedSecret("gateway_refused_secret", 502, "The gateway refuses the merchant secret"),
    UnknownWatchCode("unknown_watch_code", 404, "The gateway does not know this watch code"),
    Internal("internal", 500, "A bug in tillgate"),
}

impl ErrorCode {
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

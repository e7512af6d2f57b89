//! Where a request goes.

use hyper::Method;

/// The methods that a stream takes: it has no head without the stream.
pub(super) const OF_A_STREAM: &str = "GET";

/// Where a request goes, as its path says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Start,
    Watch,
    Events,
    Payments,
    Deliveries,
    Redeliver,
    Document,
    Pay,
    Nowhere,
}

impl Route {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/api/start_payment" => Self::Start,
            "/events" => Self::Events,
            "/payments" => Self::Payments,
            "/deliveries" => Self::Deliveries,
            "/openapi.json" => Self::Document,
            _ if redelivered(path).is_some() => Self::Redeliver,
            _ if path.starts_with("/watch/") => Self::Watch,
            _ if path.starts_with("/pay/") => Self::Pay,
            _ => Self::Nowhere,
        }
    }

    /// The methods that it takes, as `Allow` lists them; `None` where there is nothing.
    pub(super) fn methods(self) -> Option<&'static str> {
        match self {
            Self::Start | Self::Redeliver => Some("POST"),
            Self::Watch | Self::Payments | Self::Deliveries | Self::Document => Some("GET, HEAD"),
            Self::Events => Some(OF_A_STREAM),
            Self::Pay | Self::Nowhere => None,
        }
    }

    pub(super) fn takes(self, method: &Method) -> bool {
        self.methods().is_some_and(|methods| {
            methods
                .split(", ")
                .any(|allowed| allowed == method.as_str())
        })
    }

    /// Who gets an answer may learn the code of any payment.
    pub(super) fn names_codes(self) -> bool {
        matches!(
            self,
            Self::Events | Self::Payments | Self::Deliveries | Self::Redeliver
        )
    }

    /// Who asks wants to know what every replica has written. `resumes`: it goes on after an event that it got.
    pub(super) fn is_about_all(self, resumes: bool) -> bool {
        matches!(self, Self::Payments | Self::Deliveries | Self::Redeliver)
            || (self == Self::Events && resumes)
    }

    /// From a closed set, for logs: never the path, which has codes in it.
    pub(super) fn template(self) -> &'static str {
        match self {
            Self::Start => "/api/start_payment",
            Self::Watch => "/watch/{watch_code}",
            Self::Events => "/events",
            Self::Payments => "/payments",
            Self::Deliveries => "/deliveries",
            Self::Redeliver => "/deliveries/{id}/redeliver",
            Self::Document => "/openapi.json",
            Self::Pay => "/pay/{code}",
            Self::Nowhere => "unknown",
        }
    }
}

/// The id in `/deliveries/{id}/redeliver`.
pub(super) fn redelivered(path: &str) -> Option<&str> {
    path.strip_prefix("/deliveries/")?
        .strip_suffix("/redeliver")
        .filter(|id| !id.contains('/'))
}

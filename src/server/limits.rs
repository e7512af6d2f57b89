//! The settings of a listener's connections.

use std::time::Duration;

/// What one connection may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// A connection over it gets [`Rejection::Overloaded`](super::Rejection::Overloaded) and is closed, unless one that
    /// is silent makes way for it.
    pub(crate) max_connections: usize,
    /// From the first byte of a request, or of a silent new connection, to the end of its head.
    pub(crate) header_timeout: Duration,
    /// A kept-alive connection between two requests.
    pub(crate) idle_timeout: Duration,
    /// HTTP/1.0 needs no Host: load balancers probe so.
    pub(crate) http10_without_host: bool,
}

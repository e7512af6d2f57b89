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
    pub(crate) hosts: Hosts,
}

/// Which Host a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// One, which is a name with an optional port.
    One,
    /// The same, but HTTP/1.0 needs none: load balancers probe so.
    OneSinceHttp11,
    /// One of any content, or none. Many clients have no name for what they reach by a file.
    Any,
}

//! Which request work is done for: what is logged meanwhile can be found by the id that its caller got.
//!
//! A task-local value, not a span: a span would have to be made and formatted for every request, whatever is logged,
//! and a log line of JSON would have the id a level below the other fields.

use std::ops::Deref;
use std::sync::Arc;

use tokio::task::futures::TaskLocalFuture;

tokio::task_local! {
    static CURRENT: Option<RequestId>;
}

/// The id of a request. Clones are cheap.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(Arc<str>);

impl RequestId {
    pub(crate) fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id of the request that the present work is done for; `None` where it is done for none.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok().flatten()
    }

    /// The same work, done for this request.
    pub(crate) fn scope<F: Future>(&self, work: F) -> TaskLocalFuture<Option<Self>, F> {
        CURRENT.scope(Some(self.clone()), work)
    }

    /// The same work, done for the request that it is begun for, also in a task of its own.
    pub(crate) fn keep<F: Future>(work: F) -> TaskLocalFuture<Option<Self>, F> {
        CURRENT.scope(Self::current(), work)
    }
}

impl Deref for RequestId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

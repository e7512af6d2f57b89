//! Connections that may be used again: few, young, and clean.

use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio_util::either::Either;

use super::connect::Stream;
use crate::clock::{self, Instant};

/// Longest that a connection waits for its next use: Node, for one, closes them after five seconds.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// Oldest that a connection is used at: a name may have moved since it was looked up.
const MAX_AGE: Duration = Duration::from_secs(60);
const MAX_CONNECTIONS: usize = 32;

/// Idle connections to one target.
#[derive(Default)]
pub(super) struct Pool {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    idle: Vec<Idle>,
    /// Which pool a connection belongs to: one that was taken out before [`Pool::clear`] never comes back.
    generation: u64,
}

struct Idle {
    stream: Stream,
    ticket: Ticket,
    since: Instant,
}

/// What a connection needs to come back.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    born: Instant,
    generation: u64,
}

impl Pool {
    /// The ticket of a connection that was just made.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket {
            born: clock::now(),
            generation: self.inner().generation,
        }
    }

    /// Takes out a connection that may be used now. Those that may not be are dropped.
    pub(super) fn take(&self) -> Option<(Stream, Ticket)> {
        let now = clock::now();
        let mut inner = self.inner();
        while let Some(mut idle) = inner.idle.pop() {
            if idle.is_young(now) && is_clean(&mut idle.stream) {
                return Some((idle.stream, idle.ticket));
            }
        }
        None
    }

    /// Puts a connection back that has been read to the end of its last answer.
    pub(super) fn put(&self, stream: Stream, ticket: Ticket) {
        let mut inner = self.inner();
        if ticket.generation == inner.generation && inner.idle.len() < MAX_CONNECTIONS {
            inner.idle.push(Idle {
                stream,
                ticket,
                since: clock::now(),
            });
        }
    }

    /// Drops those that are too old, so that they do not stay open for nobody.
    pub(super) fn sweep(&self) {
        let now = clock::now();
        self.inner().idle.retain(|idle| idle.is_young(now));
    }

    /// Drops every connection, and those in use when they come back.
    pub(super) fn clear(&self) {
        let mut inner = self.inner();
        inner.generation += 1;
        inner.idle.clear();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn is_young(&self, now: Instant) -> bool {
        now - self.since < MAX_IDLE && now - self.ticket.born < MAX_AGE
    }
}

/// Nothing has come on it since its last answer: no byte, no end. Whatever has come was not asked for, and would be taken
/// for the answer to the next request. The socket itself is asked, since the runtime may not have noticed yet.
fn is_clean(stream: &mut Stream) -> bool {
    let tcp = match stream {
        Either::Left(tcp) => tcp,
        Either::Right(tls) => tls.get_ref().0,
    };
    let peeked = SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]);
    let is_silent = peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    // What TLS has read ahead is no longer in the socket.
    is_silent && stream.read(&mut [0]).now_or_never().is_none()
}

//! Connections that may be used again: few, young and clean ones.

use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio_util::either::Either;

use super::connect::Stream;
use crate::clock::{self, Instant};

/// The longest time that a connection stays idle. Node, for one, closes a connection after five seconds.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// The greatest age at which a connection is used again: its name may have another address by then.
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
    /// Counts the calls of [`Pool::clear`], so that a connection that was taken out before one is not put back after it.
    generation: u64,
}

struct Idle {
    stream: Stream,
    ticket: Ticket,
    since: Instant,
}

/// What a connection needs to be put back.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    born: Instant,
    generation: u64,
}

impl Pool {
    /// Returns the ticket for a connection that is made now.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket {
            born: clock::now(),
            generation: self.inner().generation,
        }
    }

    /// Takes out a connection that may be used. Drops those that may not.
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

    /// Puts back a connection whose last answer was read to its end.
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

    /// Drops the connections that are too old to be used again.
    pub(super) fn sweep(&self) {
        let now = clock::now();
        self.inner().idle.retain(|idle| idle.is_young(now));
    }

    /// Drops all idle connections now, and those in use when they are put back.
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

/// Whether nothing has come on the connection since its last answer: no byte and no end. Bytes that came would be taken
/// for the answer to the next request. Peeks at the socket itself, because the runtime may not have noticed them yet.
fn is_clean(stream: &mut Stream) -> bool {
    let tcp = match stream {
        Either::Left(tcp) => tcp,
        Either::Right(tls) => tls.get_ref().0,
    };
    let peeked = SockRef::from(tcp).peek(&mut [MaybeUninit::uninit()]);
    let is_silent = peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    // Bytes that TLS has read ahead are no longer in the socket.
    is_silent && stream.read(&mut [0]).now_or_never().is_none()
}

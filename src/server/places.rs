//! The places of a server's connections, and which connection makes way for another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::fd_limit;
use super::limits::Limits;
use super::rejection::Rejection;
use crate::clock::{self, Instant};

/// How long a connection keeps its place without a whole request where another one needs it.
const SILENT_FOR: Duration = Duration::from_millis(200);

/// As many places as there may be connections, and a few more for connections that get one answer. A flood of silent
/// connections keeps nobody out: the connection that has been silent for the longest time makes way.
pub(super) struct Places {
    limit: usize,
    over_limit: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Connections within the limit.
    taken: usize,
    /// Those of them from which a whole request has yet to come, or no other one will, by the moment since when.
    silent: BTreeMap<(Instant, u64), CancellationToken>,
    /// Connections over the limit, the oldest first.
    over: BTreeMap<u64, CancellationToken>,
    last: u64,
}

/// The place of one connection.
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    is_over: bool,
    lost: CancellationToken,
}

/// While it lives the connection may have to make way for another one.
pub(super) struct Silence {
    place: Arc<Place>,
    since: Instant,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            over_limit: fd_limit::over(),
            held: Mutex::default(),
        }
    }

    /// Returns a place for a new connection. Another connection may have to make way for it.
    pub(super) fn take(self: &Arc<Self>) -> Arc<Place> {
        let mut held = self.lock();
        held.last += 1;
        let (id, lost) = (held.last, CancellationToken::new());
        let is_over = if held.taken < self.limit {
            held.taken += 1;
            false
        } else if let Some(silent) = held.silent.first_entry()
            && clock::now() - silent.key().0 >= SILENT_FOR
        {
            // It gives its place to the new one.
            silent.remove().cancel();
            false
        } else {
            if held.over.len() >= self.over_limit
                && let Some((_, oldest)) = held.over.pop_first()
            {
                oldest.cancel();
            }
            held.over.insert(id, lost.clone());
            true
        };
        drop(held);
        Arc::new(Place {
            places: self.clone(),
            id,
            is_over,
            lost,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns what the first request of the connection is refused for, if there are too many connections.
    pub(super) fn rejection(&self) -> Option<Rejection> {
        self.is_over.then_some(Rejection::Overloaded)
    }

    /// Returns what the connection may cost.
    pub(super) fn limits(&self, limits: Limits) -> Limits {
        let header_timeout = self.at_most(limits.header_timeout);
        Limits {
            header_timeout,
            ..limits
        }
    }

    /// Returns this time, or a shorter one where places are short.
    pub(super) fn at_most(&self, time: Duration) -> Duration {
        if self.is_over {
            time.min(SILENT_FOR)
        } else {
            time
        }
    }

    /// The other side has not sent a whole request, or will not be listened to any more.
    pub(super) fn falls_silent(self: &Arc<Self>) -> Silence {
        let since = clock::now();
        if !self.is_over && !self.is_lost() {
            let mut held = self.places.lock();
            held.silent.insert((since, self.id), self.lost.clone());
        }
        Silence {
            place: self.clone(),
            since,
        }
    }

    /// Returns when another connection has got this place.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let mut held = self.place.places.lock();
        held.silent.remove(&(self.since, self.place.id));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        if self.is_over {
            held.over.remove(&self.id);
        } else if !self.is_lost() {
            held.taken -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_been_silent_for_long_enough_makes_way() {
        let places = Arc::new(Places::new(2));
        let (first, second) = (places.take(), places.take());
        let (silence, _silence) = (first.falls_silent(), second.falls_silent());
        let too_soon = places.take();
        assert_eq!(too_soon.rejection(), Some(Rejection::Overloaded));
        clock::sleep(SILENT_FOR).await;
        drop(silence);
        assert_eq!(places.take().rejection(), None, "the second one's place");
        assert!(!first.is_lost() && second.is_lost());
        drop(second);
        let third = places.take();
        assert_eq!(third.rejection(), None, "a place was free again");
        let _silence = third.falls_silent();
        assert!(places.take().rejection().is_some(), "and it was one");
        clock::sleep(SILENT_FOR).await;
        drop(places.take());
        drop((first, third, too_soon));
        let all = [places.take(), places.take(), places.take()];
        assert_eq!(all.map(|place| place.is_over), [false, false, true]);
    }

    #[test]
    fn over_the_limit_the_oldest_makes_way() {
        let places = Arc::new(Places::new(0));
        let all: Vec<_> = (0..=places.over_limit).map(|_| places.take()).collect();
        let lost: Vec<_> = all.iter().map(|place| place.is_lost()).collect();
        assert!(lost[0] && !lost[1..].contains(&true));
        drop(all);
        assert!(places.lock().over.is_empty());
    }
}

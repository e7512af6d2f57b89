//! Who waits for a payment, and hears of every change.

use std::sync::Arc;

use tokio::sync::watch;

use super::queue::Slot;
use super::{Answer, Error, How, Inner, Stale};
use crate::clock::{self, Instant};
use crate::payment::WatchCode;
use crate::store::Observation;

/// A payment that is polled in the background.
pub(super) struct Followed {
    /// Its age counts from here: its start, or when somebody first waited for it.
    pub(super) since: Instant,
    /// Where it stands in the queue. `None` while it is being asked for, or will not be any more.
    pub(super) slot: Option<Slot>,
    /// It is too old to be asked for any more, and that was noted.
    pub(super) has_ended: bool,
    /// To everybody who waits for it; only while somebody does.
    news: Option<watch::Sender<News>>,
}

/// The latest, not a queue of messages: who comes late misses nothing.
#[derive(Clone, Default)]
struct News {
    observation: Option<Observation>,
    /// How the last call failed, if it did.
    failed: Option<Error>,
}

impl Followed {
    pub(super) fn new(since: Instant) -> Self {
        Self {
            since,
            slot: None,
            has_ended: false,
            news: None,
        }
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.news.is_some()
    }

    /// Sends the result to all subscriptions. Only what is new wakes them up.
    pub(super) fn tell(&self, result: &Result<Observation, Error>) {
        let Some(news) = &self.news else { return };
        news.send_if_modified(|news| match result {
            Ok(observation) => {
                // What came before a failure may have been too old to be sent.
                let same = news.failed.is_none()
                    && news.observation.as_ref().is_some_and(|last| {
                        last.report.fingerprint == observation.report.fingerprint
                    });
                *news = News {
                    observation: Some(observation.clone()),
                    failed: None,
                };
                !same
            }
            Err(error) => {
                news.failed = Some(error.clone());
                error.is_final()
            }
        });
    }
}

/// Waits for one payment: while it lives the payment is polled.
pub(crate) struct Subscription {
    inner: Arc<Inner>,
    code: WatchCode,
    /// `None` only while it is being dropped.
    news: Option<watch::Receiver<News>>,
}

impl Subscription {
    pub(super) fn new(inner: Arc<Inner>, code: &WatchCode) -> Self {
        let mut guard = inner.state();
        let state = &mut *guard;
        inner.store.pin(code);
        let record = inner.store.get(code).unwrap_or_default();
        let since = record.stored.map_or_else(clock::now, |stored| stored.since);
        let followed = state
            .followed
            .entry(code.clone())
            .or_insert_with(|| Followed::new(since));
        let news = match &followed.news {
            Some(news) => news.subscribe(),
            None => {
                let young = |observation: &Observation| {
                    observation.report.status.is_final()
                        || clock::now() - observation.asked < inner.stale_for
                };
                let (sender, receiver) = watch::channel(News {
                    observation: record.observation.clone().filter(young),
                    failed: None,
                });
                followed.news = Some(sender);
                // Whoever begins to wait has asked already, or is about to, unless the answer in memory is fresh.
                let fresh = record
                    .observation
                    .filter(|observation| inner.remembered(observation, false).is_some());
                inner.schedule_next(
                    state,
                    code,
                    Some(fresh.map_or_else(clock::now, |observation| observation.asked)),
                );
                receiver
            }
        };
        drop(guard);
        Self {
            inner,
            code: code.clone(),
            news: Some(news),
        }
    }

    /// The last that is known; `None` while nothing is. From here on [`Self::changed`] waits for what is newer.
    pub(crate) fn now(&mut self) -> Option<Result<Answer, Error>> {
        let news = self.news.as_mut()?.borrow_and_update().clone();
        let Some(failed) = news.failed else {
            return news
                .observation
                .map(|observation| Ok(self.inner.last(&observation)));
        };
        let why = if matches!(failed, Error::NoPermit) {
            Stale::RateLimited
        } else {
            Stale::Gateway
        };
        let observation = news
            .observation
            .filter(|observation| clock::now() - observation.asked < self.inner.stale_for);
        let how = How::Asked {
            first: false,
            joined: true,
            stale: Some(why),
        };
        Some(
            observation
                .map(|observation| Answer {
                    how,
                    ..self.inner.last(&observation)
                })
                .ok_or(failed),
        )
    }

    /// Returns when [`Self::now`] would return something else than it did last.
    pub(crate) async fn changed(&mut self) {
        let changed = match &mut self.news {
            Some(news) => news.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            // The sender lives as long as there is a subscription; should it not, nothing will ever change.
            std::future::pending().await
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.news = None;
        let mut guard = self.inner.state();
        let state = &mut *guard;
        let Some(followed) = state.followed.get_mut(&self.code) else {
            return;
        };
        if followed
            .news
            .as_ref()
            .is_some_and(|news| news.receiver_count() > 0)
        {
            return;
        }
        followed.news = None;
        self.inner.store.unpin(&self.code);
        state.let_go_of(&self.code, &self.inner.store);
    }
}

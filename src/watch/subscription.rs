//! Who waits for a payment, and hears of every change.

use std::sync::Arc;

use tokio::sync::watch;

use super::state::{Input, Known};
use super::{Answer, Error, How, Inner, Stale};
use crate::clock;
use crate::payment::WatchCode;
use crate::store::Observation;

/// The latest, not a queue of messages: who comes late misses nothing.
#[derive(Clone, Default)]
pub(super) struct News {
    observation: Option<Observation>,
    /// How the last call failed, if it did.
    failed: Option<Error>,
}

/// Sends what came of a poll to all subscriptions. Only what is new wakes them up.
pub(super) fn publish(news: &watch::Sender<News>, result: &Result<Observation, Error>) {
    news.send_if_modified(|news| match result {
        Ok(observation) => {
            // What came before a failure may have been too old to be sent.
            let same = news.failed.is_none()
                && news
                    .observation
                    .as_ref()
                    .is_some_and(|last| last.report.fingerprint == observation.report.fingerprint);
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

/// Waits for one payment: while it lives the payment is polled.
pub(crate) struct Subscription {
    inner: Arc<Inner>,
    code: WatchCode,
    /// `None` only while it is being dropped.
    news: Option<watch::Receiver<News>>,
}

impl Subscription {
    pub(super) fn new(inner: Arc<Inner>, code: &WatchCode) -> Self {
        let mut guard = inner.lock();
        let shared = &mut *guard;
        let news = match shared.news.get(code) {
            Some(news) => news.subscribe(),
            None => {
                inner.store.pin(code);
                let record = inner.store.get(code).unwrap_or_default();
                let input = Input::Subscribed {
                    code: code.clone(),
                    known: Known::from(&record),
                };
                let young = |observation: &Observation| {
                    observation.report.status.is_final()
                        || clock::now() - observation.asked < inner.stale_for
                };
                let (sender, receiver) = watch::channel(News {
                    observation: record.observation.filter(young),
                    failed: None,
                });
                shared.news.insert(code.clone(), sender);
                inner.step(shared, input);
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
        let observation = news
            .observation
            .filter(|observation| clock::now() - observation.asked < self.inner.stale_for);
        let how = How::Asked {
            first: false,
            joined: true,
            stale: Some(Stale::from(&failed)),
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
        let mut shared = self.inner.lock();
        if shared
            .news
            .get(&self.code)
            .is_none_or(|news| news.receiver_count() > 0)
        {
            return;
        }
        shared.news.remove(&self.code);
        self.inner.store.unpin(&self.code);
        let input = Input::Unsubscribed {
            code: self.code.clone(),
            known: self.inner.known(&self.code),
        };
        self.inner.step(&mut shared, input);
    }
}

//! Who waits for a payment, and hears of every change.

use std::sync::Arc;

use tokio::sync::watch;

use super::answer::{Answer, Error, How, Stale};
use super::news::News;
use super::shared::Inner;
use super::state::{Input, Known};
use crate::clock;
use crate::payment::WatchCode;
use crate::store::Observation;

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
                // A fresh answer is young even if `watch.stale_for` is shorter.
                let limit = inner.stale_for.max(inner.fresh_for);
                let young = |observation: &Observation| {
                    observation.report.status.is_final() || clock::now() - observation.asked < limit
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
        self.inner.drop_unwanted(&mut shared, &self.code);
    }
}

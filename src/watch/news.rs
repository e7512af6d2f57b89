//! What those who wait for a payment hear.

use tokio::sync::watch;

use super::answer::Error;
use crate::store::Observation;

/// The latest, not a queue of messages: who comes late misses nothing.
#[derive(Clone, Default)]
pub(super) struct News {
    pub(super) observation: Option<Observation>,
    /// How the last call failed, if it did.
    pub(super) failed: Option<Error>,
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

//! `GET /events`

use super::stream::{Block, Source};
use crate::json::Json;
use crate::store::{self, Subject};
use crate::watch::ChangeFeed;

/// Every change of every payment that was started here.
pub(super) struct Events(pub(super) ChangeFeed);

impl Source for Events {
    async fn next(&mut self) -> Option<Block> {
        let next = self.0.next().await?;
        Some(match next.payment {
            Some(change) => {
                let object = Json::Object(store::shown(Subject {
                    stored: &change.stored,
                    report: change.report.as_deref(),
                    paid_twice_with: change.paid_twice_with.as_ref(),
                }));
                Block::event("payment", &next.id, &object.to_string())
            }
            // Without data no event is dispatched, and the id counts all the same.
            None => Block::mark(&next.id, "up to date"),
        })
    }
}

//! The messages to the app, as those who may list codes see them.

use jiff::Timestamp;

use crate::clock::Reading;
use crate::payment::{Code, WatchCode};
use crate::store::{Delivery, DeliveryState, Outbox};

/// Lists the messages and posts them again. Those of an earlier run are there also where no webhook is configured.
pub(crate) struct Deliveries(Outbox);

/// A message and how far it has come.
pub(crate) struct ListedDelivery {
    /// Its place in the order in which they were made.
    pub(crate) number: u64,
    /// The same for every try.
    pub(crate) id: String,
    /// What happened.
    pub(crate) kind: &'static str,
    /// Those of the payment that it is about.
    pub(crate) code: Code,
    pub(crate) watch_code: WatchCode,
    pub(crate) state: &'static str,
    pub(crate) created_at: Timestamp,
    pub(crate) tries: u32,
    /// `None` once it is finished.
    pub(crate) next_try_at: Option<Timestamp>,
    /// Why the last try failed, if it did.
    pub(crate) last_error: Option<String>,
}

impl Deliveries {
    /// Lists what is in this outbox.
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self(outbox)
    }

    /// Messages that were made before that one, the newest first, at most `limit`.
    pub(crate) fn before(&self, number: u64, limit: usize) -> Vec<ListedDelivery> {
        let clocks = Reading::take();
        let found = self.0.deliveries_before(number, limit);
        found
            .iter()
            .map(|delivery| ListedDelivery::new(delivery, clocks))
            .collect()
    }

    /// Posts the message of that id again, whatever came of it before. `None`: there is no such message any more.
    pub(crate) async fn redeliver(&self, id: &str) -> Option<ListedDelivery> {
        let delivery = self.0.redeliver(id).await?;
        Some(ListedDelivery::new(&delivery, Reading::take()))
    }
}

impl ListedDelivery {
    fn new(delivery: &Delivery, clocks: Reading) -> Self {
        let next_try_at = match delivery.state {
            DeliveryState::Due(at) => Some(clocks.wall_at(at)),
            DeliveryState::Delivered(_) | DeliveryState::Failed(_) => None,
        };
        Self {
            number: delivery.number,
            id: delivery.id.clone(),
            kind: delivery.kind.label(),
            code: delivery.code.clone(),
            watch_code: delivery.watch_code.clone(),
            state: delivery.state.label(),
            created_at: delivery.created_at,
            tries: delivery.tries,
            next_try_at,
            last_error: delivery.last_error.clone(),
        }
    }
}

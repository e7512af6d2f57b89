//! What the app is still to be told of, as the one sees it who posts it.

use std::sync::Arc;

use tokio::sync::Notify;

use super::fact::Fact;
use super::{Delivery, State, Store};
use crate::clock::{self, Instant};

impl Store {
    /// Takes out a message that may be posted at this moment; else says when the next may be.
    pub(crate) fn take_due(&self) -> Result<Arc<Delivery>, Option<Instant>> {
        let mut shelf = self.shelf();
        shelf.outbox.take_due(clock::now()).ok_or_else(|| shelf.outbox.next_due())
    }

    /// Rings when there may be more to post than [`Self::take_due`] told.
    pub(crate) fn owes_more(&self) -> Arc<Notify> {
        self.shelf().outbox.more.clone()
    }

    /// It has been posted, well or not: this is what it is now.
    pub(crate) async fn posted(&self, delivery: Delivery) {
        let kept = {
            let mut shelf = self.shelf();
            self.keep(&mut shelf, Fact::Delivery(Arc::new(delivery)))
        };
        let _ = kept.done().await;
    }

    /// Puts the message of that id in front of all again, unless it is being posted at this moment.
    pub(crate) async fn redeliver(&self, id: &str) -> Option<Arc<Delivery>> {
        let (delivery, kept) = {
            let mut shelf = self.shelf();
            let delivery = shelf.outbox.by_id(id)?.clone();
            if shelf.outbox.is_out(delivery.number) {
                return Some(delivery);
            }
            shelf.outbox.hold(&delivery);
            let delivery = Arc::new(Delivery { state: State::Due(clock::now()), ..(*delivery).clone() });
            (delivery.clone(), self.keep(&mut shelf, Fact::Delivery(delivery)))
        };
        let _ = kept.done().await;
        Some(delivery)
    }
}

//! The messages to the app, as the room that posts them sees them.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::fleet::Lease;
use super::intent::Intent;
use super::log::Log;
use super::model::{Delivery, DeliveryState, LastTries};
use crate::clock::{self, Instant};

/// Messages that are looked at in one go when the app is back: nobody else gets at the state meanwhile.
const HASTENED_AT_ONCE: usize = 1000;

/// A message that another process may be posting is looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The right to post a message, until it is dropped.
pub(crate) struct MayPost(#[expect(dead_code, reason = "it is held")] Option<Lease>);

/// The messages that are still to be posted, or were.
#[derive(Clone)]
pub(crate) struct Outbox {
    log: Arc<Log>,
}

impl Outbox {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self { log }
    }

    /// Takes out a message that may be posted at this moment.
    ///
    /// # Errors
    /// When the next one may be posted, if there is one.
    pub(crate) fn take_due(&self) -> Result<Arc<Delivery>, Option<Instant>> {
        let outbox = &mut self.log.lock().state.outbox;
        outbox
            .take_due(clock::now())
            .ok_or_else(|| outbox.next_due())
    }

    /// Rings when there may be more to post than [`Self::take_due`] returned.
    pub(crate) fn owes_more(&self) -> Arc<Notify> {
        self.log.owed()
    }

    /// Returns the right to post a message that was taken out, which takes at most this time. `None`: another process posts
    /// it, or has; it is put back, and comes again if it is still due after a while.
    pub(crate) async fn may_post(&self, delivery: &Delivery, at_most: Duration) -> Option<MayPost> {
        let Some(fleet) = self.log.fleet() else {
            return Some(MayPost(None));
        };
        let lease = fleet.may_post(delivery, at_most).await;
        let outbox = &mut self.log.lock().state.outbox;
        // What others have written about it meanwhile has put it where it belongs.
        if !outbox.is_still_out(delivery) {
            return None;
        }
        if lease.is_none() {
            let state = DeliveryState::Due(clock::now() + LOOK_AGAIN);
            let delivery = delivery.clone();
            outbox.put(Arc::new(Delivery { state, ..delivery }));
        }
        lease.map(|lease| MayPost(Some(lease)))
    }

    /// Notes whether the app took a message.
    pub(crate) fn app_answered(&self, is_well: bool) {
        if let Some(fleet) = self.log.fleet() {
            fleet.app_answered(is_well);
        }
    }

    /// Keeps what has become of a message that was posted.
    pub(crate) async fn posted(&self, delivery: Delivery) {
        let intent = Intent::Posted(Arc::new(delivery));
        let written = self.log.append(&mut self.log.lock(), intent);
        let _ = written.done().await;
    }

    /// Makes the message of that id due at once, unless it is being posted at this moment. `None` if there is none.
    pub(crate) async fn redeliver(&self, id: &str) -> Option<Arc<Delivery>> {
        let (delivery, written) = {
            let mut guarded = self.log.lock();
            let outbox = &mut guarded.state.outbox;
            let delivery = outbox.by_id(id)?.clone();
            if outbox.is_out(delivery.number) {
                return Some(delivery);
            }
            outbox.hold(&delivery);
            let delivery = Arc::new(Delivery {
                state: DeliveryState::Due(clock::now()),
                not_before: None,
                ..(*delivery).clone()
            });
            let intent = Intent::Due(delivery.clone());
            (delivery, self.log.append(&mut guarded, intent))
        };
        let _ = written.done().await;
        Some(delivery)
    }

    /// Returns how the app has been doing before this process began.
    pub(crate) fn last_tries(&self) -> LastTries {
        self.log.lock().state.outbox.last_tries()
    }

    /// Makes due what failed within the time in which the app was away, each message once; not before the wait is over
    /// that the app asked for.
    pub(crate) async fn hasten(&self, away: RangeInclusive<Instant>) {
        self.log.lock().state.outbox.came_back(away);
        let mut after = Some(0);
        while let Some(number) = after {
            let written: Vec<_> = {
                let mut guarded = self.log.lock();
                let (found, last) = guarded.state.outbox.hastened(number, HASTENED_AT_ONCE);
                after = last;
                let hastened = found.into_iter().map(|(before, hastened)| {
                    // Nobody takes it out before this is written: it would come back to where it is now.
                    guarded.state.outbox.hold(&before);
                    let intent = Intent::Due(Arc::new(hastened));
                    self.log.append(&mut guarded, intent)
                });
                hastened.collect()
            };
            for written in written {
                let _ = written.done().await;
            }
        }
    }

    /// Returns messages before that one, the newest first, at most `limit`.
    pub(crate) fn deliveries_before(&self, number: u64, limit: usize) -> Vec<Arc<Delivery>> {
        let guarded = self.log.lock();
        let before = guarded.state.outbox.before(number);
        before.take(limit).cloned().collect()
    }
}

//! The messages that are still to be posted, as the room that posts them sees them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::sync::Notify;

use super::event::Event;
use super::state::State;
use super::{Delivery, DeliveryState, Kind, LastTries, Store, StoredPayment};
use crate::clock::{self, Instant};
use crate::payment::Report;
use crate::random;

/// Messages that are looked at in one go when the app is back: nobody else gets at the state meanwhile.
const HASTENED_AT_ONCE: usize = 1000;

impl Store {
    /// Takes out a message that may be posted at this moment; else says when the next may be.
    pub(crate) fn take_due(&self) -> Result<Arc<Delivery>, Option<Instant>> {
        let mut state = self.state();
        state
            .outbox
            .take_due(clock::now())
            .ok_or_else(|| state.outbox.next_due())
    }

    /// Rings when there may be more to post than [`Self::take_due`] returned.
    pub(crate) fn owes_more(&self) -> Arc<Notify> {
        self.state().outbox.more.clone()
    }

    /// It has been posted, well or not: this is what it is now.
    pub(crate) async fn posted(&self, delivery: Delivery) {
        let kept = {
            let mut state = self.state();
            self.keep(&mut state, Event::Delivery(Arc::new(delivery)))
        };
        let _ = kept.done().await;
    }

    /// Puts the message of that id in front of all again, unless it is being posted at this moment.
    pub(crate) async fn redeliver(&self, id: &str) -> Option<Arc<Delivery>> {
        let (delivery, kept) = {
            let mut state = self.state();
            let delivery = state.outbox.by_id(id)?.clone();
            if state.outbox.is_out(delivery.number) {
                return Some(delivery);
            }
            state.outbox.hold(&delivery);
            let due = DeliveryState::Due(clock::now());
            let delivery = Arc::new(Delivery {
                state: due,
                not_before: None,
                ..(*delivery).clone()
            });
            (
                delivery.clone(),
                self.keep(&mut state, Event::Delivery(delivery)),
            )
        };
        let _ = kept.done().await;
        Some(delivery)
    }

    /// How the app has been doing before this process began.
    pub(crate) fn last_tries(&self) -> LastTries {
        self.state().outbox.last_tries()
    }

    /// The app is back since the end of this time: what failed within it, and waits for another try, is due again, each
    /// message once; not before what the app asked for is over.
    pub(crate) async fn hasten(&self, away: RangeInclusive<Instant>) {
        self.state().outbox.came_back(away);
        let mut after = Some(0);
        while let Some(number) = after {
            let kept: Vec<_> = {
                let mut state = self.state();
                let (found, last) = state.outbox.hastened(number, HASTENED_AT_ONCE);
                after = last;
                let hastened = found.into_iter().map(|(before, hastened)| {
                    // Nobody takes it out before this is written: it would come back to where it is now.
                    state.outbox.hold(&before);
                    self.keep(&mut state, Event::Delivery(Arc::new(hastened)))
                });
                hastened.collect()
            };
            for kept in kept {
                let _ = kept.done().await;
            }
        }
    }

    /// Composes a message to the app, if the app gets messages.
    pub(super) fn delivery(
        &self,
        state: &mut State,
        kind: Kind,
        stored: &StoredPayment,
        report: Option<&Report>,
    ) -> Option<Arc<Delivery>> {
        let compose = self.compose?;
        state.numbers.delivery += 1;
        let since = clock::now();
        let created_at = clock::wall_at(since);
        Some(Arc::new(Delivery {
            number: state.numbers.delivery,
            id: format!("msg_{}", random::token(24)),
            payment: stored.number,
            kind,
            body: compose(kind, stored, report, created_at).into(),
            created_at,
            since,
            tries: 0,
            failed: None,
            not_before: None,
            last_error: None,
            state: DeliveryState::Due(since),
        }))
    }
}

//! What the poller knows, behind one lock.

use std::collections::HashMap;

use super::Error;
use super::queue::PollQueue;
use super::schedule::{CircuitBreaker, Failing};
use super::subscription::Followed;
use crate::clock::Instant;
use crate::gateway;
use crate::payment::WatchCode;
use crate::store::{Observation, Payments, Record};
use crate::tasks::SharedTask;

/// One lock for all of it, and for the look into the store before a call: who finds nothing fresh joins the call that
/// is under way or makes the only one.
#[derive(Default)]
pub(super) struct PollState {
    pub(super) under_way: HashMap<WatchCode, SharedTask<Result<Observation, Error>>>,
    /// Unheard-of codes, and when the gateway said so.
    pub(super) unknown: HashMap<WatchCode, (Instant, gateway::Error)>,
    /// What is polled in the background.
    pub(super) followed: HashMap<WatchCode, Followed>,
    pub(super) queue: PollQueue,
    pub(super) failing: HashMap<WatchCode, Failing>,
    pub(super) breaker: CircuitBreaker,
    /// Calls under way that nobody made but the scheduler.
    pub(super) in_background: usize,
    /// Readers of all payments, the app's webhook among them: while there is one, every open payment is followed.
    pub(super) feeds: usize,
    /// The last payment that is followed because of that.
    pub(super) adopted: u64,
    /// These are not polled in the background any more: that is still to be kept.
    pub(super) ended: Vec<WatchCode>,
}

impl PollState {
    /// Nobody waits for this payment any more.
    pub(super) fn let_go_of(&mut self, code: &WatchCode, store: &Payments) {
        let is_open = |record: Record| {
            record.stored.is_some()
                && !record
                    .observation
                    .is_some_and(|observation| observation.report.status.is_final())
        };
        if self.feeds > 0 && store.get(code).is_some_and(is_open) {
            return;
        }
        if let Some(Followed {
            slot: Some(slot), ..
        }) = self.followed.remove(code)
        {
            self.queue.remove(code, slot);
        }
    }

    /// A reader of all payments has gone.
    pub(super) fn close_feed(&mut self) {
        self.feeds -= 1;
        if self.feeds > 0 {
            return;
        }
        self.adopted = 0;
        let Self {
            followed, queue, ..
        } = self;
        followed.retain(|code, followed| {
            let stays = followed.is_waited_for();
            if let (false, Some(slot)) = (stays, followed.slot) {
                queue.remove(code, slot);
            }
            stays
        });
    }
}

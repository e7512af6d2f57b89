//! Callers who wait for the result of a call, and calls that nobody waits for any more.

use std::sync::Arc;

use super::answer::Error;
use super::shared::{Call, Inner, Shared, Stage};
use super::state::Input;
use crate::payment::WatchCode;
use crate::store::Observation;

/// One caller who waits for the result of a call, for as long as this lives.
pub(super) struct Waiter {
    inner: Arc<Inner>,
    code: WatchCode,
    /// The number of the call.
    number: u64,
    task: Call,
}

impl Waiter {
    /// The first to wait for this call.
    pub(super) fn first(inner: &Arc<Inner>, code: &WatchCode, (number, task): (u64, Call)) -> Self {
        Self {
            inner: inner.clone(),
            code: code.clone(),
            number,
            task,
        }
    }

    /// One more who waits for the call for this code that is under way, if there is one.
    pub(super) fn join(inner: &Arc<Inner>, shared: &mut Shared, code: &WatchCode) -> Option<Self> {
        let call = shared.calls.get_mut(code)?;
        if !call.task.is_under_way() {
            return None;
        }
        call.waiters += 1;
        Some(Self::first(inner, code, (call.number, call.task.clone())))
    }

    pub(super) async fn result(&self) -> Result<Observation, Error> {
        let result = self.task.clone().result().await;
        result.unwrap_or(Err(Error::Crashed))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut shared = self.inner.lock();
        let call = shared.calls.get_mut(&self.code);
        if let Some(call) = call.filter(|call| call.number == self.number) {
            call.waiters -= 1;
            self.inner.drop_unwanted(&mut shared, &self.code);
        }
    }
}

impl Inner {
    /// Takes a question out of the queue that nobody waits for any more, neither a caller nor the background.
    pub(super) fn drop_unwanted(self: &Arc<Self>, shared: &mut Shared, code: &WatchCode) {
        if let Some(call) = shared.calls.get(code)
            && let Stage::Queued(caller) = call.stage
            && call.waiters == 0
            && !shared.state.follows(code)
            && shared.callers.remove(&caller).is_some()
        {
            self.step(shared, Input::PermitUnwanted { caller });
        }
    }
}

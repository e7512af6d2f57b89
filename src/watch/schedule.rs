//! The one scheduler: hands out the permits of the rate window, one after the other, to whom the queue names.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::cadence::{self, Situation};
use super::queue::Next;
use super::rate_window::Permit;
use super::state::PollState;
use super::subscription::Followed;
use super::{Error, Inner};
use crate::clock::{self, Instant};
use crate::gateway;
use crate::payment::WatchCode;
use crate::random;

/// Open payments that are put in the queue at once: nobody else gets at it meanwhile.
const ADOPTED_AT_ONCE: usize = 1000;
/// A look at the clock, should the bell not ring before.
const FAR_AWAY: Duration = Duration::from_secs(3600);

/// How often the background looks whether there is a secret by now.
const SECRET_AGAIN: Duration = Duration::from_secs(1);

/// A failure is forgotten after this time without another one.
const REMEMBERED_FOR: Duration = Duration::from_secs(120);

/// Calls about one payment that failed, one after the other: remembered also when nobody waits for it any more, so that
/// whoever comes next does not begin anew.
pub(super) struct Failing {
    times: u8,
    last: Instant,
}

/// How the gateway has been doing.
#[derive(Default)]
pub(super) struct CircuitBreaker {
    /// Calls in a row that failed in a way that another payment's would fail too.
    failures: u8,
    /// Until then the background leaves it alone, and from then on it asks one at a time.
    until: Option<Instant>,
}

impl CircuitBreaker {
    /// A call of that moment was answered, or failed.
    fn observe(&mut self, began: Instant, error: Option<&gateway::Error>) {
        let Some(error) = error else {
            if self.failures > 0 {
                tracing::info!("the gateway answers again");
            }
            *self = Self::default();
            return;
        };
        if !error.is_outage() {
            return;
        }
        if let Some(until) = self.until.filter(|until| began < *until) {
            // Those that were on their way when the pause began say nothing new, but how long it has to be.
            let asked_for = error
                .retry_after()
                .map(|wait| clock::now() + cadence::pause(0, Some(wait), 0.0));
            self.until = Some(asked_for.map_or(until, |asked_for| until.max(asked_for)));
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let pause = cadence::pause(self.failures, error.retry_after(), random::fraction());
        self.until = Some(clock::now() + pause);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(%error, failures = self.failures, pause_ms, "the gateway is in trouble: no polls in the background for now");
    }
}

/// Runs for as long as the poller lives.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut starts = inner.changes.changed();
    while let Some(mut permit) = inner.rate_window.permit().await {
        loop {
            let wake_up = match inner.hand_out(permit) {
                Handed::On => break,
                Handed::Back(back, wake_up) => {
                    permit = back;
                    wake_up
                }
            };
            let has_feed = inner.state().feeds > 0;
            tokio::select! {
                () = inner.bell.notified() => {}
                // Maybe a new payment. The sender is in the store, which lives as long as the poller.
                _ = starts.changed(), if has_feed => {}
                () = clock::sleep_until(wake_up) => {}
            }
        }
    }
}

enum Handed {
    /// Somebody has it.
    On,
    /// Nobody wants it before that moment.
    Back(Permit, Instant),
}

impl Inner {
    fn hand_out(self: &Arc<Self>, mut permit: Permit) -> Handed {
        let now = clock::now();
        let mut state = self.state();
        let more = self.adopt(&mut state);
        for code in mem::take(&mut state.ended) {
            let store = self.store.clone();
            self.tasks
                .launch(async move { store.polling_ended(&code).await });
        }
        loop {
            let payments_from = match &state.breaker {
                _ if !self.gateway.has_secret() => Some(now + SECRET_AGAIN),
                CircuitBreaker { failures: 1.., .. } if state.in_background > 0 => {
                    Some(now + FAR_AWAY)
                }
                CircuitBreaker { until, .. } => *until,
            };
            match state.queue.next(now, payments_from) {
                // Sent back, if the caller has gone.
                Next::Caller(caller) => match caller.send(permit) {
                    Ok(()) => return Handed::On,
                    Err(back) => permit = back,
                },
                Next::Payment(code) => {
                    if self.is_worth_asking(&mut state, &code) {
                        state.in_background += 1;
                        let task = self.call(code.clone(), Some(permit), true);
                        state.under_way.insert(code, task);
                        return Handed::On;
                    }
                }
                Next::Nobody(_) if more => return Handed::Back(permit, now),
                Next::Nobody(wake_up) => {
                    return Handed::Back(permit, wake_up.unwrap_or(now + FAR_AWAY));
                }
            }
        }
    }

    /// While there is a feed all open payments are in the queue: puts the next there. True if there may be more.
    fn adopt(&self, state: &mut PollState) -> bool {
        if state.feeds == 0 {
            return false;
        }
        let open = self.store.open_after(state.adopted, ADOPTED_AT_ONCE);
        for (stored, observation) in &open {
            state.adopted = stored.number;
            let code = &stored.payment.watch_code;
            let followed = state
                .followed
                .entry(code.clone())
                .or_insert_with(|| Followed::new(stored.since));
            if followed.slot.is_none() {
                self.schedule_next(
                    state,
                    code,
                    observation.as_ref().map(|observation| observation.asked),
                );
            }
        }
        open.len() == ADOPTED_AT_ONCE
    }

    /// Whether a call for this payment, which has just come out of the queue, is still wanted.
    fn is_worth_asking(&self, state: &mut PollState, code: &WatchCode) -> bool {
        let Some(followed) = state.followed.get_mut(code) else {
            return false;
        };
        followed.slot = None;
        if !followed.is_waited_for()
            && self
                .store
                .get(code)
                .is_none_or(|record| record.stored.is_none())
        {
            // Let go, for watch.max_tracked; it may have been asked for since.
            state.followed.remove(code);
            return false;
        }
        // Somebody's own call is under way: when that has ended, this payment is in the queue again.
        !state
            .under_way
            .get(code)
            .is_some_and(crate::tasks::SharedTask::is_under_way)
    }

    /// Puts a followed payment where it belongs, when it was asked for last at that moment.
    pub(super) fn schedule_next(
        &self,
        state: &mut PollState,
        code: &WatchCode,
        asked: Option<Instant>,
    ) {
        let record = self.store.get(code).unwrap_or_default();
        let is_final = record
            .observation
            .is_some_and(|observation| observation.report.status.is_final());
        let Some(followed) = state.followed.get_mut(code) else {
            return;
        };
        if let Some(slot) = followed.slot.take() {
            state.queue.remove(code, slot);
        }
        let now = clock::now();
        let age = now - followed.since;
        if is_final || age >= self.give_up_after {
            // While a call is under way it may be just paid: when that has ended, this is asked again.
            let is_settled = !state.under_way.contains_key(code);
            if is_settled
                && !is_final
                && record.stored.is_some()
                && !record.polling_ended
                && !followed.has_ended
            {
                followed.has_ended = true;
                state.ended.push(code.clone());
                self.bell.notify_one();
            }
            if !followed.is_waited_for() {
                state.followed.remove(code);
            }
            return;
        }
        let waited_for = followed.is_waited_for();
        let failing = state.failing.get(code);
        let situation = Situation {
            age,
            waited_for,
            failures: failing.map_or(0, |failing| failing.times),
        };
        let interval = cadence::interval(situation, self.max_poll_interval, random::fraction());
        let asked = asked.max(failing.map(|failing| failing.last));
        // The last time is when it is given up.
        let due = asked
            .map_or(now, |asked| asked + interval)
            .min(followed.since + self.give_up_after);
        followed.slot = Some(state.queue.add(code.clone(), waited_for, due, interval));
        self.bell.notify_one();
    }

    /// A call that began at that moment is over, and what it taught is in the state: what does that mean for the next?
    pub(super) fn reschedule(
        &self,
        state: &mut PollState,
        code: &WatchCode,
        began: Instant,
        result: Result<Instant, &Error>,
    ) {
        let asked = match result {
            Ok(asked) => asked,
            Err(_) => clock::now(),
        };
        let of_the_gateway = match result {
            Err(Error::Gateway(error)) if *error != gateway::Error::SecretUnavailable => {
                Some(error)
            }
            _ => None,
        };
        if result.is_ok() || of_the_gateway.is_some() {
            state.breaker.observe(began, of_the_gateway);
        }
        if of_the_gateway.is_some() {
            state
                .failing
                .retain(|_, failing| asked - failing.last < REMEMBERED_FOR);
            let failing = state.failing.entry(code.clone()).or_insert(Failing {
                times: 0,
                last: asked,
            });
            *failing = Failing {
                times: failing.times.saturating_add(1),
                last: asked,
            };
        } else if result.is_ok() {
            state.failing.remove(code);
        }
        self.schedule_next(state, code, Some(asked));
    }
}

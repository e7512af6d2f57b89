//! Drives the state of `state.rs`: holds the lock, reads the clock, waits, and does what the state says.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::answer::Error;
use super::poll::Question;
use super::queue::{CallerId, Rank};
use super::shared::{Call, Caller, Inner, Permit, Shared, Stage, UnderWay};
use super::state::{Action, Input, Known, Outcome, Pause};
use super::{news, tell};
use crate::clock::{self, Instant};
use crate::gateway;
use crate::payment::WatchCode;
use crate::store::{Observation, Settled};
use crate::telemetry::RequestId;

/// Open payments that are taken out of the store at once: nobody else gets at the state meanwhile.
const ADOPTED_AT_ONCE: usize = 1000;

/// A caller's place in the queue, for as long as this lives.
struct Queued {
    inner: Arc<Inner>,
    caller: CallerId,
    /// Outlives the place in the queue, so that a permit is never sent in vain.
    reply: oneshot::Receiver<Result<Permit, Error>>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut shared = self.inner.lock();
        if shared.callers.remove(&self.caller).is_some() {
            let caller = self.caller;
            self.inner
                .step(&mut shared, Input::PermitUnwanted { caller });
        }
    }
}

/// Runs for as long as the poller lives.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut changes = inner.changes.changed();
    let is_shared = inner.store.is_shared();
    let (mut heard, mut roles) = (inner.changes.position(), None);
    loop {
        let (wake_up, has_feed) = inner.tick();
        tokio::select! {
            () = inner.bell.notified() => {}
            // Maybe a new payment. The sender is in the store, which lives as long as the poller.
            _ = changes.changed(), if has_feed || is_shared => {}
            () = inner.store.roles_changed(&mut roles) => inner.take_over(),
            () = clock::sleep_until(wake_up) => {}
        }
        if is_shared {
            heard = inner.hear(heard);
        }
    }
}

impl Inner {
    /// Takes the lock, and steps the state.
    pub(super) fn input(self: &Arc<Self>, input: Input) {
        self.step(&mut self.lock(), input);
    }

    /// Steps the state, does what it says, and wakes the loop up: permits are handed out there alone.
    pub(super) fn step(self: &Arc<Self>, shared: &mut Shared, input: Input) {
        let wakes = !matches!(input, Input::Tick { .. });
        for action in shared.state.step(clock::now(), input) {
            self.execute(shared, action);
        }
        if wakes {
            self.bell.notify_one();
        }
    }

    fn execute(self: &Arc<Self>, shared: &mut Shared, action: Action) {
        match action {
            Action::Poll(code) => self.poll_in_background(shared, code),
            Action::GivePermit(caller) => {
                if let Some(Caller { code, reply }) = shared.callers.remove(&caller) {
                    if let Some(call) = shared.calls.get_mut(&code) {
                        call.stage = Stage::Sent;
                    }
                    // The receiver is there: see `Queued`.
                    let _ = reply.send(Ok(Permit::new(self.clone())));
                }
            }
            Action::RefusePermit(caller) => {
                if let Some(caller) = shared.callers.remove(&caller) {
                    let _ = caller.reply.send(Err(Error::NoPermit));
                }
            }
            Action::NotePollingEnded(code) => {
                let store = self.store.clone();
                self.tasks
                    .launch(async move { store.polling_ended(&code).await });
            }
            Action::LogPause(Pause { length, failures }, error) => {
                let pause_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(%error, failures, pause_ms, request_id = RequestId::current().as_deref(), "the gateway is in trouble: no polls in the background for now");
            }
            Action::LogRecovery => tracing::info!(
                request_id = RequestId::current().as_deref(),
                "the gateway answers again"
            ),
            Action::SleepUntil(moment) => shared.wake_up = moment,
        }
    }

    /// Hands out the permits that there are. Returns when to do so again at the latest, and whether there is a feed.
    fn tick(self: &Arc<Self>) -> (Instant, bool) {
        let mut shared = self.lock();
        if let Some(after) = shared.state.adopts_after() {
            // Each wakes the loop up, which then looks for more.
            for open in self.store.open_after(after, ADOPTED_AT_ONCE) {
                let number = open.stored.number;
                let code = &open.stored.payment.watch_code;
                let older = self.store.older_of_reference(code);
                for code in older.into_iter().chain([code.clone()]) {
                    let known = self.known(&code);
                    let input = Input::Adopted {
                        number,
                        code,
                        known,
                    };
                    self.step(&mut shared, input);
                }
            }
        }
        let has_secret = self.gateway.has_secret();
        self.step(&mut shared, Input::Tick { has_secret });
        (shared.wake_up, shared.state.adopts_after().is_some())
    }

    fn poll_in_background(self: &Arc<Self>, shared: &mut Shared, code: WatchCode) {
        let (known, is_waited_for) = (self.known(&code), shared.news.contains_key(&code));
        if !is_waited_for && known.started.is_none() {
            // Let go, for watch.max_tracked; it may have been asked for since.
            self.step(shared, Input::Forgotten { code });
            return;
        }
        if known.is_final || !(is_waited_for || self.store.is_mine(&code)) {
            self.step(shared, Input::Left { code, known });
            return;
        }
        // What another replica has found out since the last time will do.
        let younger_than = known
            .asked
            .map_or(Duration::MAX, |asked| clock::now() - asked);
        let question = Question {
            rank: Rank::HasAnswer,
            is_waited_for,
            younger_than,
        };
        self.call(shared, code, true, question);
    }

    /// Makes the one call, which has its first permit already or waits for it. It settles what it learns by itself: the
    /// caller may have gone. One waits for it from the beginning: returns what makes a [`Waiter`](super::waiter::Waiter),
    /// without which the call is never unwanted.
    pub(super) fn call(
        self: &Arc<Self>,
        shared: &mut Shared,
        code: WatchCode,
        has_permit: bool,
        question: Question,
    ) -> (u64, Call) {
        let (this, polled) = (self.clone(), code.clone());
        let task = self.tasks.launch(RequestId::keep(async move {
            let began = clock::now();
            // Made here, because a runtime that ends drops the task at once, and this is still under the lock.
            let permit = has_permit.then(|| Permit::new(this.clone()));
            // A crash is an end too: those who wait for this payment must not wait in vain.
            let settled = async {
                let answer = this.poll(&polled, permit, question).await?;
                // What is new is kept first; then everybody hears of it.
                let settled = this.store.settle(&polled, answer.report, answer.asked);
                let settled = settled.await;
                answer.pass.done(true);
                Ok(settled)
            };
            let result = AssertUnwindSafe(settled)
                .catch_unwind()
                .await
                .unwrap_or(Err(Error::Crashed));
            this.finish_poll(polled, began, result)
        }));
        shared.last_call += 1;
        let number = shared.last_call;
        let call = UnderWay {
            task: task.clone(),
            number,
            waiters: 1,
            stage: if has_permit {
                Stage::Sent
            } else {
                Stage::Begun
            },
        };
        shared.calls.insert(code.clone(), call);
        self.call_older(shared, &code);
        (number, task)
    }

    /// Asks for the older payments of the same reference too, whose pages can still be paid: nobody else may do so.
    fn call_older(self: &Arc<Self>, shared: &mut Shared, code: &WatchCode) {
        for older in self.store.older_of_reference(code) {
            let known = self.store.get(&older).and_then(|record| record.observation);
            let is_fresh = |known: &Observation| clock::now() - known.asked < self.fresh_for;
            let call = shared.calls.get(&older);
            let is_asked = call.is_some_and(|call| call.task.is_under_way());
            if is_asked || shared.state.follows(&older) || known.as_ref().is_some_and(is_fresh) {
                continue;
            }
            let asked = Input::Asked {
                code: older.clone(),
            };
            self.step(shared, asked);
            let question = Question {
                rank: Rank::of(known.is_some(), true),
                is_waited_for: true,
                younger_than: self.fresh_for,
            };
            self.call(shared, older, false, question);
        }
    }

    /// The call is over: what it learned is in the state in the same moment.
    fn finish_poll(
        self: &Arc<Self>,
        code: WatchCode,
        began: Instant,
        result: Result<Settled, Error>,
    ) -> Result<Observation, Error> {
        let mut guard = self.lock();
        let shared = &mut *guard;
        shared.calls.remove(&code);
        let record = self.store.get(&code);
        let result = match result {
            Ok(settled) => {
                let odd = tell::tell(&settled.before, &settled.observation);
                if let Some(other) = settled.paid_twice_with() {
                    tell::tell_paid_twice(&settled.before, other);
                    self.paid_twice.inc();
                }
                self.amount_mismatches.inc_by(odd.amount.into());
                self.unknown_statuses.inc_by(odd.status.into());
                shared.unknown.remove(&code);
                Ok(settled.observation)
            }
            Err(Error::Gateway(error @ gateway::Error::UnknownCode(_))) => {
                if record.is_some() {
                    // We know better: it exists, so this answer is a failure.
                    Err(error.of_known_code().into())
                } else {
                    shared.unknown.insert(clock::now(), &code, error.clone());
                    Err(error.into())
                }
            }
            Err(error) => Err(error),
        };
        let is_abandoned = matches!(result, Err(Error::Abandoned));
        if let Some(sender) = shared.news.get(&code).filter(|_| !is_abandoned) {
            news::publish(sender, &result);
        }
        let input = Input::PollFinished {
            code: code.clone(),
            began,
            outcome: Outcome::from(&result),
            known: record.as_ref().map(Known::from).unwrap_or_default(),
        };
        self.step(shared, input);
        if let Err(error) = &result {
            let has_observation = record.is_some_and(|record| record.observation.is_some());
            log_failure(error, has_observation || shared.state.follows(&code));
        }
        result
    }

    /// Takes in what other replicas have found out, from this position of the journal on; returns the position up to which
    /// that is done.
    fn hear(self: &Arc<Self>, heard: u64) -> u64 {
        let mut heard = heard;
        let mut shared = self.lock();
        loop {
            let Ok(changes) = self.changes.changes_after(heard, ADOPTED_AT_ONCE) else {
                // The journal does not reach back so far, or is another one.
                heard = self.changes.position();
                let codes: Vec<_> = shared.news.keys().cloned().collect();
                codes
                    .iter()
                    .for_each(|code| self.hear_of(&mut shared, code));
                return heard;
            };
            let Some(last) = changes.last() else {
                return heard;
            };
            heard = last.position;
            for change in changes {
                self.hear_of(&mut shared, &change.stored.payment.watch_code);
            }
        }
    }

    /// Those who wait for this payment hear what is known of it by now.
    fn hear_of(&self, shared: &mut Shared, code: &WatchCode) {
        if let Some(sender) = shared.news.get(code)
            && let Some(observation) = self.store.get(code).and_then(|record| record.observation)
        {
            news::publish(sender, &Ok(observation));
        }
    }

    /// Replicas have come or gone, or the store is back: what is this replica's to poll by now is due when it is due.
    fn take_over(self: &Arc<Self>) {
        let mut shared = self.lock();
        let codes = shared.state.not_waited_for();
        let mine: Vec<_> = codes
            .filter(|code| self.store.is_mine(code))
            .cloned()
            .collect();
        for code in mine {
            let known = self.known(&code);
            self.store.taken_over(&code);
            self.step(&mut shared, Input::TakenOver { code, known });
        }
    }

    /// Waits in the queue for a permit for a call, until the deadline.
    ///
    /// # Errors
    /// If there is none in time, or nobody waits for the call any more.
    pub(super) async fn permit(
        self: &Arc<Self>,
        code: &WatchCode,
        rank: Rank,
        deadline: Instant,
    ) -> Result<Permit, Error> {
        let mut queued = {
            let (sender, reply) = oneshot::channel();
            let mut shared = self.lock();
            shared.last_caller.0 += 1;
            let caller = shared.last_caller;
            // The gateway has heard of a payment that is asked for a second time.
            if rank != Rank::Confirms
                && let Some(call) = shared.calls.get_mut(code)
            {
                call.stage = Stage::Queued(caller);
            }
            let code = code.clone();
            let waits = Caller {
                code: code.clone(),
                reply: sender,
            };
            shared.callers.insert(caller, waits);
            self.step(&mut shared, Input::PermitWanted { caller, rank });
            self.drop_unwanted(&mut shared, &code);
            Queued {
                inner: self.clone(),
                caller,
                reply,
            }
        };
        match clock::timeout_at(deadline, &mut queued.reply).await {
            Ok(reply) => reply.unwrap_or(Err(Error::Abandoned)),
            Err(_) => Err(Error::NoPermit),
        }
    }
}

/// Logs a failure once, however many are waiting. A caller without an old answer gets the error, which is logged there.
fn log_failure(error: &Error, has_answer: bool) {
    let is_told = matches!(
        error,
        Error::Abandoned | Error::Gateway(gateway::Error::SecretUnavailable)
    );
    if has_answer && !is_told {
        tracing::warn!(%error, request_id = RequestId::current().as_deref(), "no new answer about a payment: the last known one is served while it is young enough");
    }
}

impl From<&Result<Observation, Error>> for Outcome {
    fn from(result: &Result<Observation, Error>) -> Self {
        match result {
            Ok(observation) => Self::Answered(observation.asked),
            Err(
                Error::Gateway(gateway::Error::SecretUnavailable)
                | Error::NoPermit
                | Error::Abandoned
                | Error::Crashed,
            ) => Self::NotAsked,
            Err(Error::Gateway(error)) => Self::Failed(error.clone()),
        }
    }
}

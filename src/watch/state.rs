//! Which payments are polled, and when: a plain value, without lock, clock, channel or metric. `driver.rs` steps it.

mod breaker;
mod failures;
mod input;
mod jitter;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use self::breaker::CircuitBreaker;
pub(super) use self::breaker::Pause;
use self::failures::Failures;
pub(super) use self::input::{Action, Input, Known, Outcome};
use self::jitter::Jitter;
use super::cadence::{self, Situation};
use super::config::Config;
use super::queue::{Next, PollQueue, Slot};
use super::rate_window::{self, RateWindow};
use crate::clock::Instant;
use crate::payment::WatchCode;

/// How long the driver sleeps when nothing is due.
const FAR_AWAY: Duration = Duration::from_secs(3600);

/// How often the background looks whether there is a secret by now.
const SECRET_AGAIN: Duration = Duration::from_secs(1);

/// Most callers in a row of the queue, however high the rate: each of them holds a connection.
const MAX_CALLERS: f64 = 10_000.0;

/// Returns how many callers can get a permit in this time. Others would wait in vain.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from one to ten thousand"
)]
fn callers_at_once(rate: NonZeroU32, permit_within: Duration) -> usize {
    let time = permit_within + rate_window::WINDOW;
    let callers = f64::from(rate.get()) * time.as_secs_f64();
    callers.clamp(1.0, MAX_CALLERS) as usize
}

/// What the poller knows of calls and of those who want them. What it does follows from its inputs, their moments and
/// its seed alone.
pub(super) struct PollState {
    fresh_for: Duration,
    max_poll_interval: Duration,
    give_up_after: Duration,
    jitter: Jitter,
    /// What is polled in the background.
    followed: HashMap<WatchCode, Followed>,
    /// Codes with a call under way, and who made it.
    under_way: HashMap<WatchCode, MadeBy>,
    queue: PollQueue,
    rate_window: RateWindow,
    failures: Failures,
    breaker: CircuitBreaker,
    /// Readers of all payments, the app's webhook among them: while there is one, every open payment is followed.
    feeds: usize,
    /// The number of the last payment that is followed because of that.
    adopted: u64,
}

/// A payment that is polled in the background.
struct Followed {
    /// Its age counts from here: its start, or when somebody first waited for it.
    since: Instant,
    /// Where it stands in the queue. `None` while a call for it is under way, or when it is not polled any more.
    slot: Option<Slot>,
    is_waited_for: bool,
    /// It is too old to be asked for any more, and that was noted.
    has_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MadeBy {
    Caller,
    Background,
}

impl PollState {
    /// Follows nothing yet. A caller waits for a permit for so long at most. The jitter comes from the seed.
    pub(super) fn new(config: &Config, permit_within: Duration, seed: u64) -> Self {
        Self {
            fresh_for: config.fresh_for,
            max_poll_interval: config.max_poll_interval,
            give_up_after: config.give_up_after,
            jitter: Jitter::new(seed),
            followed: HashMap::new(),
            under_way: HashMap::new(),
            queue: PollQueue::new(callers_at_once(config.poll_rate, permit_within)),
            rate_window: RateWindow::new(config.poll_rate),
            failures: Failures::default(),
            breaker: CircuitBreaker::default(),
            feeds: 0,
            adopted: 0,
        }
    }

    /// Takes what has happened by that moment, which is never before that of an earlier input.
    pub(super) fn step(&mut self, now: Instant, input: Input) -> Vec<Action> {
        match input {
            Input::Subscribed { code, known } => {
                self.follow(now, &code, &known).is_waited_for = true;
                // A caller that begins to wait has asked already, or is about to, unless the answer in memory is fresh.
                let fresh = known.asked.filter(|asked| now - *asked < self.fresh_for);
                let ended = self.schedule(now, &code, &known, fresh.or(Some(now)));
                return ended.into_iter().collect();
            }
            Input::Unsubscribed { code, known } => self.unsubscribed(&code, &known),
            Input::FeedOpened => self.feeds += 1,
            Input::FeedClosed => self.feed_closed(),
            Input::Adopted {
                number,
                code,
                known,
            } => {
                self.adopted = self.adopted.max(number);
                let followed = self.follow(now, &code, &known);
                // An older payment of a reference is followed anew with a later one.
                followed.since = followed.since.max(known.started.unwrap_or(now));
                if followed.slot.is_none() {
                    let ended = self.schedule(now, &code, &known, known.asked);
                    return ended.into_iter().collect();
                }
            }
            Input::Asked { code } => {
                self.unqueue(&code);
                self.under_way.insert(code, MadeBy::Caller);
            }
            Input::PermitWanted { caller, rank } => {
                if !self.queue.add_caller(caller, rank) {
                    return vec![Action::RefusePermit(caller)];
                }
            }
            Input::PermitUnwanted { caller } => self.queue.remove_caller(caller),
            Input::PermitReturned => self.rate_window.rest(now),
            Input::PermitUnused => self.rate_window.put_back(),
            Input::PollFinished {
                code,
                began,
                outcome,
                known,
            } => return self.poll_finished(now, &code, began, outcome, &known),
            Input::Forgotten { code } => {
                self.rate_window.put_back();
                self.under_way.remove(&code);
                self.followed.remove(&code);
            }
            Input::Left { code, known } => {
                self.rate_window.put_back();
                self.under_way.remove(&code);
                let ended = self.schedule(now, &code, &known, Some(now));
                return ended.into_iter().collect();
            }
            Input::TakenOver { code, known } => {
                let ended = self.schedule(now, &code, &known, known.asked);
                return ended.into_iter().collect();
            }
            Input::Tick { has_secret } => return self.hand_out(now, has_secret),
        }
        Vec::new()
    }

    /// While there is a feed: the number of the payment after which the next open payments are to be adopted.
    pub(super) fn adopts_after(&self) -> Option<u64> {
        (self.feeds > 0).then_some(self.adopted)
    }

    /// How many payments are polled in the background.
    pub(super) fn followed(&self) -> usize {
        self.followed.len()
    }

    /// The payments that are polled in the background and that nobody waits for.
    pub(super) fn not_waited_for(&self) -> impl Iterator<Item = &WatchCode> {
        let followed = self.followed.iter();
        let followed = followed.filter(|(_, followed)| !followed.is_waited_for);
        followed.map(|(code, _)| code)
    }

    /// Whether this payment is polled in the background.
    pub(super) fn follows(&self, code: &WatchCode) -> bool {
        self.followed.contains_key(code)
    }

    fn follow(&mut self, now: Instant, code: &WatchCode, known: &Known) -> &mut Followed {
        self.followed
            .entry(code.clone())
            .or_insert_with(|| Followed {
                since: known.started.unwrap_or(now),
                slot: None,
                is_waited_for: false,
                has_ended: false,
            })
    }

    fn unsubscribed(&mut self, code: &WatchCode, known: &Known) {
        let is_open = known.started.is_some() && !known.is_final;
        if self.feeds > 0 && is_open {
            // It stays for those who read all payments.
            if let Some(followed) = self.followed.get_mut(code) {
                followed.is_waited_for = false;
            }
        } else {
            self.unqueue(code);
            self.followed.remove(code);
        }
    }

    fn feed_closed(&mut self) {
        self.feeds -= 1;
        if self.feeds > 0 {
            return;
        }
        self.adopted = 0;
        let queue = &mut self.queue;
        self.followed.retain(|code, followed| {
            if let (false, Some(slot)) = (followed.is_waited_for, followed.slot) {
                queue.remove(code, slot);
            }
            followed.is_waited_for
        });
    }

    fn poll_finished(
        &mut self,
        now: Instant,
        code: &WatchCode,
        began: Instant,
        outcome: Outcome,
        known: &Known,
    ) -> Vec<Action> {
        self.under_way.remove(code);
        let (asked, log) = match outcome {
            Outcome::Answered(asked) => {
                self.failures.remove(code);
                let recovered = self.breaker.answered();
                (asked, recovered.then_some(Action::LogRecovery))
            }
            Outcome::Failed(error) => {
                self.failures.add(now, code);
                let pause = self.breaker.failed(now, began, &error, self.jitter.next());
                (now, pause.map(|pause| Action::LogPause(pause, error)))
            }
            Outcome::NotAsked => (now, None),
        };
        let ended = self.schedule(now, code, known, Some(asked));
        log.into_iter().chain(ended).collect()
    }

    /// Puts a followed payment where it belongs in the queue, when it was asked for last at that moment.
    fn schedule(
        &mut self,
        now: Instant,
        code: &WatchCode,
        known: &Known,
        asked: Option<Instant>,
    ) -> Option<Action> {
        self.unqueue(code);
        let followed = self.followed.get_mut(code)?;
        let age = now - followed.since;
        if known.is_final || age >= self.give_up_after {
            return self.give_up(code, known);
        }
        if self.under_way.contains_key(code) {
            // It is put there when the call is over.
            return None;
        }
        let failed = self.failures.get(code);
        let situation = Situation {
            age,
            waited_for: followed.is_waited_for,
            failures: failed.map_or(0, |failed| failed.times),
        };
        let interval = cadence::interval(situation, self.max_poll_interval, self.jitter.next());
        let asked = asked.max(failed.map(|failed| failed.last));
        // The last time is when it is given up.
        let due = asked
            .map_or(now, |asked| asked + interval)
            .min(followed.since + self.give_up_after);
        let slot = self
            .queue
            .add(code.clone(), followed.is_waited_for, due, interval);
        followed.slot = Some(slot);
        None
    }

    /// A followed payment is final or too old: it is not polled any more.
    fn give_up(&mut self, code: &WatchCode, known: &Known) -> Option<Action> {
        let followed = self.followed.get_mut(code)?;
        // While a call is under way the payment may be just paid: this is looked at again when the call is over.
        let notes = !known.is_final
            && known.started.is_some()
            && !known.polling_ended
            && !followed.has_ended
            && !self.under_way.contains_key(code);
        followed.has_ended |= notes;
        if !followed.is_waited_for {
            self.followed.remove(code);
        }
        notes.then(|| Action::NotePollingEnded(code.clone()))
    }

    /// Gives the free places of the rate window to those whom the queue names.
    fn hand_out(&mut self, now: Instant, has_secret: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        let wake_up = loop {
            if !self.rate_window.has_place(now) {
                break self.rate_window.next_free();
            }
            let payments_from = self.payments_from(now, has_secret);
            match self.queue.next(now, payments_from) {
                Next::Caller(caller) => actions.push(Action::GivePermit(caller)),
                Next::Payment(code) => {
                    if let Some(followed) = self.followed.get_mut(&code) {
                        followed.slot = None;
                    }
                    self.under_way.insert(code.clone(), MadeBy::Background);
                    actions.push(Action::Poll(code));
                }
                Next::Nobody(wake_up) => break wake_up,
            }
            self.rate_window.take();
        };
        actions.push(Action::SleepUntil(wake_up.unwrap_or(now + FAR_AWAY)));
        actions
    }

    /// Before then the background makes no call. `None`: it may at once.
    fn payments_from(&self, now: Instant, has_secret: bool) -> Option<Instant> {
        let in_background = || self.under_way.values().any(|by| *by == MadeBy::Background);
        if !has_secret {
            Some(now + SECRET_AGAIN)
        } else if self.breaker.is_open() && in_background() {
            Some(now + FAR_AWAY)
        } else {
            self.breaker.until()
        }
    }

    fn unqueue(&mut self, code: &WatchCode) {
        if let Some(followed) = self.followed.get_mut(code)
            && let Some(slot) = followed.slot.take()
        {
            self.queue.remove(code, slot);
        }
    }
}

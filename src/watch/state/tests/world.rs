//! What the state has around it in a test: payments, those who want them, calls under way, and a clock.

mod driver;

use std::collections::BTreeSet;
use std::mem;
use std::time::Duration;

use proptest::sample::Index;

pub(super) use self::driver::{Grant, Group, Noted};
use super::super::{Input, Known, Outcome, PollState};
use crate::clock::{self, Instant};
use crate::gateway::{Error, GatewayMessage};
use crate::payment::WatchCode;
use crate::watch::config::Config;
use crate::watch::queue::{CallerId, Rank};

/// How many payments there may be.
pub(super) const CODES: usize = 5;

/// A caller gives up waiting for a permit after this time, so that others behind it would wait in vain.
const PERMIT_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(super) enum Event {
    Start(usize),
    /// The store lets go of a payment.
    Forget(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    OpenFeed,
    CloseFeed,
    Ask(usize),
    WantPermit(Rank),
    Leave(Index),
    /// A call that a caller has a permit for is over.
    ReturnPermit,
    Finish(Index, Reply),
    Secret(bool),
    Pass(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    Open,
    Final,
    /// With a `Retry-After` of this many seconds, if any.
    Outage(Option<u64>),
    /// A failure that says nothing of other payments.
    Refused,
    NotAsked,
}

pub(super) struct Payment {
    code: WatchCode,
    /// 0: it was not started here.
    number: u64,
    known: Known,
    pub(super) is_waited_for: bool,
    was_forgotten: bool,
    /// Where it stands in the queue.
    group: usize,
    /// Its start, or when somebody first waited for it.
    pub(super) since: Instant,
    /// Or when it was first wanted.
    pub(super) last_poll: Instant,
}

struct Call {
    payment: usize,
    began: Instant,
    in_background: bool,
    has_permit: bool,
}

pub(super) struct World {
    state: PollState,
    pub(super) now: Instant,
    wake_up: Instant,
    pub(super) rate: usize,
    payments: Vec<Payment>,
    started: u64,
    feeds: usize,
    has_secret: bool,
    calls: Vec<Call>,
    /// Permits that callers hold.
    held: usize,
    returned: Vec<Instant>,
    /// By rank.
    waiting: [BTreeSet<(CallerId, Instant)>; 4],
    last_caller: u64,
    /// An outage was reported, and no answer since.
    gateway_fails: bool,
    paused_until: Instant,
    since_last: [usize; 5],
    pub(super) grants: Vec<Grant>,
    pub(super) noted: Vec<Noted>,
}

impl World {
    pub(super) fn new(config: &Config, seed: u64) -> Self {
        let now = clock::now();
        let payment = |i| Payment {
            code: format!("code-{i}").parse().unwrap(),
            number: 0,
            known: Known::default(),
            is_waited_for: false,
            was_forgotten: false,
            group: 4,
            since: now,
            last_poll: now,
        };
        Self {
            state: PollState::new(config, PERMIT_WITHIN, seed),
            now,
            wake_up: now,
            rate: config.poll_rate.get().try_into().unwrap(),
            payments: (0..CODES).map(payment).collect(),
            started: 0,
            feeds: 0,
            has_secret: true,
            calls: Vec::new(),
            held: 0,
            returned: Vec::new(),
            waiting: Default::default(),
            last_caller: 0,
            gateway_fails: false,
            paused_until: now,
            since_last: [0; 5],
            grants: Vec::new(),
            noted: Vec::new(),
        }
    }

    /// Does what a driver would do, where it would.
    pub(super) fn play(&mut self, event: Event) {
        match event {
            Event::Start(i) if self.payments[i].number == 0 && !self.payments[i].was_forgotten => {
                self.start(i);
            }
            // What somebody waits for is pinned.
            Event::Forget(i) if !self.payments[i].is_waited_for => {
                self.payments[i].known = Known::default();
                self.payments[i].number = 0;
                self.payments[i].was_forgotten = true;
            }
            Event::Subscribe(i) if !self.payments[i].is_waited_for => {
                self.want(i);
                self.payments[i].is_waited_for = true;
                self.payments[i].group = 3;
                let (code, known) = self.named(i);
                self.step(Input::Subscribed { code, known });
            }
            Event::Unsubscribe(i) if self.payments[i].is_waited_for => {
                self.payments[i].is_waited_for = false;
                let (code, known) = self.named(i);
                self.step(Input::Unsubscribed { code, known });
            }
            Event::OpenFeed => {
                (0..CODES).for_each(|i| self.want(i));
                self.feeds += 1;
                self.step(Input::FeedOpened);
            }
            Event::CloseFeed if self.feeds > 0 => {
                self.feeds -= 1;
                self.step(Input::FeedClosed);
            }
            Event::Ask(i) if self.calls.iter().all(|call| call.payment != i) => self.ask(i),
            Event::WantPermit(rank) => self.want_permit(rank),
            Event::Leave(index) => self.leave(index),
            Event::ReturnPermit if self.held > 0 => {
                self.held -= 1;
                self.return_permit();
            }
            Event::Finish(index, reply) if !self.calls.is_empty() => {
                self.finish(index.index(self.calls.len()), reply);
            }
            Event::Secret(has_secret) => self.has_secret = has_secret,
            Event::Pass(time) => self.pass(time),
            // There is nothing that this could happen to.
            _ => {}
        }
        self.tick();
    }

    /// Lets time pass, and wakes up when the state wants it.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.wake_up <= until {
            self.now = self.wake_up;
            self.tick();
        }
        self.now = until;
        self.tick();
    }

    /// From here on the gateway answers.
    pub(super) fn heal(&mut self) {
        self.has_secret = true;
        for (caller, _) in mem::take(&mut self.waiting).into_iter().flatten() {
            self.step(Input::PermitUnwanted { caller });
        }
        let i = (0..CODES).find(|i| self.calls.iter().all(|call| call.payment != *i));
        if let Some(i) = i {
            self.ask(i);
        }
        while !self.calls.is_empty() {
            self.finish(0, Reply::Open);
        }
        self.tick();
        // Failures about one payment are forgotten with its next answer; until then it may be due late.
        for _ in 0..20 * 20 {
            self.answer_everything_after(Duration::from_millis(50));
        }
        for payment in &mut self.payments {
            payment.last_poll = self.now;
        }
    }

    /// All calls that are under way end then, with an answer.
    pub(super) fn answer_everything_after(&mut self, time: Duration) {
        self.pass(time);
        while self.held > 0 {
            self.held -= 1;
            self.return_permit();
        }
        for _ in 0..self.calls.len() {
            self.finish(0, Reply::Open);
        }
        self.tick();
    }

    pub(super) fn keep_callers_waiting(&mut self, count: usize) {
        for rank in [Rank::HasNothing, Rank::Unheard, Rank::HasAnswer] {
            while self.waiting[row(rank)].len() < count {
                self.want_permit(rank);
            }
        }
    }

    pub(super) fn longest_wait_of_a_caller(&self) -> Duration {
        let first = self.waiting.iter().filter_map(BTreeSet::first);
        first
            .map(|(_, since)| self.now - *since)
            .max()
            .unwrap_or_default()
    }

    pub(super) fn longest_without_a_poll(&self) -> Duration {
        let times = self.wanted().map(|payment| self.now - payment.last_poll);
        times.max().unwrap_or_default()
    }

    /// What has to be polled.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Payment> {
        (0..CODES)
            .filter(|i| self.is_wanted(*i) && !self.payments[*i].known.is_final)
            .map(|i| &self.payments[i])
    }

    fn is_wanted(&self, i: usize) -> bool {
        let payment = &self.payments[i];
        payment.is_waited_for
            || (self.feeds > 0 && payment.known.started.is_some() && !payment.known.is_final)
    }

    /// Somebody may want this payment that nobody wanted before.
    fn want(&mut self, i: usize) {
        if !self.is_wanted(i) {
            let payment = &mut self.payments[i];
            payment.since = payment.known.started.unwrap_or(self.now);
            payment.last_poll = self.now;
            // One that was forgotten may still be in the queue, where it was.
            if !payment.was_forgotten {
                payment.group = 4;
            }
        }
    }

    fn named(&self, i: usize) -> (WatchCode, Known) {
        (self.payments[i].code.clone(), self.payments[i].known)
    }

    fn start(&mut self, i: usize) {
        self.started += 1;
        let payment = &mut self.payments[i];
        payment.number = self.started;
        payment.known.started = Some(self.now);
        if !payment.is_waited_for {
            payment.since = self.now;
            payment.last_poll = self.now;
            payment.group = 4;
        }
    }

    fn ask(&mut self, i: usize) {
        self.calls.push(Call {
            payment: i,
            began: self.now,
            in_background: false,
            has_permit: false,
        });
        let (code, _) = self.named(i);
        self.step(Input::Asked { code });
    }

    fn want_permit(&mut self, rank: Rank) {
        self.last_caller += 1;
        let caller = CallerId(self.last_caller);
        self.waiting[row(rank)].insert((caller, self.now));
        self.step(Input::PermitWanted { caller, rank });
    }

    fn leave(&mut self, index: Index) {
        let all: Vec<_> = self.waiting.iter().flatten().copied().collect();
        if all.is_empty() {
            return;
        }
        let (caller, since) = *index.get(&all);
        for row in &mut self.waiting {
            row.remove(&(caller, since));
        }
        self.step(Input::PermitUnwanted { caller });
    }

    fn return_permit(&mut self) {
        self.returned.push(self.now);
        self.step(Input::PermitReturned);
    }

    fn finish(&mut self, index: usize, reply: Reply) {
        let call = self.calls.remove(index);
        if call.has_permit {
            self.return_permit();
        }
        let payment = &mut self.payments[call.payment];
        payment.group = if payment.is_waited_for { 3 } else { 4 };
        let outcome = match reply {
            Reply::Open | Reply::Final => {
                payment.known.asked = Some(call.began);
                payment.known.is_final |= matches!(reply, Reply::Final);
                self.gateway_fails = false;
                self.paused_until = self.now;
                Outcome::Answered(call.began)
            }
            Reply::Outage(wait) => {
                let wait = wait.map(Duration::from_secs);
                // A call of the background that began while the gateway failed is one that tried whether it does still.
                let pauses =
                    !self.gateway_fails || call.in_background && self.paused_until <= call.began;
                let least = if pauses {
                    Duration::from_secs(1)
                } else {
                    Duration::ZERO
                };
                let pause = least.max(wait.unwrap_or_default());
                self.paused_until = self.paused_until.max(self.now + pause);
                self.gateway_fails = true;
                Outcome::Failed(Error::Busy(GatewayMessage::default(), wait))
            }
            Reply::Refused => Outcome::Failed(Error::UnknownCode(GatewayMessage::default())),
            Reply::NotAsked => Outcome::NotAsked,
        };
        let (code, known) = self.named(call.payment);
        self.step(Input::PollFinished {
            code,
            began: call.began,
            outcome,
            known,
        });
    }
}

fn row(rank: Rank) -> usize {
    match rank {
        Rank::Confirms => 0,
        Rank::HasNothing => 1,
        Rank::Unheard => 2,
        Rank::HasAnswer => 3,
    }
}

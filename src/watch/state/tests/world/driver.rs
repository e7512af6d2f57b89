//! Does what the state says, and writes down how things stood.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::super::{Action, Input};
use super::{CODES, Call, Payment, World};
use crate::clock::Instant;
use crate::watch::queue::CallerId;
use crate::watch::rate_window::WINDOW;

/// Who got a permit, and how things stood in that moment.
#[derive(Debug)]
pub(in super::super) struct Grant {
    pub(in super::super) group: Group,
    /// Calls that the window holds, this one among them.
    pub(in super::super) in_window: usize,
    pub(in super::super) confirms_wait: bool,
    /// Callers of a group ahead of this one wait.
    pub(in super::super) callers_wait_ahead: bool,
    /// Turns of other groups, confirmations apart, since the last one of this group.
    pub(in super::super) others_since: usize,
    pub(in super::super) is_first_of_its_row: bool,
    pub(in super::super) poll: Option<Poll>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Group {
    Confirms,
    /// 0 to 2 are callers, 3 and 4 are payments.
    Other(usize),
}

#[derive(Debug)]
pub(in super::super) struct Poll {
    pub(in super::super) is_under_way: bool,
    pub(in super::super) is_wanted: bool,
    pub(in super::super) is_final: bool,
    pub(in super::super) gateway_fails: bool,
    pub(in super::super) is_in_pause: bool,
    /// Of the background.
    pub(in super::super) beside_another: bool,
    pub(in super::super) has_secret: bool,
}

#[derive(Debug)]
pub(in super::super) struct Noted {
    pub(in super::super) number: u64,
    pub(in super::super) is_open: bool,
    pub(in super::super) age: Duration,
    pub(in super::super) is_under_way: bool,
}

impl World {
    fn adopt(&mut self) {
        let Some(after) = self.state.adopts_after() else {
            return;
        };
        let mut open: Vec<usize> = (0..CODES)
            .filter(|i| self.payments[*i].number > after && !self.payments[*i].known.is_final)
            .collect();
        open.sort_by_key(|i| self.payments[*i].number);
        for i in open {
            let (code, known) = self.named(i);
            let number = self.payments[i].number;
            self.step(Input::Adopted {
                number,
                code,
                known,
            });
        }
    }

    pub(super) fn tick(&mut self) {
        self.adopt();
        let has_secret = self.has_secret;
        while self.step(Input::Tick { has_secret }) {}
        assert!(self.wake_up > self.now, "the driver would never rest");
    }

    /// Whether it has to be done again, because a payment turned out to be forgotten.
    pub(super) fn step(&mut self, input: Input) -> bool {
        let mut forgotten = false;
        for action in self.state.step(self.now, input) {
            match action {
                Action::Poll(code) => {
                    let of_code = |payment: &Payment| payment.code == code;
                    let i = self.payments.iter().position(of_code).unwrap();
                    if !self.payments[i].is_waited_for && self.payments[i].number == 0 {
                        self.state.step(self.now, Input::Forgotten { code });
                        self.pass_over_others(self.payments[i].group);
                        self.payments[i].group = 4;
                        forgotten = true;
                    } else {
                        self.poll(i);
                    }
                }
                Action::GivePermit(caller) => self.permit(caller),
                Action::RefusePermit(caller) => self.refuse(caller),
                Action::NotePollingEnded(code) => {
                    let of_code = |payment: &Payment| payment.code == code;
                    let i = self.payments.iter().position(of_code).unwrap();
                    let payment = &mut self.payments[i];
                    payment.known.polling_ended = true;
                    self.noted.push(Noted {
                        number: payment.number,
                        is_open: payment.number > 0 && !payment.known.is_final,
                        age: self.now - payment.since,
                        is_under_way: self.calls.iter().any(|call| call.payment == i),
                    });
                }
                Action::SleepUntil(moment) => self.wake_up = moment,
                Action::LogPause(..) | Action::LogRecovery => {}
            }
        }
        forgotten
    }

    fn poll(&mut self, i: usize) {
        let poll = Poll {
            is_under_way: self.calls.iter().any(|call| call.payment == i),
            is_wanted: self.is_wanted(i),
            is_final: self.payments[i].known.is_final,
            gateway_fails: self.gateway_fails,
            is_in_pause: self.now < self.paused_until,
            beside_another: self.calls.iter().any(|call| call.in_background),
            has_secret: self.has_secret,
        };
        self.grant(Group::Other(self.payments[i].group), true, Some(poll));
        self.payments[i].last_poll = self.now;
        self.calls.push(Call {
            payment: i,
            began: self.now,
            in_background: true,
            has_permit: true,
        });
    }

    /// There have to be as many before it as get a permit in time.
    fn refuse(&mut self, caller: CallerId) {
        let of_caller = |(other, _): &(CallerId, Instant)| *other == caller;
        let waits = |row: &&mut BTreeSet<_>| row.iter().any(of_caller);
        let row = self.waiting[1..].iter_mut().find(waits).unwrap();
        row.retain(|other| !of_caller(other));
        assert_eq!(row.len(), 3 * self.rate, "there was room");
    }

    fn permit(&mut self, caller: CallerId) {
        let of_caller = |(other, _): &(CallerId, Instant)| *other == caller;
        let waits = |row: &BTreeSet<_>| row.iter().any(of_caller);
        let row = self.waiting.iter().position(waits).unwrap();
        let group = match row {
            0 => Group::Confirms,
            row => Group::Other(row - 1),
        };
        let is_first = self.waiting[row].first().is_some_and(of_caller);
        self.waiting[row].retain(|other| !of_caller(other));
        self.grant(group, is_first, None);
        self.held += 1;
    }

    fn grant(&mut self, group: Group, is_first_of_its_row: bool, poll: Option<Poll>) {
        let has_permit = self.calls.iter().filter(|call| call.has_permit).count();
        let now = self.now;
        self.returned.retain(|at| now - *at < WINDOW);
        let (mut others_since, mut callers_wait_ahead) = (0, false);
        if let Group::Other(group) = group {
            others_since = self.since_last[group];
            let mut ahead = self.waiting[1..].iter().take(group);
            callers_wait_ahead = ahead.any(|row| !row.is_empty());
            self.pass_over_others(group);
        }
        self.grants.push(Grant {
            group,
            in_window: self.held + has_permit + self.returned.len() + 1,
            confirms_wait: group != Group::Confirms && !self.waiting[0].is_empty(),
            callers_wait_ahead,
            others_since,
            is_first_of_its_row,
            poll,
        });
    }

    fn pass_over_others(&mut self, group: usize) {
        for since in &mut self.since_last {
            *since += 1;
        }
        self.since_last[group] = 0;
    }
}

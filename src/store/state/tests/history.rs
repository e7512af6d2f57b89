//! Random histories, and what a state shows of itself after one.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::super::*;
use crate::clock::{self, Reading};
use crate::payment::{Amount, Asked, Fields, Fingerprint, IdempotencyKey, Payment, Status};
use crate::store::decide::Decision;
use crate::store::intent::Intent;
use crate::store::model::{DeliveryState, StartBody, StoredPayment};

/// What happens next. The small numbers make that the same codes, keys and messages come again.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Start { code: u8, pay: u8, key: Option<u8> },
    Report { code: u8, status: u8 },
    EndPolling { code: u8 },
    Post { pick: u8, delivered: bool },
    Take,
    Hear { code: u8 },
    Pin { code: u8, on: bool },
    Sweep { seconds: u64 },
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u8, 0..2_u8, prop::option::of(0..4_u8))
            .prop_map(|(code, pay, key)| Step::Start { code, pay, key }),
        4 => (0..6_u8, 0..4_u8).prop_map(|(code, status)| Step::Report { code, status }),
        1 => (0..6_u8).prop_map(|code| Step::EndPolling { code }),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(pick, delivered)| Step::Post { pick, delivered }),
        3 => Just(Step::Take),
        1 => (6..12_u8).prop_map(|code| Step::Hear { code }),
        1 => (0..12_u8, any::<bool>()).prop_map(|(code, on)| Step::Pin { code, on }),
        1 => (0..30_u64).prop_map(|seconds| Step::Sweep { seconds }),
    ];
    prop::collection::vec(step, 0..60)
}

/// Limits with room for this many watch codes, and for any number of bytes.
pub(super) fn limits(watch_codes: usize) -> Limits {
    Limits {
        watch_codes,
        bytes: u64::MAX,
        answers: Duration::from_secs(100),
        finished: Duration::from_secs(100),
        polled: Duration::from_secs(20),
    }
}

pub(super) fn state(limits: Limits) -> State {
    State::new(
        limits,
        Some(|_, _, _| "{}".to_owned()),
        Timestamp::UNIX_EPOCH,
    )
}

/// A state, and the clock by which its history goes.
pub(super) struct History {
    pub(super) state: State,
    pub(super) now: Instant,
    pub(super) began: Instant,
}

impl History {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            state: state(limits),
            now: clock::now(),
            began: clock::now(),
        }
    }

    /// Returns the event that comes of this step, if one does.
    pub(super) fn event(&mut self, step: &Step) -> Option<Event> {
        let intent = self.intent(step)?;
        match self.state.decide(&intent) {
            Decision::Write(event, _) => Some(event),
            Decision::Nothing(_) | Decision::Refused(_) => None,
        }
    }

    pub(super) fn intent(&mut self, step: &Step) -> Option<Intent> {
        self.now += Duration::from_secs(1);
        let at = Reading {
            now: self.now,
            wall: self.wall(),
        };
        Some(match *step {
            Step::Start { code, pay, key } => start(code, pay, key, at),
            Step::Report { code, status } => Intent::Report {
                code: watch_code(code),
                report: report(status),
                asked: self.now,
                at,
            },
            Step::EndPolling { code } => {
                let code = watch_code(code);
                Intent::EndPolling { code, at }
            }
            Step::Post { pick, delivered } => {
                let all: Vec<_> = self.state.outbox.before(u64::MAX).cloned().collect();
                let delivery = all.get(usize::from(pick) % all.len().max(1))?;
                let state = if delivered {
                    DeliveryState::Delivered(self.now)
                } else {
                    DeliveryState::Due(self.now + Duration::from_secs(1))
                };
                let tries = delivery.tries + 1;
                Intent::Due(Arc::new(Delivery {
                    state,
                    tries,
                    ..(**delivery).clone()
                }))
            }
            Step::Take | Step::Hear { .. } | Step::Pin { .. } | Step::Sweep { .. } => return None,
        })
    }

    /// The wall clock, which began at the epoch with this history.
    pub(super) fn wall(&self) -> Timestamp {
        let seconds = (self.now - self.began).as_secs();
        Timestamp::from_second(seconds.try_into().unwrap()).unwrap()
    }

    /// Does what is no event.
    pub(super) fn do_quietly(state: &mut State, step: &Step, now: Instant) {
        match *step {
            Step::Hear { code } => drop(state.settle(&watch_code(code), report(0), now)),
            Step::Pin { code, on: true } => state.payments.pin(&watch_code(code)),
            Step::Pin { code, on: false } => state.payments.unpin(&watch_code(code)),
            Step::Sweep { seconds } => drop(state.sweep(now + Duration::from_secs(seconds))),
            _ => {}
        }
    }
}

pub(super) fn start(code: u8, pay: u8, key: Option<u8>, at: Reading) -> Intent {
    let payment = Payment {
        code: format!("pay-{code}-{pay}").parse().unwrap(),
        watch_code: watch_code(code),
        amount: Amount::new(1000),
        fields: Fields::None,
        // The last codes are all of one reference.
        referenced: (code > 3).then(|| ("7".parse().unwrap(), "{}".into())),
    };
    let answer = key.map(|key| {
        Arc::new(Answer {
            key: IdempotencyKey::stored(&format!("key-{key}")).unwrap(),
            request: Asked::Now(Fingerprint([key; 16])),
            body: StartBody {
                code: payment.code.clone(),
                watch_code: payment.watch_code.clone(),
                object: "{}".into(),
            },
            since: at.now,
        })
    });
    Intent::Start {
        payment,
        answer,
        last_of_reference: None,
        at,
    }
}

pub(super) fn watch_code(code: u8) -> WatchCode {
    format!("watch-{code}").parse().unwrap()
}

pub(super) fn report(status: u8) -> Arc<Report> {
    let status = ["created", "completed", "pending", "odd"][usize::from(status)];
    Arc::new(Report {
        status: Status::from(status),
        body: status.into(),
        fingerprint: Fingerprint([0; 16]),
    })
}

/// Everything that anybody can see of a state.
pub(super) fn seen(state: &State) -> String {
    let mut lines = Vec::new();
    for code in 0..12 {
        if let Some(record) = state.payments.get(&watch_code(code)) {
            let number = record.stored.as_ref().map(|stored| stored.number);
            let report = record
                .observation
                .as_ref()
                .map(|observation| &observation.report.body);
            lines.push(format!(
                "{code}: {number:?} {report:?} {}",
                record.polling_ended
            ));
            let completion = number.and_then(|number| state.payments.completion(number));
            lines.push(format!("{:?} {completion:?}", record.followed_since));
        }
    }
    let numbers = |stored: &Arc<StoredPayment>| stored.number;
    lines.push(format!(
        "open {:?}",
        state.payments.open(..).map(numbers).collect::<Vec<_>>()
    ));
    lines.push(format!(
        "closed {:?}",
        state.payments.closed(..).map(numbers).collect::<Vec<_>>()
    ));
    for (label, count) in state.payments.counts().by_status() {
        lines.push(format!("{label} {count}"));
    }
    let changes = state.changes.after(0, usize::MAX).unwrap();
    lines.extend(changes.iter().map(|change| {
        let report = change.report.as_ref().map(|report| &report.body);
        format!(
            "change {} {} {report:?}",
            change.position, change.stored.number
        )
    }));
    for key in 0..4 {
        let key = IdempotencyKey::stored(&format!("key-{key}")).unwrap();
        let answer = state.answers.get(&key, Duration::MAX, clock::now());
        lines.push(format!(
            "{key} {:?}",
            answer.map(|answer| &answer.body.code)
        ));
    }
    lines.extend(
        state
            .outbox
            .before(u64::MAX)
            .map(|delivery| format!("{delivery:?}")),
    );
    let out = |number: &u64| state.outbox.is_out(*number);
    lines.push(format!(
        "out {:?}",
        (0..100).filter(out).collect::<Vec<_>>()
    ));
    lines.push(format!(
        "due {:?}, {} pending",
        state.outbox.next_due(),
        state.outbox.pending()
    ));
    lines.join("\n")
}

/// What is known of each payment and each key, and which messages there are.
pub(super) fn without_numbers(state: &State) -> String {
    let mut lines = Vec::new();
    for code in 0..6 {
        let Some(record) = state.payments.get(&watch_code(code)) else {
            continue;
        };
        let observation = record.observation.as_ref();
        let report = observation.map(|observation| &observation.report.body);
        let stored = record.stored.as_ref();
        let completion = stored.and_then(|stored| state.payments.completion(stored.number));
        let code = stored.map(|stored| &stored.payment.code);
        let ended = record.polling_ended;
        lines.push(format!("{code:?} {report:?} {completion:?} {ended}"));
    }
    for key in 0..4 {
        let key = IdempotencyKey::stored(&format!("key-{key}")).unwrap();
        let answer = state.answers.get(&key, Duration::MAX, clock::now());
        lines.push(format!("{:?}", answer.map(|answer| &answer.body.code)));
    }
    let messages = state.outbox.before(u64::MAX);
    let messages = messages.map(|delivery| {
        let Delivery {
            id,
            kind,
            code,
            tries,
            state,
            ..
        } = &**delivery;
        format!("{id} {kind:?} {code} {tries} {state:?}")
    });
    let mut messages: Vec<_> = messages.collect();
    messages.sort();
    lines.extend(messages);
    lines.join("\n")
}

/// The weight of everything, counted anew.
pub(super) fn recounted(state: &State) -> u64 {
    let records = (0..12).filter_map(|code| state.payments.get(&watch_code(code)));
    let keys = (0..4).map(|key| IdempotencyKey::stored(&format!("key-{key}")).unwrap());
    let answers = keys.filter_map(|key| state.answers.get(&key, Duration::MAX, clock::now()));
    let changes = (0..).find_map(|position| state.changes.after(position, usize::MAX).ok());
    let reference = "7".parse().unwrap();
    let paid = state.payments.paid(&reference);
    records
        .map(|record| weight::record(record, true))
        .sum::<u64>()
        + answers.map(|answer| weight::answer(answer)).sum::<u64>()
        + changes.unwrap().iter().map(weight::change).sum::<u64>()
        + paid.map_or(0, |fate| weight::paid(&reference, fate))
        + state
            .outbox
            .before(u64::MAX)
            .map(|delivery| weight::delivery(delivery))
            .sum::<u64>()
}

/// What must not go without a reason.
pub(super) struct Kept {
    /// Number, whether it is closed, and when it was started.
    pub(super) payments: BTreeSet<(u64, bool, Instant)>,
    pub(super) keys: Vec<bool>,
    /// Whether a payment of the reference is known to be completed.
    pub(super) is_paid: bool,
    pub(super) owed: BTreeSet<u64>,
}

pub(super) fn kept(state: &State) -> Kept {
    let open = state.payments.open(..).map(|stored| (stored, false));
    let all: Vec<_> = open
        .chain(state.payments.closed(..).map(|stored| (stored, true)))
        .collect();
    let reference = "7".parse().unwrap();
    let mut of_it = state.payments.of_reference(&reference).iter();
    let is_closed =
        |stored: &Arc<StoredPayment>| state.payments.completion(stored.number).is_some();
    let is_paid = state.payments.paid(&reference).is_some() || of_it.any(is_closed);
    let key = |key: u8| IdempotencyKey::stored(&format!("key-{key}")).unwrap();
    let numbers = all.iter().map(|(stored, _)| stored.number);
    Kept {
        is_paid,
        keys: (0..4)
            .map(|n| {
                state
                    .answers
                    .get(&key(n), Duration::MAX, clock::now())
                    .is_some()
            })
            .collect(),
        owed: numbers
            .filter(|number| state.outbox.owes(*number))
            .collect(),
        payments: all
            .into_iter()
            .map(|(stored, is_closed)| (stored.number, is_closed, stored.since))
            .collect(),
    }
}

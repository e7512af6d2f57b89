//! Properties of the state, over random histories.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::clock::{self, Reading};
use crate::payment::{Amount, Asked, Fields, Fingerprint, IdempotencyKey, Payment, Status};
use crate::store::decide::{Decision, Touched};
use crate::store::intent::Intent;
use crate::store::model::{DeliveryState, StartBody, StoredPayment};

/// What happens next. The small numbers make that the same codes, keys and messages come again.
#[derive(Clone, Debug)]
enum Step {
    Start { code: u8, pay: u8, key: Option<u8> },
    Report { code: u8, status: u8 },
    EndPolling { code: u8 },
    Post { pick: u8, delivered: bool },
    Take,
    Hear { code: u8 },
    Pin { code: u8, on: bool },
    Sweep { seconds: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
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
fn limits(watch_codes: usize) -> Limits {
    Limits {
        watch_codes,
        bytes: u64::MAX,
        answers: Duration::from_secs(100),
        finished: Duration::from_secs(100),
        polled: Duration::from_secs(20),
    }
}

fn state(limits: Limits) -> State {
    State::new(
        limits,
        Some(|_, _, _| "{}".to_owned()),
        Timestamp::UNIX_EPOCH,
    )
}

/// A state, and the clock by which its history goes.
struct History {
    state: State,
    now: Instant,
    began: Instant,
}

impl History {
    fn new(limits: Limits) -> Self {
        Self {
            state: state(limits),
            now: clock::now(),
            began: clock::now(),
        }
    }

    /// Returns the event that comes of this step, if one does.
    fn event(&mut self, step: &Step) -> Option<Event> {
        let intent = self.intent(step)?;
        match self.state.decide(&intent) {
            Decision::Write(event, _) => Some(event),
            Decision::Nothing(_) | Decision::Refused(_) => None,
        }
    }

    fn intent(&mut self, step: &Step) -> Option<Intent> {
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
    fn wall(&self) -> Timestamp {
        let seconds = (self.now - self.began).as_secs();
        Timestamp::from_second(seconds.try_into().unwrap()).unwrap()
    }

    /// Does what is no event.
    fn do_quietly(state: &mut State, step: &Step, now: Instant) {
        match *step {
            Step::Hear { code } => drop(state.settle(&watch_code(code), report(0), now)),
            Step::Pin { code, on: true } => state.payments.pin(&watch_code(code)),
            Step::Pin { code, on: false } => state.payments.unpin(&watch_code(code)),
            Step::Sweep { seconds } => drop(state.sweep(now + Duration::from_secs(seconds))),
            _ => {}
        }
    }
}

fn start(code: u8, pay: u8, key: Option<u8>, at: Reading) -> Intent {
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

fn watch_code(code: u8) -> WatchCode {
    format!("watch-{code}").parse().unwrap()
}

fn report(status: u8) -> Arc<Report> {
    let status = ["created", "completed", "pending", "odd"][usize::from(status)];
    Arc::new(Report {
        status: Status::from(status),
        body: status.into(),
        fingerprint: Fingerprint([0; 16]),
    })
}

/// Everything that anybody can see of a state.
fn seen(state: &State) -> String {
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
fn without_numbers(state: &State) -> String {
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
fn recounted(state: &State) -> u64 {
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
struct Kept {
    /// Number, whether it is closed, and when it was started.
    payments: BTreeSet<(u64, bool, Instant)>,
    keys: Vec<bool>,
    /// Whether a payment of the reference is known to be completed.
    is_paid: bool,
    owed: BTreeSet<u64>,
}

fn kept(state: &State) -> Kept {
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn an_event_that_is_applied_twice_is_applied_once(steps in steps(), room in 1_usize..20) {
        let mut once = History::new(limits(room));
        let mut twice = state(limits(room));
        for step in &steps {
            let event = once.event(step);
            History::do_quietly(&mut once.state, step, once.now);
            History::do_quietly(&mut twice, step, once.now);
            if let Some(event) = event {
                let mut removals = once.state.apply(&event);
                removals.extend(twice.apply(&event));
                removals.extend(twice.apply(&event));
                for removal in removals {
                    let Removal::Payment(number) = removal else { continue };
                    prop_assert!(twice.payments.by_number(number).is_none(), "{number} is known");
                }
            }
            prop_assert_eq!(seen(&once.state), seen(&twice));
        }
    }

    /// A file that cannot be written for a while: what is refused was never there, all else comes out as if it had been
    /// written at once.
    #[test]
    fn what_is_written_later_ends_as_what_is_written_at_once(
        steps in steps(), from in 0_usize..30, length in 0_usize..60
    ) {
        // Room for all: what goes for want of it depends on what was known at that moment.
        let mut late = History::new(limits(100));
        let mut direct = state(limits(100));
        let mut deferred = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            if matches!(step, Step::Sweep { .. }) {
                continue;
            }
            if let Step::Take = step
                && let Some(taken) = late.state.outbox.take_due(late.now)
            {
                direct.outbox.hold(&taken);
            }
            let Some(event) = late.event(step) else {
                History::do_quietly(&mut late.state, step, late.now);
                History::do_quietly(&mut direct, step, late.now);
                continue;
            };
            if (from..from + length).contains(&i) {
                if !event.is_refusable() {
                    late.state.apply_unwritten(&event);
                    // Nobody is sent a message before it is written.
                    let made = event.delivery().filter(|_| !matches!(event, Event::Delivery(_)));
                    prop_assert!(made.is_none_or(|made| late.state.outbox.by_id(&made.id).is_none()));
                    direct.apply(&event);
                    deferred.push(event);
                }
                continue;
            }
            deferred.drain(..).for_each(|event| drop(late.state.apply_deferred(&event)));
            late.state.apply(&event);
            direct.apply(&event);
        }
        deferred.drain(..).for_each(|event| drop(late.state.apply_deferred(&event)));
        prop_assert_eq!(seen(&late.state), seen(&direct));
    }

    #[test]
    fn a_completed_is_never_taken_back_and_what_is_owed_never_let_go(steps in steps(), room in 1_usize..8) {
        let mut history = History::new(limits(room));
        let mut completed = BTreeSet::new();
        for step in &steps {
            let event = history.event(step);
            let before: Vec<_> = history.state.outbox.before(u64::MAX).cloned().collect();
            History::do_quietly(&mut history.state, step, history.now);
            let mut removals = Vec::new();
            if let Some(event) = &event {
                removals = history.state.apply(event);
            }
            for code in 0..6 {
                let Some(record) = history.state.payments.get(&watch_code(code)) else { continue };
                let Some(stored) = &record.stored else { continue };
                prop_assert!(record.is_final() || !completed.contains(&stored.number));
                if record.is_final() {
                    completed.insert(stored.number);
                }
            }
            // A message that is due is there until it was posted, and so is its payment, if its code is not another's.
            for owed in before.iter().filter(|owed| matches!(owed.state, DeliveryState::Due(_))) {
                prop_assert!(history.state.outbox.by_id(&owed.id).is_some());
                let displaced = matches!(&event, Some(Event::Started { .. }));
                prop_assert!(displaced || !removals.contains(&Removal::Payment(owed.payment)));
            }
        }
    }

    /// Many intents are written at once: nothing comes of it that would not have come of them one after the other.
    #[test]
    fn what_is_written_at_once_ends_as_what_is_written_one_by_one(steps in steps(), at_once in 1_usize..12) {
        let (mut batches, mut one_by_one) = (History::new(limits(100)), state(limits(100)));
        let (mut steps, mut postponed) = (steps.iter(), Vec::new());
        loop {
            let mut waiting: Vec<Intent> = std::mem::take(&mut postponed);
            waiting.extend(steps.by_ref().take(at_once).filter_map(|step| batches.intent(step)));
            // There is no report of a payment that is not there yet, and no start under a key that lives.
            waiting.retain(|intent| match intent {
                Intent::Start { answer: Some(answer), .. } => {
                    let (key, answers) = (&answer.key, &batches.state.answers);
                    answers.get(key, Duration::MAX, batches.now).is_none()
                }
                Intent::Report { code, .. } | Intent::EndPolling { code, .. } => {
                    batches.state.payments.get(code).is_some()
                }
                _ => true,
            });
            if waiting.is_empty() && steps.len() == 0 {
                break;
            }
            let (mut touched, mut events) = (Touched::default(), Vec::new());
            for intent in waiting {
                if !touched.add(&batches.state, &intent) {
                    postponed.push(intent);
                    continue;
                }
                if let Decision::Write(event, _) = batches.state.decide(&intent) {
                    events.push(event);
                }
                if let Decision::Write(event, _) = one_by_one.decide(&intent) {
                    one_by_one.apply(&event);
                }
            }
            events.iter().for_each(|event| drop(batches.state.apply(event)));
            prop_assert_eq!(without_numbers(&batches.state), without_numbers(&one_by_one));
        }
    }

    /// Whatever comes and goes, the store knows what it keeps, and lets go of it only what may go and in its order.
    #[test]
    fn what_there_is_no_room_for_goes_in_its_order(
        steps in steps(), watch_codes in 1_usize..20, bytes in 1000_u64..20_000
    ) {
        let mut history = History::new(Limits { bytes, ..limits(watch_codes) });
        for step in &steps {
            if let Some(event) = history.event(step) {
                history.state.apply(&event);
            }
            History::do_quietly(&mut history.state, step, history.now);
            prop_assert_eq!(history.state.bytes(), recounted(&history.state));
            let before = kept(&history.state);
            // What had no room a moment ago may have some by now.
            let now = history.now + Duration::from_secs(30) + FULL_FOR;
            let mut removals = Vec::new();
            let has_room = history.state.make_room(now, &mut removals);
            let after = kept(&history.state);
            prop_assert_eq!(history.state.bytes(), recounted(&history.state));
            prop_assert_eq!(has_room, history.state.bytes() <= bytes);
            prop_assert!(!before.is_paid || after.is_paid);
            prop_assert_eq!(&before.keys, &after.keys);
            let gone: Vec<_> = before.payments.difference(&after.payments).collect();
            for (number, is_closed, since) in &gone {
                // A closed one goes before every open one, and no open one before its time.
                prop_assert!(*is_closed || now - *since >= Duration::from_secs(20));
                let started = Timestamp::from_second((*since - history.began).as_secs() as i64);
                prop_assert!(started.unwrap() < history.state.payments.complete_since());
                prop_assert!(!before.owed.contains(number), "{number} is owed");
                let row = [Removal::Payment(*number), Removal::AllButReference(*number)];
                prop_assert!(removals.iter().any(|removal| row.contains(removal)));
            }
        }
    }

    /// Messages of one payment are posted one after the other; each comes, whatever the order in which they are due.
    #[test]
    fn every_message_comes_in_its_turn(steps in steps()) {
        let mut history = History::new(limits(100));
        for step in &steps {
            if let Some(event) = history.event(step) {
                history.state.apply(&event);
            }
        }
        let pending = history.state.outbox.pending();
        let (mut taken, mut last) = (0, std::collections::HashMap::new());
        let end = history.now + Duration::from_secs(3600);
        while let Some(delivery) = history.state.outbox.take_due(end) {
            taken += 1;
            let before = last.insert(delivery.payment, delivery.number);
            prop_assert!(before < Some(delivery.number));
            let state = DeliveryState::Delivered(end);
            let posted = Delivery { state, ..(*delivery).clone() };
            history.state.apply(&Event::Delivery(Arc::new(posted)));
        }
        prop_assert_eq!(taken, pending);
        prop_assert_eq!(history.state.outbox.pending(), 0);
    }
}

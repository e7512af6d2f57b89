//! Properties of the state, over random histories.

mod history;

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use self::history::*;
use super::*;
use crate::store::decide::{Decision, Touched};
use crate::store::intent::Intent;
use crate::store::model::DeliveryState;

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

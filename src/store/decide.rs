//! What comes of an intent, by what is known at this moment.

use std::collections::HashSet;
use std::sync::Arc;

use super::event::Event;
use super::intent::{Effect, Intent};
use super::model::{
    Answer, CodeReused, Completion, Delivery, DeliveryState, Kind, Observation, RecordError,
    Settled, StoredPayment, Subject,
};
use super::state::State;
use crate::clock::{Instant, Reading};
use crate::json;
use crate::payment::{Code, IdempotencyKey, Payment, Reference, Report, WatchCode};

/// What comes of an intent.
pub(super) enum Decision {
    /// This is to be written, and then this has come of it.
    Write(Event, Effect),
    /// Nothing has to be written.
    Nothing(Effect),
    /// Nobody may hear of this one.
    Refused(RecordError),
}

/// What the intents of one write are about: what comes of each depends on what those before it have made true, so that two
/// of them about the same are not written at once.
#[derive(Default)]
pub(super) struct Touched(HashSet<Thing>);

#[derive(PartialEq, Eq, Hash)]
enum Thing {
    Code(Code),
    WatchCode(WatchCode),
    Reference(Reference),
    Key(IdempotencyKey),
    Delivery(u64),
}

impl Touched {
    /// Adds what this intent is about. Returns whether none of it was there before; else it adds nothing.
    pub(super) fn add(&mut self, state: &State, intent: &Intent) -> bool {
        let things = things(state, intent);
        let is_new = things.iter().all(|thing| !self.0.contains(thing));
        if is_new {
            self.0.extend(things);
        }
        is_new
    }
}

fn things(state: &State, intent: &Intent) -> Vec<Thing> {
    match intent {
        Intent::Start {
            payment, answer, ..
        } => {
            let mut things = vec![
                Thing::Code(payment.code.clone()),
                Thing::WatchCode(payment.watch_code.clone()),
            ];
            things.extend(payment.reference().cloned().map(Thing::Reference));
            let key = answer.as_ref().map(|answer| answer.key.clone());
            things.extend(key.map(Thing::Key));
            things
        }
        Intent::Answer(answer) => vec![Thing::Key(answer.key.clone())],
        Intent::Report { code, .. } | Intent::EndPolling { code, .. } => {
            let stored = state.payments.get(code);
            let stored = stored.and_then(|record| record.stored.as_ref());
            let reference = stored.and_then(|stored| stored.payment.reference());
            let reference = reference.cloned().map(Thing::Reference);
            let code = Thing::WatchCode(code.clone());
            [code].into_iter().chain(reference).collect()
        }
        Intent::Posted(delivery) | Intent::Due(delivery) => vec![Thing::Delivery(delivery.number)],
        Intent::Nothing => Vec::new(),
    }
}

impl State {
    /// Returns what comes of this intent, if nothing else is written before it.
    pub(super) fn decide(&mut self, intent: &Intent) -> Decision {
        match intent {
            Intent::Start {
                payment,
                answer,
                last_of_reference,
                at,
            } => {
                if self.is_overtaken(payment, answer.as_ref(), *last_of_reference) {
                    return Decision::Refused(RecordError::Overtaken);
                }
                self.decide_start(payment, answer.as_ref(), *at)
            }
            Intent::Answer(answer) => {
                if self.is_taken(answer) {
                    return Decision::Refused(RecordError::Overtaken);
                }
                let answer = Some(answer.clone());
                Decision::Write(Event::Again { answer }, Effect::Done)
            }
            Intent::Report {
                code,
                report,
                asked,
                at,
            } => self.decide_report(code, report, *asked, *at),
            Intent::EndPolling { code, at } => self.decide_end(code, *at),
            Intent::Posted(delivery) => self.decide_posted(delivery),
            Intent::Due(delivery) => {
                Decision::Write(Event::Delivery(delivery.clone()), Effect::Done)
            }
            Intent::Nothing => Decision::Nothing(Effect::Done),
        }
    }

    /// Returns whether another start has been answered under this key, or has the reference, since both were claimed: in
    /// this process the claim sees to it that there is none.
    fn is_overtaken(
        &self,
        payment: &Payment,
        answer: Option<&Arc<Answer>>,
        last_of_reference: Option<u64>,
    ) -> bool {
        let has_later = |last: u64| {
            let reference = payment.reference();
            let all = reference.map_or(&[][..], |name| self.payments.of_reference(name));
            all.iter()
                .any(|other| other.number > last && other.payment.watch_code != payment.watch_code)
        };
        answer.is_some_and(|answer| self.is_taken(answer))
            || last_of_reference.is_some_and(has_later)
    }

    /// Returns whether something else was answered under this key.
    pub(super) fn is_taken(&self, answer: &Answer) -> bool {
        let ttl = self.limits().answers;
        let before = self.answers.get(&answer.key, ttl, answer.since);
        before.is_some_and(|before| before.body != answer.body || before.request != answer.request)
    }

    /// A payment that was started before is given again if it is open, and was started by the same request as far as is
    /// known: a gateway may have keys of its own.
    fn decide_start(
        &mut self,
        payment: &Payment,
        answer: Option<&Arc<Answer>>,
        at: Reading,
    ) -> Decision {
        let answer = answer.cloned();
        let known = self.payments.with_codes(&payment.code, &payment.watch_code);
        let codes = |payment: &Payment| (payment.code.clone(), payment.watch_code.clone());
        let Some(known) = known else {
            if self.answers.has_payment(&payment.watch_code) {
                // Of a live key, whose payment has left the lists.
                return Decision::Refused(RecordError::CodeReused(CodeReused {
                    given: codes(payment),
                    known: codes(payment),
                }));
            }
            let stored = StoredPayment {
                number: self.next_payment(),
                payment: payment.clone(),
                since: at.now,
                started_at: at.wall_at(at.now),
            };
            let event = Event::Started {
                stored: Arc::new(stored),
                position: self.next_position(),
                answer,
            };
            return Decision::Write(event, Effect::Done);
        };
        if self.is_the_same(payment, &known.payment) {
            return Decision::Write(Event::Again { answer }, Effect::Done);
        }
        Decision::Refused(RecordError::CodeReused(CodeReused {
            given: codes(payment),
            known: codes(&known.payment),
        }))
    }

    fn is_the_same(&self, given: &Payment, before: &Payment) -> bool {
        let record = self.payments.get(&before.watch_code);
        given.code == before.code
            && given.watch_code == before.watch_code
            && given.amount == before.amount
            && given.reference() == before.reference()
            && !record.is_some_and(|record| record.is_final())
            && (!self.answers.has_payment(&before.watch_code)
                || given.fields.name_the_same(before.fields))
    }

    /// Returns whether a report says something new about a payment that was started here: only then it is written.
    pub(super) fn is_news(&self, code: &WatchCode, report: &Report, asked: Instant) -> bool {
        let Some(record) = self.payments.get(code) else {
            return false;
        };
        let is_new = |before: &Observation| {
            !before.report.status.is_final() && before.report.body != report.body
        };
        let stored = record.stored.as_ref();
        stored.is_some_and(|stored| asked >= stored.since)
            && record.observation.as_ref().is_none_or(is_new)
    }

    fn decide_report(
        &mut self,
        code: &WatchCode,
        report: &Arc<Report>,
        asked: Instant,
        at: Reading,
    ) -> Decision {
        let before = self.payments.get(code).cloned().unwrap_or_default();
        let stored = before.stored.clone();
        let Some(stored) = stored.filter(|_| self.is_news(code, report, asked)) else {
            // It was news when it came.
            let observation = match &before.observation {
                Some(known) if known.report.status.is_final() => known.clone(),
                _ => Observation {
                    report: report.clone(),
                    asked,
                },
            };
            return Decision::Nothing(Effect::Settled(Settled {
                observation,
                before,
                completion: None,
            }));
        };
        let completion = report.status.is_final().then(|| Completion {
            seen_at: at.wall_at(at.now),
            paid_twice_with: self.payments.completed_before(&stored),
        });
        let delivery = completion.as_ref().and_then(|completion| {
            let subject = Subject {
                stored: &stored,
                report: Some(report),
                paid_twice_with: completion.paid_twice_with.as_ref(),
            };
            self.message(Kind::Completed, subject, at)
        });
        let observation = Observation {
            report: report.clone(),
            asked,
        };
        let event = Event::Observed {
            delivery,
            stored,
            observation: observation.clone(),
            polling_ended: before.polling_ended,
            completion: completion.clone(),
            position: self.next_position(),
        };
        let settled = Settled {
            observation,
            before,
            completion,
        };
        Decision::Write(event, Effect::Settled(settled))
    }

    /// The app gets one message about it, if it gets messages.
    fn decide_end(&mut self, code: &WatchCode, at: Reading) -> Decision {
        let record = self.payments.get(code).cloned().unwrap_or_default();
        let is_open = self.compose.is_some() && !record.polling_ended && !record.is_final();
        let Some(stored) = record.stored.filter(|_| is_open) else {
            return Decision::Nothing(Effect::Done);
        };
        let observation = record.observation;
        let subject = Subject {
            stored: &stored,
            report: observation.as_ref().map(|observation| &*observation.report),
            paid_twice_with: None,
        };
        let delivery = self.message(Kind::PollingEnded, subject, at);
        let event = Event::PollingEnded {
            stored,
            observation,
            delivery,
        };
        Decision::Write(event, Effect::Done)
    }

    /// What somebody else has found out about a message meanwhile stays. One that was lost with its database and is made
    /// anew has another number by then.
    fn decide_posted(&mut self, delivery: &Arc<Delivery>) -> Decision {
        let number = match self.outbox.number_of(delivery) {
            Some(number) if self.outbox.is_finished(number) => {
                return Decision::Nothing(Effect::Done);
            }
            Some(number) => number,
            None => self.next_delivery(),
        };
        let delivery = if number == delivery.number {
            delivery.clone()
        } else {
            Arc::new(Delivery {
                number,
                ..Delivery::clone(delivery)
            })
        };
        Decision::Write(Event::Delivery(delivery), Effect::Done)
    }

    /// Returns a new message to the app, due at once; none where the app gets none.
    fn message(&mut self, kind: Kind, subject: Subject<'_>, at: Reading) -> Option<Arc<Delivery>> {
        let compose = self.compose?;
        let stored = subject.stored;
        let created_at = at.wall_at(at.now);
        Some(Arc::new(Delivery {
            number: self.next_delivery(),
            id: message_id(kind, stored),
            payment: stored.number,
            code: stored.payment.code.clone(),
            watch_code: stored.payment.watch_code.clone(),
            kind,
            body: compose(kind, subject, created_at).into(),
            created_at,
            since: at.now,
            tries: 0,
            failed: None,
            not_before: None,
            last_error: None,
            state: DeliveryState::Due(at.now),
        }))
    }
}

/// Returns the id of the message of this kind about a payment. It is the same for every try, and whoever makes the message:
/// where a database loses it, another replica may make it anew.
fn message_id(kind: Kind, stored: &StoredPayment) -> String {
    let StoredPayment {
        payment,
        started_at,
        ..
    } = stored;
    let (kind, at) = (kind.label(), started_at.as_millisecond());
    let text = format!("{kind} {} {} {at}", payment.code, payment.watch_code);
    format!("msg_{}", json::fingerprint(&text))
}

//! Payments as stories, lists and the status page see them.

use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use super::keys::KeyedAnswer;
use super::log::{Log, Starting};
use super::model::{
    Answer, Completion, Kind, Known, Observation, Record, RecordError, Settled, StoredPayment,
    WriteFailed,
};
use super::outbox::{Composer, Subject};
use crate::clock::{self, Instant};
use crate::payment::{Asked, Payment, Report, WatchCode};

/// The payments that were started here, and the last that is known of each watch code. Clones share everything.
#[derive(Clone)]
pub(crate) struct Payments {
    pub(super) log: Arc<Log>,
    composer: Composer,
}

impl Payments {
    pub(super) fn new(log: Arc<Log>, composer: Composer) -> Self {
        Self { log, composer }
    }

    /// Returns whether a start can be kept at this moment.
    ///
    /// # Errors
    /// [`WriteFailed`] if the last try to write something failed.
    pub(crate) fn has_room(&self) -> Result<(), WriteFailed> {
        if self.log.has_room() {
            Ok(())
        } else {
            Err(WriteFailed)
        }
    }

    /// Says that a start is under way, for as long as the result is held: those that end together are written together.
    pub(crate) fn starting(&self) -> Option<Starting> {
        self.log.starting()
    }

    /// Keeps a payment that was started; `answer` is what was asked for and answered under a key. When this returns it
    /// is durable, and only then may anybody hear of it. A payment that the gateway gives a second time is no other
    /// payment: what is known of it stays.
    ///
    /// # Errors
    /// Why it was not kept.
    pub(crate) async fn started(
        &self,
        payment: Payment,
        answer: Option<KeyedAnswer>,
    ) -> Result<(), RecordError> {
        let since = clock::now();
        let written = {
            let mut guarded = self.log.lock();
            let state = &mut guarded.state;
            let position = state.next_position();
            let stored = Arc::new(StoredPayment {
                number: state.next_payment(),
                payment,
                since,
                started_at: clock::wall_at(since),
            });
            let answer = answer.map(|answer| keyed(answer, since));
            let event = Event::Started {
                stored,
                position,
                answer,
            };
            self.log.append(&mut guarded, event)
        };
        written.done().await
    }

    /// Keeps the answer to a start that was given the payment of its reference. When this returns it is durable, and only
    /// then may the caller hear of it.
    ///
    /// # Errors
    /// Why it was not kept.
    pub(crate) async fn answered(&self, answer: Option<KeyedAnswer>) -> Result<(), RecordError> {
        let answer = answer.map(|answer| keyed(answer, clock::now()));
        let written = self
            .log
            .append(&mut self.log.lock(), Event::Again { answer });
        written.done().await
    }

    /// Returns what is known of this code; `None` if it was never heard of.
    pub(crate) fn get(&self, code: &WatchCode) -> Option<Record> {
        self.log.lock().state.payments.get(code).cloned()
    }

    /// Takes in an answer of the gateway that was asked for at this moment. When this returns, something new about a
    /// payment that was started here is durable; where it cannot be, it is known all the same, and written later.
    pub(crate) async fn settle(&self, code: &WatchCode, report: Report, asked: Instant) -> Settled {
        let report = Arc::new(report);
        let (settled, written) = {
            let mut guarded = self.log.lock();
            let before = guarded
                .state
                .payments
                .get(code)
                .cloned()
                .unwrap_or_default();
            if before
                .stored
                .as_ref()
                .is_some_and(|stored| asked < stored.since)
            {
                // It is about what had this code until then.
                return Settled {
                    observation: Observation { report, asked },
                    before,
                    completion: None,
                };
            }
            let newer = before.newer(report.clone());
            let is_news = before
                .observation
                .as_ref()
                .is_none_or(|before| !Arc::ptr_eq(&before.report, &newer));
            let Some(stored) = before.stored.clone().filter(|_| is_news) else {
                let (settled, removals) = guarded.state.settle(code, report, asked);
                self.log.remove(&mut guarded, removals);
                return settled;
            };
            let observation = Observation {
                report: newer,
                asked,
            };
            let is_final = observation.report.status.is_final();
            let completion = is_final.then(|| Completion {
                seen_at: clock::wall_at(clock::now()),
                paid_twice_with: guarded.state.payments.complete(&stored),
            });
            let event = Event::Observed {
                delivery: completion.as_ref().and_then(|completion| {
                    let subject = Subject {
                        stored: &stored,
                        report: Some(&observation.report),
                        paid_twice_with: completion.paid_twice_with.as_ref(),
                    };
                    self.composer
                        .message(&mut guarded.state, Kind::Completed, subject)
                }),
                stored,
                observation: observation.clone(),
                polling_ended: before.polling_ended,
                completion: completion.clone(),
                position: guarded.state.next_position(),
            };
            let written = self.log.append(&mut guarded, event);
            let settled = Settled {
                observation,
                before,
                completion,
            };
            (settled, written)
        };
        // What is not kept is not untrue.
        let _ = written.done().await;
        settled
    }

    /// Notes that this payment is not polled in the background any more: the app gets one message about it, if it gets
    /// messages.
    pub(crate) async fn polling_ended(&self, code: &WatchCode) {
        if !self.composer.has_webhook() {
            return;
        }
        let written = {
            let mut guarded = self.log.lock();
            let Some(record) = guarded.state.payments.get(code).cloned() else {
                return;
            };
            if record.polling_ended || record.is_final() {
                return;
            }
            let Some(stored) = record.stored else { return };
            let observation = record.observation;
            let subject = Subject {
                stored: &stored,
                report: observation.as_ref().map(|observation| &*observation.report),
                paid_twice_with: None,
            };
            let delivery = self
                .composer
                .message(&mut guarded.state, Kind::PollingEnded, subject);
            // Set before it is written, so that no second message is made meanwhile.
            guarded.state.payments.end_polling(&stored);
            let event = Event::PollingEnded {
                stored,
                observation,
                delivery,
            };
            self.log.append(&mut guarded, event)
        };
        let _ = written.done().await;
    }

    /// Keeps what is known of this code, whatever the room.
    pub(crate) fn pin(&self, code: &WatchCode) {
        self.log.lock().state.payments.pin(code);
    }

    /// Takes [`Self::pin`] back.
    pub(crate) fn unpin(&self, code: &WatchCode) {
        self.log.lock().state.payments.unpin(code);
    }

    /// Returns open payments that were started after that one, in the order of their start, at most `limit`.
    pub(crate) fn open_after(&self, number: u64, limit: usize) -> Vec<Known> {
        let guarded = self.log.lock();
        let payments = &guarded.state.payments;
        payments
            .open(number + 1..)
            .take(limit)
            .map(|stored| payments.known(stored))
            .collect()
    }

    /// Returns the watch codes of the open payments that were started before this one and have its reference.
    pub(crate) fn older_of_reference(&self, code: &WatchCode) -> Vec<WatchCode> {
        let guarded = self.log.lock();
        let payments = &guarded.state.payments;
        let stored = payments.get(code).and_then(|record| record.stored.as_ref());
        let Some((stored, reference)) =
            stored.and_then(|stored| Some((stored, stored.payment.reference()?)))
        else {
            return Vec::new();
        };
        let is_open =
            |code: &WatchCode| payments.get(code).is_some_and(|record| !record.is_final());
        let all = payments.of_reference(reference).iter();
        all.filter(|other| other.number < stored.number)
            .map(|other| other.payment.watch_code.clone())
            .filter(is_open)
            .collect()
    }

    /// Returns how many payments are open in each of these groups: up to the first age, from there up to the second, and
    /// so on; the rest comes last.
    pub(crate) fn open_by_age<const N: usize>(&self, ages: [Duration; N]) -> ([usize; N], usize) {
        let now = clock::now();
        let (mut groups, mut rest) = ([0; N], 0);
        for stored in self.log.lock().state.payments.open(..) {
            let age = now - stored.since;
            match ages.iter().position(|limit| age < *limit) {
                Some(group) => groups[group] += 1,
                None => rest += 1,
            }
        }
        (groups, rest)
    }
}

fn keyed((key, request, body): KeyedAnswer, since: Instant) -> Arc<Answer> {
    Arc::new(Answer {
        key,
        request: Asked::Now(request),
        body,
        since,
    })
}

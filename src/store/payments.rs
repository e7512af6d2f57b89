//! Payments as stories, lists and the status page see them.

use std::sync::Arc;
use std::time::Duration;

use super::file::Starting;
use super::fleet::{MayAsk, Pass, Roles, Why};
use super::intent::{Effect, Intent};
use super::keys::KeyedAnswer;
use super::log::Log;
use super::model::{Answer, Known, Observation, Record, RecordError, Settled, WriteFailed};
use crate::clock::{self, Instant, Reading};
use crate::payment::{Asked, Payment, Report, WatchCode};

/// Payments that are looked at in one go: nobody else gets at the state meanwhile.
pub(super) const AT_ONCE: usize = 250;

/// The payments that were started here, and the last that is known of each watch code. Clones share everything.
#[derive(Clone)]
pub(crate) struct Payments {
    pub(super) log: Arc<Log>,
}

impl Payments {
    pub(super) fn new(log: Arc<Log>) -> Self {
        Self { log }
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

    /// Returns when everything is known that other replicas have written by now, where replicas share the store.
    ///
    /// # Errors
    /// If the store is away.
    pub(crate) async fn up_to_date(&self) -> Result<(), WriteFailed> {
        match self.log.fleet() {
            Some(fleet) => fleet.up_to_date().await,
            None => Ok(()),
        }
    }

    /// Says that a start is under way, for as long as the result is held: those that end together are written together.
    pub(crate) fn starting(&self) -> Option<Starting> {
        self.log.starting()
    }

    /// Keeps a payment that was started; `answer` is what was asked for and answered under a key, `last_of_reference` the
    /// last payment of its reference when that was claimed. When this returns it
    /// is durable, and only then may anybody hear of it. A payment that the gateway gives a second time is no other
    /// payment: what is known of it stays.
    ///
    /// # Errors
    /// Why it was not kept.
    pub(crate) async fn started(
        &self,
        payment: Payment,
        answer: Option<KeyedAnswer>,
        last_of_reference: Option<u64>,
    ) -> Result<(), RecordError> {
        let at = Reading::take();
        let intent = Intent::Start {
            payment,
            answer: answer.map(|answer| keyed(answer, at.now)),
            last_of_reference,
            at,
        };
        self.append(intent).await.map(drop)
    }

    /// Keeps the answer to a start that was given the payment of its reference. When this returns it is durable, and only
    /// then may the caller hear of it.
    ///
    /// # Errors
    /// Why it was not kept.
    pub(crate) async fn answered(&self, answer: Option<KeyedAnswer>) -> Result<(), RecordError> {
        match answer {
            Some(answer) => {
                let intent = Intent::Answer(keyed(answer, clock::now()));
                self.append(intent).await.map(drop)
            }
            // Nothing is to be kept, and all before it is.
            None => self.append(Intent::Nothing).await.map(drop),
        }
    }

    /// Returns what is known of this code; `None` if it was never heard of.
    pub(crate) fn get(&self, code: &WatchCode) -> Option<Record> {
        self.log.lock().record(code)
    }

    /// Takes in an answer of the gateway that was asked for at this moment. When this returns, something new about a
    /// payment that was started here is durable; where it cannot be, it is known all the same, and written later.
    pub(crate) async fn settle(&self, code: &WatchCode, report: Report, asked: Instant) -> Settled {
        let report = Arc::new(report);
        let (written, before) = {
            let mut guarded = self.log.lock();
            let before = guarded.record(code).unwrap_or_default();
            if let Some(known) = guarded.known_unwritten(code, &report) {
                return Settled {
                    observation: known,
                    before,
                    completion: None,
                };
            }
            if !guarded.state.is_news(code, &report, asked) {
                let (settled, removals) = guarded.state.settle(code, report, asked);
                self.log.remove(&mut guarded, removals);
                return settled;
            }
            let intent = Intent::Report {
                code: code.clone(),
                report: report.clone(),
                asked,
                at: Reading::take(),
            };
            (self.log.append(&mut guarded, intent), before)
        };
        match written.done().await {
            Ok(Effect::Settled(settled)) => settled,
            // What is not written is not untrue.
            _ => Settled {
                observation: Observation { report, asked },
                before,
                completion: None,
            },
        }
    }

    /// Waits until the gateway may be asked about this payment, or need not be: where replicas share the store, they ask as
    /// one.
    pub(crate) async fn may_ask(&self, code: &WatchCode, why: Why) -> MayAsk {
        match self.log.fleet() {
            Some(fleet) => fleet.may_ask(code, why).await,
            None => MayAsk::Go(Pass::default()),
        }
    }

    /// Returns whether it is this process that polls this payment in the background.
    pub(crate) fn is_mine(&self, code: &WatchCode) -> bool {
        self.log.fleet().is_none_or(|fleet| fleet.is_mine(code))
    }

    /// Notes that it is this process that polls this payment in the background from now on.
    pub(crate) fn taken_over(&self, code: &WatchCode) {
        if let Some(fleet) = self.log.fleet() {
            fleet.taken_over(code);
        }
    }

    /// Returns whether other replicas share the store: then the journal has their changes too.
    pub(crate) fn is_shared(&self) -> bool {
        self.log.fleet().is_some()
    }

    /// Returns when another process may have what was this one's to poll, or the other way round. Never, where no replicas
    /// share the store.
    pub(crate) async fn roles_changed(&self, known: &mut Option<Roles>) {
        match self.log.fleet() {
            Some(fleet) => known.get_or_insert_with(|| fleet.roles()).changed().await,
            None => std::future::pending().await,
        }
    }

    /// Notes that this payment is not polled in the background any more: the app gets one message about it, if it gets
    /// messages.
    pub(crate) async fn polling_ended(&self, code: &WatchCode) {
        let intent = Intent::EndPolling {
            code: code.clone(),
            at: Reading::take(),
        };
        let _ = self.append(intent).await;
    }

    async fn append(&self, intent: Intent) -> Result<Effect, RecordError> {
        let written = self.log.append(&mut self.log.lock(), intent);
        written.done().await
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
        let (mut groups, mut rest, mut last) = ([0; N], 0, 0);
        loop {
            let (guarded, mut looked_at) = (self.log.lock(), 0);
            for stored in guarded.state.payments.open(last + 1..).take(AT_ONCE) {
                (looked_at, last) = (looked_at + 1, stored.number);
                let age = now - stored.since;
                match ages.iter().position(|limit| age < *limit) {
                    Some(group) => groups[group] += 1,
                    None => rest += 1,
                }
            }
            if looked_at < AT_ONCE {
                return (groups, rest);
            }
        }
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

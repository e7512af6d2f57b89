//! What the app is still to be told of.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::clock::{self, Instant};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The payer has paid.
    Completed,
    /// `watch.give_up_after` is over: nobody asks for it in the background any more.
    PollingEnded,
}

impl Kind {
    /// As it is told.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Completed => "payment.completed",
            Self::PollingEnded => "payment.polling_ended",
        }
    }
}

/// One message for the app.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// In the order of their coming.
    pub(crate) number: u64,
    /// The same for every try.
    pub(crate) id: String,
    /// The payment that it is about.
    pub(crate) payment: u64,
    pub(crate) kind: Kind,
    /// What is posted: the same bytes for every try.
    pub(crate) body: Arc<str>,
    pub(crate) created_at: Timestamp,
    /// The same moment, for its age.
    pub(crate) since: Instant,
    pub(crate) tries: u32,
    /// Why the last try was none, in a word.
    pub(crate) last_error: Option<String>,
    pub(crate) state: State,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// To be posted, again or for the first time, from this moment on.
    Due(Instant),
    /// The app took it.
    Delivered(Instant),
    /// The app does not want it, or did not take it for days.
    Failed(Instant),
}

impl State {
    /// As it is told.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Due(_) => "pending",
            Self::Delivered(_) => "delivered",
            Self::Failed(_) => "failed",
        }
    }
}

/// Finished messages that can still be looked at, and posted again.
const FINISHED_AT_MOST: usize = 10_000;

#[derive(Default)]
pub(super) struct Outbox {
    all: BTreeMap<u64, Arc<Delivery>>,
    /// Those that may be posted, by the moment from which on.
    due: BTreeSet<(Instant, u64)>,
    /// Those that may not be posted yet, and the last one too: one after the other for each payment.
    in_line: HashMap<u64, BTreeSet<u64>>,
    /// Taken out, and not put back yet.
    out: HashSet<u64>,
    /// Rings when something is put in.
    pub(super) more: Arc<Notify>,
}

impl Outbox {
    /// It is being posted.
    pub(super) fn is_out(&self, number: u64) -> bool {
        self.out.contains(&number)
    }

    /// Nobody takes it out before it is put back.
    pub(super) fn hold(&mut self, delivery: &Delivery) {
        if let State::Due(at) = delivery.state {
            self.due.remove(&(at, delivery.number));
        }
        self.out.insert(delivery.number);
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Arc<Delivery>> {
        self.all.values().rev().find(|delivery| delivery.id == id)
    }

    /// Puts it where its state says, in the place of what it was before.
    pub(super) fn put(&mut self, delivery: Arc<Delivery>) {
        let (number, payment) = (delivery.number, delivery.payment);
        if let Some(before) = self.all.insert(number, delivery.clone())
            && let State::Due(at) = before.state
        {
            self.due.remove(&(at, number));
        }
        self.out.remove(&number);
        let line = self.in_line.entry(payment).or_default();
        match delivery.state {
            State::Due(_) => line.insert(number),
            State::Delivered(_) | State::Failed(_) => line.remove(&number),
        };
        let first = line.first().copied();
        if line.is_empty() {
            self.in_line.remove(&payment);
        }
        let first = first.filter(|first| !self.out.contains(first)).and_then(|first| self.all.get(&first));
        if let Some(Delivery { number, state: State::Due(at), .. }) = first.map(|first| &**first) {
            self.due.insert((*at, *number));
            self.more.notify_one();
        }
    }

    /// Takes out what may be posted at this moment; it is put back when it was.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Arc<Delivery>> {
        let (at, number) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.remove(&(at, number));
        self.out.insert(number);
        self.all.get(&number).cloned()
    }

    /// When the next one may be posted.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many are still to be posted.
    pub(super) fn pending(&self) -> usize {
        self.in_line.values().map(BTreeSet::len).sum()
    }

    /// Whether something is still to be posted about this payment.
    pub(super) fn owes(&self, payment: u64) -> bool {
        self.in_line.contains_key(&payment)
    }

    /// Those before that one, the newest first.
    pub(super) fn before(&self, number: u64) -> impl Iterator<Item = &Arc<Delivery>> {
        self.all.range(..number).rev().map(|(_, delivery)| delivery)
    }

    /// Forgets those about which nothing is to be done any more, and has not been for so long, or that are too many;
    /// gives their numbers.
    pub(super) fn sweep(&mut self, ttl: Duration) -> Vec<u64> {
        let finished = self.all.values().filter_map(|delivery| match delivery.state {
            State::Delivered(at) | State::Failed(at) => Some((delivery.number, at)),
            State::Due(_) => None,
        });
        let finished: Vec<_> = finished.collect();
        let too_many = finished.len().saturating_sub(FINISHED_AT_MOST);
        let old = |(i, (_, at)): &(usize, (u64, Instant))| *i < too_many || clock::now() - *at >= ttl;
        let gone: Vec<_> = finished.into_iter().enumerate().filter(old).map(|(_, (number, _))| number).collect();
        for number in &gone {
            self.all.remove(number);
        }
        gone
    }
}

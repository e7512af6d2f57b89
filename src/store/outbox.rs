//! The messages to the app.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;
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
    /// Its name outside.
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
    /// When the last try that failed was over.
    pub(crate) failed: Option<Instant>,
    /// The app has asked not to be posted it again before this moment (`Retry-After`).
    pub(crate) not_before: Option<Instant>,
    /// Why the last try was none, in a word.
    pub(crate) last_error: Option<String>,
    pub(crate) state: DeliveryState,
}

impl Delivery {
    /// The same message, due at the end of this time or when what the app asked for is over, if it is one that failed
    /// within this time and waits for longer.
    fn hastened(&self, away: &RangeInclusive<Instant>) -> Option<Self> {
        let DeliveryState::Due(at) = self.state else {
            return None;
        };
        let sooner = self
            .not_before
            .map_or(*away.end(), |not_before| not_before.max(*away.end()));
        let is_one = self.failed.is_some_and(|failed| away.contains(&failed));
        (is_one && sooner < at).then(|| Self {
            state: DeliveryState::Due(sooner),
            ..self.clone()
        })
    }
}

/// How the app has been doing, by the messages that are still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastTries {
    /// When it took one last.
    pub(crate) taken: Option<Instant>,
    /// One that it did not take since then, and is still to be posted: the oldest was made at this moment.
    pub(crate) failing: Option<Instant>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryState {
    /// To be posted, again or for the first time, from this moment on.
    Due(Instant),
    /// The app took it.
    Delivered(Instant),
    /// The app does not want it, or did not take it for days.
    Failed(Instant),
}

impl DeliveryState {
    /// Its name outside.
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
    /// When the app was away last: what failed then is due again, also if it is put back only now.
    away: Option<RangeInclusive<Instant>>,
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
        if let DeliveryState::Due(at) = delivery.state {
            self.due.remove(&(at, delivery.number));
        }
        self.out.insert(delivery.number);
    }

    pub(super) fn by_id(&self, id: &str) -> Option<&Arc<Delivery>> {
        self.all.values().rev().find(|delivery| delivery.id == id)
    }

    /// Puts it where its state says, in the place of what it was before.
    pub(super) fn put(&mut self, delivery: Arc<Delivery>) {
        let hastened = self.away.as_ref().and_then(|away| delivery.hastened(away));
        let delivery = hastened.map_or(delivery, Arc::new);
        let (number, payment) = (delivery.number, delivery.payment);
        if let Some(before) = self.all.insert(number, delivery.clone())
            && let DeliveryState::Due(at) = before.state
        {
            self.due.remove(&(at, number));
        }
        self.out.remove(&number);
        let line = self.in_line.entry(payment).or_default();
        match delivery.state {
            DeliveryState::Due(_) => line.insert(number),
            DeliveryState::Delivered(_) | DeliveryState::Failed(_) => line.remove(&number),
        };
        let first = line.first().copied();
        if line.is_empty() {
            self.in_line.remove(&payment);
        }
        let first = first
            .filter(|first| !self.out.contains(first))
            .and_then(|first| self.all.get(&first));
        if let Some(Delivery {
            number,
            state: DeliveryState::Due(at),
            ..
        }) = first.map(|first| &**first)
        {
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

    /// The app is back, and was away for this time.
    pub(super) fn came_back(&mut self, away: RangeInclusive<Instant>) {
        self.away = Some(away);
    }

    /// Of at most `limit` messages after that one, those which are due again sooner because the app is back, as they
    /// were and as they are to be; and the last that was looked at, if there may be more.
    pub(super) fn hastened(
        &self,
        after: u64,
        limit: usize,
    ) -> (Vec<(Arc<Delivery>, Delivery)>, Option<u64>) {
        let (mut found, mut last) = (Vec::new(), None);
        let Some(away) = &self.away else {
            return (found, last);
        };
        for (looked_at, (number, delivery)) in self.all.range(after.saturating_add(1)..).enumerate()
        {
            if looked_at == limit {
                return (found, last);
            }
            last = Some(*number);
            let hastened = (!self.out.contains(number))
                .then(|| delivery.hastened(away))
                .flatten();
            found.extend(hastened.map(|hastened| (delivery.clone(), hastened)));
        }
        (found, None)
    }

    pub(super) fn last_tries(&self) -> LastTries {
        let taken = self
            .all
            .values()
            .filter_map(|delivery| match delivery.state {
                DeliveryState::Delivered(at) => Some(at),
                DeliveryState::Due(_) | DeliveryState::Failed(_) => None,
            });
        let taken = taken.max();
        let failing = self.all.values().filter(|delivery| {
            matches!(delivery.state, DeliveryState::Due(_))
                && delivery.failed.is_some_and(|failed| Some(failed) > taken)
        });
        LastTries {
            taken,
            failing: failing.map(|delivery| delivery.since).min(),
        }
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

    /// Forgets finished messages that are older than `ttl`, or that are too many; returns their numbers.
    pub(super) fn sweep(&mut self, ttl: Duration) -> Vec<u64> {
        let finished = self
            .all
            .values()
            .filter_map(|delivery| match delivery.state {
                DeliveryState::Delivered(at) | DeliveryState::Failed(at) => {
                    Some((delivery.number, at))
                }
                DeliveryState::Due(_) => None,
            });
        let finished: Vec<_> = finished.collect();
        let too_many = finished.len().saturating_sub(FINISHED_AT_MOST);
        let old =
            |(i, (_, at)): &(usize, (u64, Instant))| *i < too_many || clock::now() - *at >= ttl;
        let gone: Vec<_> = finished
            .into_iter()
            .enumerate()
            .filter(old)
            .map(|(_, (number, _))| number)
            .collect();
        for number in &gone {
            self.all.remove(number);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Payment, seconds until it is due, seconds since it failed, seconds until the app wants it again.
    type Message = (u64, u64, Option<u64>, Option<u64>);

    fn outbox(messages: &[Message], now: Instant) -> Outbox {
        let mut outbox = Outbox::default();
        for (number, (payment, due, failed, not_before)) in (1..).zip(messages) {
            let not_before = not_before.map(|wait| now + Duration::from_secs(wait));
            let due = now + Duration::from_secs(*due);
            outbox.put(Arc::new(Delivery {
                number,
                id: format!("msg_{number}"),
                payment: *payment,
                kind: Kind::Completed,
                body: "{}".into(),
                created_at: Timestamp::UNIX_EPOCH,
                since: now,
                tries: 1,
                failed: failed.map(|ago| now - Duration::from_secs(ago)),
                not_before,
                last_error: None,
                // What the app asks for only lengthens.
                state: DeliveryState::Due(not_before.map_or(due, |not_before| not_before.max(due))),
            }));
        }
        outbox
    }

    fn hasten(outbox: &mut Outbox, limit: usize) -> usize {
        let (mut after, mut count) = (Some(0), 0);
        while let Some(number) = after {
            let (found, last) = outbox.hastened(number, limit);
            assert!(found.len() <= limit);
            count += found.len();
            found
                .into_iter()
                .for_each(|(_, hastened)| outbox.put(Arc::new(hastened)));
            after = last;
        }
        count
    }

    proptest! {
        #[test]
        fn what_failed_while_the_app_was_away_is_due_again_once_and_nothing_else(
            messages in prop::collection::vec(
                (0_u64..5, 0_u64..100, prop::option::of(0_u64..100), prop::option::of(0_u64..100)), 1..40
            ),
            outage in 0_u64..100, limit in 1_usize..50, out in prop::collection::vec(any::<bool>(), 40)
        ) {
            let now = clock::now();
            let mut outbox = outbox(&messages, now);
            let before: Vec<_> = outbox.all.values().cloned().collect();
            let held: Vec<_> = before.iter().zip(&out).filter(|(_, out)| **out).map(|(held, _)| held.clone()).collect();
            held.iter().for_each(|delivery| outbox.hold(delivery));
            let away = now - Duration::from_secs(outage)..=now;
            outbox.came_back(away.clone());
            hasten(&mut outbox, limit);
            for held in &held {
                prop_assert!(outbox.is_out(held.number) && outbox.all[&held.number].state == held.state);
            }
            // Those that were being posted, or written, are put back as they were.
            held.into_iter().for_each(|delivery| outbox.put(delivery));
            for before in &before {
                let after = &outbox.all[&before.number];
                let (DeliveryState::Due(was), DeliveryState::Due(is)) = (before.state, after.state) else { panic!("no state was changed") };
                if before.failed.is_some_and(|failed| away.contains(&failed)) {
                    prop_assert_eq!(is, before.not_before.unwrap_or(now).max(now));
                } else {
                    prop_assert_eq!(is, was);
                }
                prop_assert!(is <= was && before.not_before.is_none_or(|not_before| is >= not_before));
            }
            prop_assert_eq!(hasten(&mut outbox, limit), 0, "once");
            // All of them still come, and those of one payment one after the other.
            let (mut last, mut count) = ([0; 5], 0);
            while let Some(delivery) = outbox.take_due(now + Duration::from_secs(200)) {
                let last = &mut last[usize::try_from(delivery.payment).unwrap()];
                prop_assert!(*last < delivery.number);
                (*last, count) = (delivery.number, count + 1);
                outbox.put(Arc::new(Delivery { state: DeliveryState::Delivered(now), ..(*delivery).clone() }));
            }
            prop_assert_eq!(count, before.len());
        }

        /// What fails after its return waits as long as its own backoff says.
        #[test]
        fn a_message_that_fails_again_is_not_due_again_by_the_same_return(wait in 1_u64..100) {
            let now = clock::now();
            let mut outbox = outbox(&[(0, 50, Some(10), None)], now);
            outbox.came_back(now - Duration::from_secs(20)..=now);
            hasten(&mut outbox, 10);
            let delivery = outbox.take_due(now).unwrap();
            let (later, wait) = (now + Duration::from_secs(1), Duration::from_secs(wait));
            let state = DeliveryState::Due(later + wait);
            outbox.put(Arc::new(Delivery { failed: Some(later), state, ..(*delivery).clone() }));
            prop_assert_eq!(hasten(&mut outbox, 10), 0);
            prop_assert_eq!(outbox.next_due(), Some(later + wait));
        }

        #[test]
        fn the_last_tries_are_those_since_the_app_took_one(ages in prop::collection::vec((0_u64..100, 0_u8..3), 0..20)) {
            let now = clock::now();
            let mut outbox = outbox(&vec![(0, 0, None, None); ages.len()], now);
            let at = |ago: u64| now - Duration::from_secs(ago);
            for (number, (ago, kind)) in (1..).zip(&ages) {
                let mut delivery = (*outbox.all[&number]).clone();
                delivery.since = at(ago + 1000);
                match kind {
                    0 => delivery.state = DeliveryState::Delivered(at(*ago)),
                    1 => delivery.failed = Some(at(*ago)),
                    _ => (delivery.failed, delivery.state) = (Some(at(*ago)), DeliveryState::Failed(at(*ago))),
                }
                outbox.put(Arc::new(delivery));
            }
            let of_kind = |wanted: u8| ages.iter().filter(move |(_, kind)| *kind == wanted).map(|(ago, _)| *ago);
            let taken = of_kind(0).min();
            let failing = of_kind(1).filter(|ago| taken.is_none_or(|taken| *ago < taken)).max();
            let expected = LastTries { taken: taken.map(at), failing: failing.map(|ago| at(ago + 1000)) };
            prop_assert_eq!(outbox.last_tries(), expected);
        }
    }
}

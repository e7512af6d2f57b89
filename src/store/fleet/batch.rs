//! What a replica writes at once.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;

use tokio_postgres::types::Type;

use super::following;
use super::line::Parameter;
use super::link::{Link, get};
use super::lost::Lately;
use super::replica::Replica;
use super::statements::number;
use super::trouble::Trouble;
use super::waiting::{Waiting, reply};
use crate::random;
use crate::store::decide::{Decision, Touched};
use crate::store::event::{Event, Removal};
use crate::store::intent::{Effect, Intent};
use crate::store::rows::{self, Table};
use crate::store::state::changes;

/// Intents that are written at once.
const MOST: usize = 256;

/// An intent, and what has come of it.
struct Decided {
    waiting: Waiting,
    effect: Effect,
}

/// A write. Sent a second time it is the same one.
pub(super) struct Batch {
    /// The last write that was seen, and its mark.
    after: i64,
    after_mark: String,
    mark: String,
    events: Vec<Arc<Event>>,
    decided: Vec<Decided>,
    removals: Vec<Removal>,
    complete_since: i64,
    /// As it is sent.
    text: String,
    rows: Rows,
    /// Changes up to this position are not kept any more; 0 if there is none.
    old: i64,
}

/// By table and key: what stands there from now on, if anything does.
#[derive(Default)]
struct Rows {
    tables: Vec<i16>,
    keys: Vec<Vec<u8>>,
    values: Vec<Option<Vec<u8>>>,
}

impl Batch {
    /// Takes what can be written at once out of the queue. `None` if there is nothing to be written, unless there has to be
    /// a write.
    pub(super) fn next(
        replica: &Replica,
        queue: &mut VecDeque<Waiting>,
        wants_write: bool,
    ) -> Option<Self> {
        let mut guarded = replica.shared.lock();
        let (mut events, mut decided) = (Vec::new(), Vec::new());
        let mut wants_write = wants_write;
        let mut touched = Touched::default();
        for waiting in mem::take(queue) {
            if waiting.is_abandoned() {
                replica.metrics.unrevealed(&waiting.intent);
                continue;
            }
            if decided.len() == MOST || !touched.add(&guarded.state, &waiting.intent) {
                queue.push_back(waiting);
                continue;
            }
            if matches!(*waiting.intent, Intent::Nothing) {
                wants_write = true;
                let effect = Effect::Done;
                decided.push(Decided { waiting, effect });
                continue;
            }
            match guarded.state.decide(&waiting.intent) {
                Decision::Write(event, effect) => {
                    events.push(Arc::new(event));
                    decided.push(Decided { waiting, effect });
                }
                Decision::Nothing(effect) => {
                    guarded.followed.settled(&waiting.intent);
                    reply(waiting.reply, Ok(effect));
                }
                Decision::Refused(why) => {
                    replica.metrics.unrevealed(&waiting.intent);
                    reply(waiting.reply, Err(why));
                }
            }
        }
        let removals = guarded.take_removals();
        if events.is_empty() && removals.is_empty() && !wants_write {
            return None;
        }
        let last = events.iter().rev().find_map(|event| event.change());
        let room = changes::ROOM as u64;
        let old = last.map_or(0, |change| change.position.saturating_sub(room));
        Some(Self {
            after: i64::try_from(guarded.followed.position).unwrap_or(i64::MAX),
            after_mark: guarded.followed.mark.clone(),
            mark: random::token(16),
            decided,
            removals,
            complete_since: guarded.state.payments.complete_since().as_millisecond(),
            text: String::new(),
            rows: Rows::default(),
            // Now and then is enough.
            old: if old % 64 == 0 {
                old.try_into().unwrap_or_default()
            } else {
                0
            },
            events,
        })
    }

    /// Makes what is sent, if that was not done yet.
    pub(super) async fn complete(&mut self, replica: &Replica, link: &Link) -> Result<(), Trouble> {
        if !self.text.is_empty() {
            return Ok(());
        }
        let clocks = replica.clock.clocks();
        let mut all = BTreeMap::new();
        for removal in &self.removals {
            all.insert(rows::of_removal(removal), None);
        }
        all.extend(self.parts(replica, link).await?);
        for event in &self.events {
            for row in rows::of_event(event, clocks) {
                all.insert((row.table, row.key), Some(row.value));
            }
        }
        for ((table, key), value) in all {
            self.rows.tables.push(number(table));
            self.rows.keys.push(key);
            self.rows.values.push(value);
        }
        self.text = following::text(&self.events, &replica.clock);
        Ok(())
    }

    /// Returns what is left of the rows of payments of which only the reference stays.
    async fn parts(
        &self,
        replica: &Replica,
        link: &Link,
    ) -> Result<Vec<((Table, Vec<u8>), Option<Vec<u8>>)>, Trouble> {
        let keys = self.removals.iter().filter_map(|removal| match removal {
            Removal::AllButReference(number) => Some(rows::number_key(*number)),
            _ => None,
        });
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let parameters: [Parameter<'_>; 1] = [(&keys, Type::BYTEA_ARRAY)];
        let found = link.ask(&replica.statements.parts, &parameters).await?;
        let mut parts = Vec::new();
        for row in &found {
            let key: Option<Vec<u8>> = get(row, 0)?;
            let value: Option<Vec<u8>> = get(row, 1)?;
            if let (Some(key), Some(value)) = (key, value) {
                parts.push(((Table::Payments, key), rows::only_reference(&value)));
            }
        }
        Ok(parts)
    }

    /// Sends it. Returns whether it was carried out, now or before; else somebody else has written after the same write.
    pub(super) async fn send(&self, replica: &Replica, link: &Link) -> Result<bool, Trouble> {
        let Rows {
            tables,
            keys,
            values,
        } = &self.rows;
        let parameters: [Parameter<'_>; 9] = [
            (&self.after, Type::INT8),
            (&self.after_mark, Type::TEXT),
            (&self.mark, Type::TEXT),
            (&self.text, Type::TEXT),
            (tables, Type::INT2_ARRAY),
            (keys, Type::BYTEA_ARRAY),
            (values, Type::BYTEA_ARRAY),
            (&self.old, Type::INT8),
            (&self.complete_since, Type::INT8),
        ];
        let rows = link.ask(&replica.statements.write, &parameters).await?;
        let position = rows.first().map(|row| get::<Option<i64>>(row, 0));
        Ok(position.transpose()?.flatten().is_some())
    }

    /// It is durable: what it says is true, and so is all that it came after.
    pub(super) fn written(self, replica: &Replica, lately: &mut Lately) {
        let mut guarded = replica.shared.lock();
        let position = u64::try_from(self.after).unwrap_or_default() + 1;
        // Unless it was met in the log meanwhile.
        if guarded.followed.position < position {
            for event in &self.events {
                following::make_true(&replica.shared, &mut guarded, event);
            }
            guarded.followed.position = position;
            guarded.followed.mark = self.mark;
        }
        if guarded.followed.position == position {
            guarded.followed.unconfirmed.clear();
        }
        drop(guarded);
        for Decided { waiting, effect } in self.decided {
            lately.add(&waiting.intent);
            reply(waiting.reply, Ok(effect));
        }
    }

    /// It was not carried out: it waits again, before all others.
    pub(super) fn back(self, replica: &Replica, queue: &mut VecDeque<Waiting>) {
        replica.shared.lock().remove(self.removals);
        for Decided { waiting, .. } in self.decided.into_iter().rev() {
            queue.push_front(waiting);
        }
    }
}

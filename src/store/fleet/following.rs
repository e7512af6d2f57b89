//! Follows the log: what other replicas have written becomes true here.

use std::sync::Arc;

use tokio_postgres::Row;

use super::engine_clock::EngineClock;
use super::metrics::FleetMetrics;
use super::statements::TAIL_AT_ONCE;
use super::trouble::Trouble;
use crate::store::event::Event;
use crate::store::rows::EventRow;
use crate::store::shared::{Guarded, Shared};

/// What a look at the log has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Everything is in the state.
    UpToDate,
    /// This much is, and there may be more.
    More,
    /// The last write that was seen is not there any more: everything has to be loaded anew.
    Gone {
        /// The database is at an earlier time, or at another one: a standby or a backup took its place.
        went_back: bool,
    },
}

/// A write of the log.
pub(super) struct Write {
    pub(super) position: u64,
    pub(super) mark: String,
    pub(super) events: Vec<Event>,
}

/// Takes in what [`super::statements::Statements::tail`] returned.
///
/// # Errors
/// If it is not what a replica of this version writes.
pub(super) fn follow(
    shared: &Shared,
    rows: &[Row],
    clock: &EngineClock,
    metrics: &FleetMetrics,
) -> Result<Look, Trouble> {
    let mut writes = Vec::with_capacity(rows.len());
    let mut youngest = None;
    for row in rows {
        let Some((write, age_ms)) = read(row, clock)? else {
            continue;
        };
        youngest = Some(age_ms);
        writes.push(write);
    }
    let mut guarded = shared.lock();
    let followed = &guarded.followed;
    let Some(first) = writes.first() else {
        return Ok(Look::Gone { went_back: true });
    };
    // The first one read was the last one followed when this was asked for; others may have been followed since.
    if first.position > followed.position {
        return Ok(Look::Gone { went_back: false });
    }
    let same = writes
        .iter()
        .find(|write| write.position == followed.position);
    if same.is_some_and(|same| same.mark != followed.mark) {
        return Ok(Look::Gone { went_back: true });
    }
    let is_new = |write: &Write| write.position > guarded.followed.position;
    let new: Vec<_> = writes.into_iter().filter(is_new).collect();
    if let Some(age_ms) = youngest.filter(|_| !new.is_empty()) {
        metrics.news_delay.observe(age_ms / 1000.0);
    }
    for write in new {
        take_in(shared, &mut guarded, &write);
    }
    Ok(match rows.len() {
        TAIL_AT_ONCE => Look::More,
        _ => Look::UpToDate,
    })
}

fn take_in(shared: &Shared, guarded: &mut Guarded, write: &Write) {
    for event in &write.events {
        make_true(shared, guarded, event);
        let payment = event
            .payment()
            .map(|payment| &payment.stored.payment.watch_code);
        let answer = event.answer().map(|answer| &answer.body.watch_code);
        for code in [payment, answer].into_iter().flatten() {
            guarded.followed.unconfirmed.add(code.clone());
        }
    }
    guarded.followed.position = write.position;
    guarded.followed.mark.clone_from(&write.mark);
}

/// Makes an event true that is in the log.
pub(super) fn make_true(shared: &Shared, guarded: &mut Guarded, event: &Event) {
    guarded.wrote(event);
    let removals = guarded.state.apply(event);
    guarded.remove(removals);
    if let Event::Observed { stored, .. } = event {
        let code = &stored.payment.watch_code;
        guarded.followed.unwritten.remove(code);
    }
    shared.wake(event);
}

/// `None`: there is no such write.
fn read(row: &Row, clock: &EngineClock) -> Result<Option<(Write, f64)>, Trouble> {
    let damaged =
        || Trouble::damaged("a row of its log cannot be read: is a newer tillgate on it?");
    let position: Option<i64> = row.try_get(0).map_err(|_| damaged())?;
    let Some(position) = position else {
        return Ok(None);
    };
    let mark: String = row.try_get(1).map_err(|_| damaged())?;
    let events: &str = row.try_get(2).map_err(|_| damaged())?;
    let age_ms: f64 = row.try_get(3).map_err(|_| damaged())?;
    let events: Vec<EventRow> = serde_json::from_slice(events.as_bytes()).map_err(|_| damaged())?;
    let lived = clock.clocks().lived;
    let events = events.into_iter().map(|event| event.read(lived));
    let write = Write {
        position: u64::try_from(position).map_err(|_| damaged())?,
        mark,
        events: events.collect::<Result<_, _>>().map_err(|_| damaged())?,
    };
    Ok(Some((write, age_ms)))
}

/// As it stands in the log.
pub(super) fn text(events: &[Arc<Event>], clock: &EngineClock) -> String {
    let clocks = clock.clocks();
    let rows = events.iter().map(|event| EventRow::new(event, clocks));
    // Texts and numbers, into memory: that cannot fail.
    serde_json::to_string(&rows.collect::<Vec<_>>()).unwrap_or_default()
}

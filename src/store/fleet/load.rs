//! Everything that the log says, read at once: when a replica starts, and when the database went back.

use std::collections::VecDeque;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::line::Parameter;
use super::link::Link;
use super::lost::Lately;
use super::replica::Replica;
use super::statements::number;
use super::trouble::Trouble;
use super::waiting::Waiting;
use crate::random;
use crate::store::rows::{Restoring, Table};
use crate::store::state::State;

/// Puts what the database holds in the place of what is in memory.
pub(super) async fn load(
    replica: &Replica,
    link: &Link,
    queue: &mut VecDeque<Waiting>,
    lately: &mut Lately,
) -> Result<(), Trouble> {
    if lately.is_lost {
        // Who reads the journal gets the present state.
        let (old, new) = (replica.shared.run(), random::token(8));
        let parameters: [Parameter<'_>; 2] = [(&*old, Type::TEXT), (&new, Type::TEXT)];
        link.tell(&replica.statements.new_run, &parameters).await?;
    }
    let asked = random::token(12);
    let parameters: [Parameter<'_>; 1] = [(&asked, Type::TEXT)];
    let rows = link.query(&replica.statements.load, &parameters).await?;
    let mut state = State::new(
        replica.limits,
        replica.compose,
        replica.clock.reading().wall,
    );
    let mut restoring = Restoring::new(&mut state, replica.clock.clocks().lived);
    let mut head = Head {
        asked,
        ..Head::default()
    };
    for row in &rows {
        head.put(row, &mut restoring).ok_or_else(damaged)?;
    }
    let removals = restoring.finish();
    state
        .payments
        .begin_at(head.complete_since.ok_or_else(damaged)?);
    let (position, mark) = head.last.ok_or_else(damaged)?;
    {
        let mut guarded = replica.shared.lock();
        let before = std::mem::replace(&mut guarded.state, state);
        guarded.state.take_over(before);
        let _ = guarded.take_removals();
        guarded.remove(removals);
        guarded.followed.begin(position, mark);
        if lately.is_lost {
            replica.metrics.went_back.inc();
            let again = lately.again(&guarded);
            tracing::error!(
                writes = again.len(),
                "the database is at an earlier state than it was: what this replica has written lately is written again"
            );
            for waiting in again.into_iter().rev() {
                guarded.unwritten(&waiting.intent);
                queue.push_front(waiting);
            }
            lately.is_lost = false;
        }
        let position = guarded.state.changes.position();
        drop(guarded);
        replica.shared.renew(head.run, position);
    }
    replica.loaded();
    Ok(())
}

/// What comes before the rows of the tables.
#[derive(Default)]
struct Head {
    /// Comes before the journal's name, where this is what was asked for.
    asked: String,
    run: String,
    complete_since: Option<jiff::Timestamp>,
    /// The last write and its mark.
    last: Option<(u64, String)>,
}

impl Head {
    fn put(&mut self, row: &Row, restoring: &mut Restoring<'_>) -> Option<()> {
        let kind: i16 = row.try_get(0).ok()?;
        let (key, value): (&[u8], &[u8]) = (row.try_get(1).ok()?, row.try_get(2).ok()?);
        let int = |bytes: &[u8]| Some(i64::from_be_bytes(bytes.try_into().ok()?));
        match kind {
            -2 => {
                let run = str::from_utf8(key).ok()?.strip_prefix(&self.asked)?;
                self.run = run.to_owned();
                let since = jiff::Timestamp::from_millisecond(int(value)?);
                self.complete_since = Some(since.ok()?);
            }
            -1 => {
                let position = u64::try_from(int(key)?).ok()?;
                self.last = Some((position, str::from_utf8(value).ok()?.to_owned()));
            }
            _ => {
                let table = Table::ALL
                    .into_iter()
                    .find(|table| number(*table) == kind)?;
                restoring.put(table, key, value).ok()?;
            }
        }
        Some(())
    }
}

fn damaged() -> Trouble {
    Trouble::damaged(
        "its tables cannot be read: are they another program's, or a newer tillgate's?",
    )
}

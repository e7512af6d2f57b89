//! What stands in a store's file: the tables, how they are read when it is opened, and how events are written into them.

use jiff::Timestamp;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::clock::{self, Reading};
use crate::random;
use crate::store::event::{Event, Removal};
use crate::store::rows::{self, BoxError, Clocks, Lived, Restoring, Row, Table};
use crate::store::state::{State, changes};

/// Keys and values are bytes of ours: no change of redb's types can make a file unreadable.
type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
const META: Definition = TableDefinition::new("meta");
/// Names the journal of this file.
const RUN: &[u8] = b"run";
/// How long the store had lived when it was last written to. Not there in a store of an older version.
const LIVED: &[u8] = b"lived";
/// Since when no payment is missing. Not there in a store of an older version.
const COMPLETE_SINCE: &[u8] = b"complete_since";
/// Takes room, and means nothing.
const BALLAST: &[u8] = b"ballast";

fn definition(table: Table) -> Definition {
    TableDefinition::new(match table {
        Table::Payments => "payments",
        Table::Changes => "changes",
        Table::Answers => "answers",
        Table::Deliveries => "deliveries",
    })
}

/// Makes the tables of a new store.
pub(super) fn create(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    transaction
        .open_table(META)?
        .insert(RUN, &*rows::bytes(&random::token(8)))?;
    transaction.commit()?;
    Ok(())
}

/// What a file says beside the state.
pub(super) struct Loaded {
    /// The name of the journal.
    pub(super) run: String,
    /// The time by which the store lives from here on.
    pub(super) lived: Lived,
    /// Rows that have to be deleted.
    pub(super) removals: Vec<Removal>,
}

/// Puts everything into the state. What has had its time is not in it.
pub(super) fn load(database: &Database, state: &mut State) -> Result<Loaded, BoxError> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let run = rows::read(meta.get(RUN)?.ok_or("it has no name")?.value())?;
    let before = meta
        .get(LIVED)?
        .map(|before| rows::read(before.value()))
        .transpose()?;
    if let Some(since) = meta.get(COMPLETE_SINCE)? {
        let since = rows::time(rows::read(since.value())?)?;
        state.payments.begin_at(since);
    }
    let opened = Reading::take();
    let lived = Lived::new(opened, before.unwrap_or_default());
    let mut restoring = Restoring::new(state, lived);
    for table in Table::ALL {
        for entry in transaction.open_table(definition(table))?.iter()? {
            let (key, value) = entry?;
            restoring.put(table, key.value(), value.value())?;
        }
    }
    Ok(Loaded {
        run,
        lived,
        removals: restoring.finish(),
    })
}

/// Takes room that is free again with the next write: to find out whether there is any.
pub(super) fn take_room(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction
        .open_table(META)?
        .insert(BALLAST, &[0; 64 * 1024][..])?;
    Ok(())
}

/// An event that is to be written, and what the clocks showed when it was handed over for that.
pub(super) struct Noted {
    pub(super) event: Event,
    pub(super) reading: Reading,
}

/// What has gone since the last write.
pub(super) struct Gone {
    pub(super) rows: Vec<Removal>,
    /// Since when no payment is missing.
    pub(super) complete_since: Timestamp,
}

/// The tables in the order of [`Table::ALL`].
struct Tables<'a>([redb::Table<'a, &'static [u8], &'static [u8]>; 4]);

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        let [payments, changes, answers, deliveries] = Table::ALL;
        let open = |table| transaction.open_table(definition(table));
        Ok(Self([
            open(payments)?,
            open(changes)?,
            open(answers)?,
            open(deliveries)?,
        ]))
    }

    fn of(&mut self, table: Table) -> &mut redb::Table<'a, &'static [u8], &'static [u8]> {
        &mut self.0[table as usize]
    }

    fn put(&mut self, Row { table, key, value }: &Row) -> Result<(), redb::Error> {
        self.of(*table).insert(&**key, &**value)?;
        Ok(())
    }

    fn remove(&mut self, removal: &Removal) -> Result<(), redb::Error> {
        let (table, key) = rows::of_removal(removal);
        let rows = self.of(table);
        if let Removal::AllButReference(_) = removal {
            let row = rows.get(&*key)?;
            let left = row.and_then(|row| rows::only_reference(row.value()));
            if let Some(left) = left {
                rows.insert(&*key, &*left)?;
            }
        } else {
            rows.remove(&*key)?;
        }
        Ok(())
    }
}

/// Writes these events, and deletes what has gone.
pub(super) fn write<'a>(
    transaction: &WriteTransaction,
    events: impl Iterator<Item = &'a Noted>,
    gone: &Gone,
    lived: Lived,
) -> Result<(), redb::Error> {
    let mut tables = Tables::open(transaction)?;
    for removal in &gone.rows {
        tables.remove(removal)?;
    }
    let mut last = None;
    for Noted { event, reading } in events {
        let clocks = Clocks {
            lived,
            reading: *reading,
        };
        last = last.max(Some(reading.now));
        for row in rows::of_event(event, clocks) {
            tables.put(&row)?;
        }
        if let Some(change) = event.change() {
            let old = change.position.saturating_sub(changes::ROOM as u64);
            let old = rows::number_key(old);
            // All of them: a position that was never written would leave its predecessor behind.
            let changes = tables.of(Table::Changes);
            changes.retain_in::<&[u8], _>(..=&*old, |_, _| false)?;
        }
    }
    let mark = lived.mark(last.unwrap_or_else(clock::now));
    let since = gone.complete_since.as_millisecond();
    let mut meta = transaction.open_table(META)?;
    meta.insert(LIVED, &*rows::bytes(&mark))?;
    meta.insert(COMPLETE_SINCE, &*rows::bytes(&since))?;
    Ok(())
}

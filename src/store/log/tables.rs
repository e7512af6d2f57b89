//! What stands in a store's file: the tables, how they are read when it is opened, and how events are written into them.

use jiff::Timestamp;
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use super::columns::{self, Clocks};
use super::delivery_row::DeliveryRow;
use super::lived::Lived;
use super::row::{AnswerRow, ChangeRow, PaymentRead, PaymentRow};
use crate::clock::{self, Reading};
use crate::random;
use crate::store::event::{Event, Removal};
use crate::store::state::{State, changes};

/// Keys and values are bytes of ours: no change of redb's types can make a file unreadable.
type Table<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;
const META: Table<'_> = TableDefinition::new("meta");
const PAYMENTS: Table<'_> = TableDefinition::new("payments");
const CHANGES: Table<'_> = TableDefinition::new("changes");
const ANSWERS: Table<'_> = TableDefinition::new("answers");
const DELIVERIES: Table<'_> = TableDefinition::new("deliveries");
const TABLES: [Table<'_>; 5] = [META, PAYMENTS, CHANGES, ANSWERS, DELIVERIES];
/// Names the journal of this file.
const RUN: &[u8] = b"run";
/// How long the store had lived when it was last written to. Not there in a store of an older version.
const LIVED: &[u8] = b"lived";
/// Since when no payment is missing. Not there in a store of an older version.
const COMPLETE_SINCE: &[u8] = b"complete_since";
/// Takes room, and means nothing.
const BALLAST: &[u8] = b"ballast";

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the tables of a new store.
pub(super) fn create(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in TABLES {
        transaction.open_table(table)?;
    }
    transaction
        .open_table(META)?
        .insert(RUN, &*columns::bytes(&random::token(8)))?;
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
    let run = columns::read(meta.get(RUN)?.ok_or("it has no name")?.value())?;
    let before = meta
        .get(LIVED)?
        .map(|before| columns::read(before.value()))
        .transpose()?;
    if let Some(since) = meta.get(COMPLETE_SINCE)? {
        let since = columns::time(columns::read(since.value())?)?;
        state.payments.begin_at(since);
    }
    let opened = Reading::take();
    let lived = Lived::new(opened, before.unwrap_or_default());
    let mut removals = Vec::new();
    for entry in transaction.open_table(PAYMENTS)?.iter()? {
        let (key, value) = entry?;
        let row = columns::read::<PaymentRow>(value.value())?;
        match row.read(number(key.value())?, lived)? {
            PaymentRead::Payment(record, completion, finished) => {
                removals.extend(state.restore_payment(record, completion, finished));
            }
            PaymentRead::Paid(reference, paid) => state.restore_paid(&reference, paid),
        }
    }
    load_changes(&transaction, state)?;
    load_answers(&transaction, state, lived)?;
    for entry in transaction.open_table(DELIVERIES)?.iter()? {
        let (key, value) = entry?;
        state.restore_delivery(
            columns::read::<DeliveryRow>(value.value())?.read(number(key.value())?, lived)?,
        );
    }
    removals.extend(state.sweep(opened.now));
    Ok(Loaded {
        run,
        lived,
        removals,
    })
}

fn load_changes(transaction: &ReadTransaction, state: &mut State) -> Result<(), BoxError> {
    let changes = transaction.open_table(CHANGES)?;
    if let Some((first, _)) = changes.first()? {
        state.changes.begin_after(number(first.value())? - 1);
    }
    for entry in changes.iter()? {
        let (key, value) = entry?;
        let change = columns::read::<ChangeRow>(value.value())?;
        let payment = change.payment;
        let (report, paid_twice_with) = change.read()?;
        state.restore_change(number(key.value())?, payment, report, paid_twice_with);
    }
    Ok(())
}

fn load_answers(
    transaction: &ReadTransaction,
    state: &mut State,
    lived: Lived,
) -> Result<(), BoxError> {
    let mut answers = Vec::new();
    for entry in transaction.open_table(ANSWERS)?.iter()? {
        let (key, value) = entry?;
        let key = std::str::from_utf8(key.value())?;
        answers.push(columns::read::<AnswerRow>(value.value())?.read(key, lived)?);
    }
    answers.sort_by_key(|answer| answer.since);
    answers
        .into_iter()
        .for_each(|answer| state.restore_answer(answer));
    Ok(())
}

fn number(key: &[u8]) -> Result<u64, BoxError> {
    Ok(u64::from_be_bytes(key.try_into()?))
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

/// Deletes what has gone.
fn delete(transaction: &WriteTransaction, gone: &Gone) -> Result<(), redb::Error> {
    let mut payments = transaction.open_table(PAYMENTS)?;
    let mut answers = transaction.open_table(ANSWERS)?;
    let mut deliveries = transaction.open_table(DELIVERIES)?;
    for row in &gone.rows {
        match row {
            Removal::Payment(number) => drop(payments.remove(&number.to_be_bytes()[..])?),
            Removal::AllButReference(number) => {
                let number = number.to_be_bytes();
                let row = payments.get(&number[..])?;
                let row = row.and_then(|row| columns::read::<PaymentRow>(row.value()).ok());
                if let Some(Ok(left)) = row.map(PaymentRow::only_reference) {
                    payments.insert(&number[..], &*columns::bytes(&left))?;
                }
            }
            Removal::Answer(key) => drop(answers.remove(key.to_string().as_bytes())?),
            Removal::Delivery(number) => drop(deliveries.remove(&number.to_be_bytes()[..])?),
        }
    }
    let since = columns::bytes(&gone.complete_since.as_millisecond());
    transaction
        .open_table(META)?
        .insert(COMPLETE_SINCE, &*since)?;
    Ok(())
}

/// Writes these events, and deletes what has gone.
pub(super) fn write<'a>(
    transaction: &WriteTransaction,
    events: impl Iterator<Item = &'a Noted>,
    gone: &Gone,
    lived: Lived,
) -> Result<(), redb::Error> {
    delete(transaction, gone)?;
    let mut payments = transaction.open_table(PAYMENTS)?;
    let mut changes = transaction.open_table(CHANGES)?;
    let mut answers = transaction.open_table(ANSWERS)?;
    let mut deliveries = transaction.open_table(DELIVERIES)?;
    let mut last = None;
    for Noted { event, reading } in events {
        let clocks = Clocks {
            lived,
            reading: *reading,
        };
        last = last.max(Some(reading.now));
        if let Some(payment) = event.payment() {
            let number = payment.stored.number;
            let row = columns::bytes(&PaymentRow::new(payment, clocks));
            payments.insert(&number.to_be_bytes()[..], &*row)?;
        }
        if let Some(change) = event.change() {
            let position = change.position;
            let row = columns::bytes(&ChangeRow::new(&change));
            changes.insert(&position.to_be_bytes()[..], &*row)?;
            let old = position.saturating_sub(changes::ROOM as u64).to_be_bytes();
            // All of them: a position that was never written would leave its predecessor behind.
            changes.retain_in::<&[u8], _>(..=&old[..], |_, _| false)?;
        }
        if let Some(answer) = event.answer() {
            answers.insert(
                answer.key.to_string().as_bytes(),
                &*columns::bytes(&AnswerRow::new(answer, clocks)),
            )?;
        }
        if let Some(delivery) = event.delivery() {
            let row = columns::bytes(&DeliveryRow::new(delivery, clocks));
            deliveries.insert(&delivery.number.to_be_bytes()[..], &*row)?;
        }
    }
    let mark = lived.mark(last.unwrap_or_else(clock::now));
    transaction
        .open_table(META)?
        .insert(LIVED, &*columns::bytes(&mark))?;
    Ok(())
}

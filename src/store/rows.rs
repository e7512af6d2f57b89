//! What stands where it survives: the rows that events write, and the state that comes of them again.

mod columns;
mod delivery_row;
mod event_row;
#[cfg(fuzzing)]
pub mod fuzz;
mod lived;
mod row;

pub(super) use self::columns::{Clocks, bytes, read, time};
use self::delivery_row::DeliveryRow;
pub(super) use self::event_row::EventRow;
pub(super) use self::lived::Lived;
use self::row::{AnswerRow, ChangeRow, PaymentRead, PaymentRow};
use super::event::{Event, Removal};
use super::model::Answer;
use super::state::State;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The tables in the order in which they have to be read: what comes later names what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Table {
    Payments,
    Changes,
    Answers,
    Deliveries,
}

impl Table {
    pub(super) const ALL: [Self; 4] = [
        Self::Payments,
        Self::Changes,
        Self::Answers,
        Self::Deliveries,
    ];
}

/// A row, under a key that no other row of its table has.
pub(super) struct Row {
    pub(super) table: Table,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// Returns the rows that an event writes.
pub(super) fn of_event(event: &Event, clocks: Clocks) -> Vec<Row> {
    let numbered = |table, number: u64, value| Row {
        table,
        key: number_key(number),
        value,
    };
    let mut rows = Vec::new();
    if let Some(payment) = event.payment() {
        let number = payment.stored.number;
        let value = columns::bytes(&PaymentRow::new(payment, clocks));
        rows.push(numbered(Table::Payments, number, value));
    }
    if let Some(change) = event.change() {
        let value = columns::bytes(&ChangeRow::new(&change));
        rows.push(numbered(Table::Changes, change.position, value));
    }
    if let Some(answer) = event.answer() {
        rows.push(Row {
            table: Table::Answers,
            key: answer.key.to_string().into_bytes(),
            value: columns::bytes(&AnswerRow::new(answer, clocks)),
        });
    }
    if let Some(delivery) = event.delivery() {
        let value = columns::bytes(&DeliveryRow::new(delivery, clocks));
        rows.push(numbered(Table::Deliveries, delivery.number, value));
    }
    rows
}

/// Returns the row that is to be deleted, or of which only a part stays.
pub(super) fn of_removal(removal: &Removal) -> (Table, Vec<u8>) {
    match removal {
        Removal::Payment(number) | Removal::AllButReference(number) => {
            (Table::Payments, number_key(*number))
        }
        Removal::Answer(key) => (Table::Answers, key.to_string().into_bytes()),
        Removal::Delivery(number) => (Table::Deliveries, number_key(*number)),
    }
}

/// Returns what is left of the row of a payment when only its reference stays; `None` if the row cannot be read.
pub(super) fn only_reference(row: &[u8]) -> Option<Vec<u8>> {
    let row = columns::read::<PaymentRow>(row).ok()?;
    Some(columns::bytes(&row.only_reference().ok()?))
}

/// Returns the key under which the row of this number stands.
pub(super) fn number_key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Puts rows into a state, table by table, each in the order of its keys.
pub(super) struct Restoring<'a> {
    state: &'a mut State,
    lived: Lived,
    has_changes: bool,
    answers: Vec<Answer>,
    removals: Vec<Removal>,
}

impl<'a> Restoring<'a> {
    pub(super) fn new(state: &'a mut State, lived: Lived) -> Self {
        Self {
            state,
            lived,
            has_changes: false,
            answers: Vec::new(),
            removals: Vec::new(),
        }
    }

    /// Puts a row into the state.
    ///
    /// # Errors
    /// If it is not a row of ours, or damaged.
    pub(super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), BoxError> {
        match table {
            Table::Payments => {
                let row = columns::read::<PaymentRow>(value)?;
                match row.read(number(key)?, self.lived)? {
                    PaymentRead::Payment(record, completion, finished) => {
                        let gone = self.state.restore_payment(record, completion, finished);
                        self.removals.extend(gone);
                    }
                    PaymentRead::Paid(reference, paid) => {
                        self.state.restore_paid(&reference, paid);
                    }
                }
            }
            Table::Changes => self.put_change(number(key)?, value)?,
            Table::Answers => {
                let row = columns::read::<AnswerRow>(value)?;
                let key = std::str::from_utf8(key)?;
                self.answers.push(row.read(key, self.lived)?);
            }
            Table::Deliveries => {
                let row = columns::read::<DeliveryRow>(value)?;
                self.state
                    .restore_delivery(row.read(number(key)?, self.lived)?);
            }
        }
        Ok(())
    }

    fn put_change(&mut self, position: u64, value: &[u8]) -> Result<(), BoxError> {
        if !self.has_changes {
            self.state.changes.begin_after(position.saturating_sub(1));
            self.has_changes = true;
        }
        let change = columns::read::<ChangeRow>(value)?;
        let payment = change.payment;
        let (report, paid_twice_with) = change.read()?;
        self.state
            .restore_change(position, payment, report, paid_twice_with);
        Ok(())
    }

    /// All rows are there. What has had its time leaves the state; returns the rows that have to be deleted.
    pub(super) fn finish(mut self) -> Vec<Removal> {
        self.answers.sort_by_key(|answer| answer.since);
        for answer in self.answers {
            self.state.restore_answer(answer);
        }
        let swept = self.state.sweep(self.lived.opened());
        self.removals.extend(swept);
        self.removals
    }
}

fn number(key: &[u8]) -> Result<u64, BoxError> {
    Ok(u64::from_be_bytes(key.try_into()?))
}

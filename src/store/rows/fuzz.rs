//! The rows of a store's file, for the programs in `tests/fuzz`: not a part of tillgate.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::columns::{self, Clocks, Unreadable};
use super::delivery_row::DeliveryRow;
use super::lived::Lived;
use super::row::{AnswerRow, ChangeRow, PaymentRead, PaymentRow};
use crate::clock::Reading;
use crate::store::event::PaymentState;

/// Which table a row is in.
#[derive(Clone, Copy, Debug)]
pub enum Table {
    /// Payments started here.
    Payments,
    /// Their changes.
    Changes,
    /// Answers by their key.
    Answers,
    /// Webhooks.
    Deliveries,
}

/// Reads a row; gives it as it would be written again, and what it says beside its times.
#[must_use]
pub fn row(table: Table, bytes: &[u8]) -> Option<(Vec<u8>, String)> {
    let reading = Reading::take();
    let lived = Lived::new(reading, 0);
    let clocks = Clocks { lived, reading };
    match table {
        Table::Payments => again(bytes, |row: PaymentRow| {
            let (record, completion) = match row.read(7, lived)? {
                PaymentRead::Payment(record, completion, _) => (record, completion),
                PaymentRead::Paid(..) => return Err(Unreadable),
            };
            let (stored, observation) = (record.stored.ok_or(Unreadable)?, record.observation);
            let said = format!(
                "{:?} {:?}",
                stored.payment,
                observation.as_ref().map(|observation| &observation.report)
            );
            let state = PaymentState {
                stored: &stored,
                observation: observation.as_ref(),
                polling_ended: record.polling_ended,
                completion: completion.as_ref(),
            };
            Ok((PaymentRow::new(state, clocks), said))
        }),
        Table::Changes => {
            let row: ChangeRow = columns::read(bytes).ok()?;
            let (again, payment) = (columns::bytes(&row), row.payment);
            Some((again, format!("{payment} {:?}", row.read().ok()?)))
        }
        Table::Answers => again(bytes, |row: AnswerRow| {
            let answer = row.read("a-key", lived)?;
            let said = format!("{:?} {:?}", answer.request, answer.body);
            Ok((AnswerRow::new(&answer, clocks), said))
        }),
        Table::Deliveries => again(bytes, |row: DeliveryRow| {
            let delivery = row.read(7, lived)?;
            let state = delivery.state.label();
            let said = format!(
                "{} {} {} {} {} {:?} {}",
                delivery.id,
                delivery.payment,
                delivery.code,
                delivery.watch_code,
                delivery.tries,
                delivery.body,
                state
            );
            Ok((DeliveryRow::new(&delivery, clocks), said))
        }),
    }
}

fn again<T: DeserializeOwned + Serialize>(
    bytes: &[u8],
    read: impl FnOnce(T) -> Result<(T, String), Unreadable>,
) -> Option<(Vec<u8>, String)> {
    let (row, said) = columns::read(bytes).and_then(read).ok()?;
    Some((columns::bytes(&row), said))
}

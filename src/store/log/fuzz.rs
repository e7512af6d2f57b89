//! The rows of a store's file, for the programs in `tests/fuzz`: not a part of tillgate.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lived::Lived;
use super::row::{self, AnswerRow, ChangeRow, Clocks, DeliveryRow, PaymentRow, Unreadable};
use crate::clock::Reading;

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
            let (record, _) = row.read(7, lived)?;
            let (stored, observation) = (record.stored.ok_or(Unreadable)?, record.observation);
            let said = format!(
                "{:?} {:?}",
                stored.payment,
                observation.as_ref().map(|observation| &observation.report)
            );
            Ok((
                PaymentRow::new(&stored, observation.as_ref(), record.polling_ended, clocks),
                said,
            ))
        }),
        Table::Changes => {
            let row: ChangeRow = row::read(bytes).ok()?;
            let (again, payment) = (row::bytes(&row), row.payment);
            Some((again, format!("{payment} {:?}", row.report().ok()?)))
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
    let (row, said) = row::read(bytes).and_then(read).ok()?;
    Some((row::bytes(&row), said))
}

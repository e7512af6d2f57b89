//! An event as one text, from which another process makes the same event again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::columns::{Clocks, Unreadable};
use super::delivery_row::DeliveryRow;
use super::lived::Lived;
use super::row::{AnswerRow, PaymentRead, PaymentRow};
use crate::store::event::Event;
use crate::store::model::{Answer, Delivery};

/// An event, by what it writes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::store) enum EventRow {
    Started {
        number: u64,
        payment: Box<PaymentRow>,
        position: u64,
        answer: Option<(String, AnswerRow)>,
    },
    Again {
        answer: Option<(String, AnswerRow)>,
    },
    Observed {
        number: u64,
        payment: Box<PaymentRow>,
        position: u64,
        delivery: Option<(u64, Box<DeliveryRow>)>,
    },
    PollingEnded {
        number: u64,
        payment: Box<PaymentRow>,
        delivery: Option<(u64, Box<DeliveryRow>)>,
    },
    Delivery {
        number: u64,
        delivery: Box<DeliveryRow>,
    },
}

impl EventRow {
    pub(in crate::store) fn new(event: &Event, clocks: Clocks) -> Self {
        let answer = |answer: &Option<Arc<Answer>>| {
            let answer = answer.as_ref()?;
            Some((answer.key.to_string(), AnswerRow::new(answer, clocks)))
        };
        let row = |delivery: &Arc<Delivery>| Box::new(DeliveryRow::new(delivery, clocks));
        let delivery = |delivery: &Option<Arc<Delivery>>| {
            let delivery = delivery.as_ref()?;
            Some((delivery.number, row(delivery)))
        };
        let payment = event.payment().map(|payment| {
            let number = payment.stored.number;
            (number, Box::new(PaymentRow::new(payment, clocks)))
        });
        match (event, payment) {
            (
                Event::Started {
                    position,
                    answer: answered,
                    ..
                },
                Some((number, payment)),
            ) => Self::Started {
                number,
                payment,
                position: *position,
                answer: answer(answered),
            },
            (
                Event::Observed {
                    position,
                    delivery: message,
                    ..
                },
                Some((number, payment)),
            ) => Self::Observed {
                number,
                payment,
                position: *position,
                delivery: delivery(message),
            },
            (
                Event::PollingEnded {
                    delivery: message, ..
                },
                Some((number, payment)),
            ) => Self::PollingEnded {
                number,
                payment,
                delivery: delivery(message),
            },
            (Event::Delivery(delivery), _) => Self::Delivery {
                number: delivery.number,
                delivery: row(delivery),
            },
            // The others have a payment.
            (other, _) => Self::Again {
                answer: answer(&other.answer().cloned()),
            },
        }
    }

    /// Returns the event.
    ///
    /// # Errors
    /// If it is not a row of ours.
    pub(in crate::store) fn read(self, lived: Lived) -> Result<Event, Unreadable> {
        let answer = |answer: Option<(String, AnswerRow)>| {
            let answer = answer.map(|(key, row)| row.read(&key, lived));
            Ok::<_, Unreadable>(answer.transpose()?.map(Arc::new))
        };
        let message = |delivery: Option<(u64, Box<DeliveryRow>)>| {
            let delivery = delivery.map(|(number, row)| row.read(number, lived));
            Ok::<_, Unreadable>(delivery.transpose()?.map(Arc::new))
        };
        let payment = |number, row: Box<PaymentRow>| match row.read(number, lived)? {
            PaymentRead::Payment(record, completion, _) => {
                let stored = record.stored.clone().ok_or(Unreadable)?;
                Ok((stored, record, completion))
            }
            PaymentRead::Paid(..) => Err(Unreadable),
        };
        Ok(match self {
            Self::Started {
                number,
                payment: row,
                position,
                answer: answered,
            } => Event::Started {
                stored: payment(number, row)?.0,
                position,
                answer: answer(answered)?,
            },
            Self::Again { answer: answered } => Event::Again {
                answer: answer(answered)?,
            },
            Self::Observed {
                number,
                payment: row,
                position,
                delivery,
            } => {
                let (stored, record, completion) = payment(number, row)?;
                Event::Observed {
                    stored,
                    observation: record.observation.ok_or(Unreadable)?,
                    polling_ended: record.polling_ended,
                    completion,
                    position,
                    delivery: message(delivery)?,
                }
            }
            Self::PollingEnded {
                number,
                payment: row,
                delivery,
            } => {
                let (stored, record, _) = payment(number, row)?;
                Event::PollingEnded {
                    stored,
                    observation: record.observation,
                    delivery: message(delivery)?,
                }
            }
            Self::Delivery { number, delivery } => {
                Event::Delivery(Arc::new(delivery.read(number, lived)?))
            }
        })
    }
}

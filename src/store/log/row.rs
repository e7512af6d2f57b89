//! Events as bytes: a version byte of ours, and JSON.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::lived::Lived;
use crate::clock::{Instant, Reading};
use crate::json::{self, Json};
use crate::payment::{Amount, Fingerprint, Payment, Report, Status};
use crate::store::model::{
    Answer, Delivery, DeliveryState, Kind, Observation, Record, StoredPayment,
};

/// The longest step from one try of a message to the next, with jitter: how long a row that an older version wrote, which
/// says it by the wall clock alone, may be believed.
const LONGEST_STEP: Duration = Duration::from_secs(5 * 3600 + 1800);

/// Of every row. Another one is another way to read what follows.
const VERSION: u8 = 1;

/// Not a row of ours, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of the store cannot be read")]
pub(super) struct Unreadable;

/// The two clocks by which a row is written: each moment is in it as the wall clock shows it, for people and for what
/// has passed between two processes, and as a mark of lived time. Rows of older versions have no marks.
#[derive(Clone, Copy)]
pub(super) struct Clocks {
    pub(super) lived: Lived,
    /// When the event was handed over to be written.
    pub(super) reading: Reading,
}

impl Clocks {
    fn wall(&self, moment: Instant) -> i64 {
        self.reading.wall_at(moment).as_millisecond()
    }
}

/// A payment that was started here, and the last that is known of it.
#[derive(Serialize, Deserialize)]
pub(super) struct PaymentRow {
    code: String,
    watch_code: String,
    amount: u64,
    started_at: i64,
    /// What the gateway reported last.
    report: Option<String>,
    asked_at: Option<i64>,
    #[serde(default)]
    polling_ended: bool,
    #[serde(default)]
    marks: Option<PaymentMarks>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct PaymentMarks {
    since: i64,
    asked: Option<i64>,
}

impl PaymentRow {
    pub(super) fn new(
        stored: &StoredPayment,
        observation: Option<&Observation>,
        polling_ended: bool,
        clocks: Clocks,
    ) -> Self {
        let asked = observation.map(|observation| clocks.lived.mark(observation.asked));
        Self {
            code: stored.payment.code.to_string(),
            watch_code: stored.payment.watch_code.to_string(),
            amount: stored.payment.amount.value(),
            started_at: stored.started_at.as_millisecond(),
            report: observation.map(|observation| observation.report.body.to_string()),
            asked_at: observation.map(|observation| clocks.wall(observation.asked)),
            polling_ended,
            marks: Some(PaymentMarks {
                since: clocks.lived.mark(stored.since),
                asked,
            }),
        }
    }

    /// The record, and the moment from which on it is kept for its time if it is final.
    pub(super) fn read(self, number: u64, lived: Lived) -> Result<(Record, Instant), Unreadable> {
        let payment = Payment {
            code: self.code.parse().map_err(|_| Unreadable)?,
            watch_code: self.watch_code.parse().map_err(|_| Unreadable)?,
            amount: Amount::new(self.amount),
        };
        let started_at = time(self.started_at)?;
        let since = self.marks.map_or_else(
            || lived.past_by_wall(started_at),
            |marks| lived.past(marks.since),
        );
        let stored = Arc::new(StoredPayment {
            number,
            payment,
            since,
            started_at,
        });
        let (observation, finished) = match self.report {
            None => (None, since),
            Some(body) => {
                // An answer is as old as either clock says: no wall clock that is behind makes it fresh again.
                let by_wall = lived.past_by_wall(time(self.asked_at.ok_or(Unreadable)?)?);
                let by_lived = self
                    .marks
                    .and_then(|marks| marks.asked)
                    .map(|mark| lived.past(mark));
                let asked = by_lived.map_or(by_wall, |by_lived| by_lived.min(by_wall));
                (
                    Some(Observation {
                        report: Arc::new(report(body)?),
                        asked,
                    }),
                    by_lived.unwrap_or(by_wall),
                )
            }
        };
        Ok((
            Record {
                stored: Some(stored),
                observation,
                polling_ended: self.polling_ended,
            },
            finished,
        ))
    }
}

/// A change, as the journal has it.
#[derive(Serialize, Deserialize)]
pub(super) struct ChangeRow {
    pub(super) payment: u64,
    report: Option<String>,
}

impl ChangeRow {
    pub(super) fn new(stored: &StoredPayment, report: Option<&Report>) -> Self {
        Self {
            payment: stored.number,
            report: report.map(|report| report.body.to_string()),
        }
    }

    pub(super) fn report(self) -> Result<Option<Arc<Report>>, Unreadable> {
        self.report
            .map(report)
            .transpose()
            .map(|report| report.map(Arc::new))
    }
}

/// What was answered under a key.
#[derive(Serialize, Deserialize)]
pub(super) struct AnswerRow {
    request: [u8; 16],
    body: String,
    since: i64,
    /// The same as a mark.
    #[serde(default)]
    mark: Option<i64>,
}

impl AnswerRow {
    pub(super) fn new(answer: &Answer, clocks: Clocks) -> Self {
        Self {
            request: answer.request.0,
            body: answer.body.to_string(),
            since: clocks.wall(answer.since),
            mark: Some(clocks.lived.mark(answer.since)),
        }
    }

    pub(super) fn read(self, key: &str, lived: Lived) -> Result<Answer, Unreadable> {
        let key = crate::payment::IdempotencyKey::stored(key).ok_or(Unreadable)?;
        let by_wall = lived.past_by_wall(time(self.since)?);
        let since = self.mark.map_or(by_wall, |mark| lived.past(mark));
        Ok(Answer {
            key,
            request: Fingerprint(self.request),
            body: self.body.into(),
            since,
        })
    }
}

/// A message to the app.
#[derive(Serialize, Deserialize)]
pub(super) struct DeliveryRow {
    id: String,
    payment: u64,
    kind: String,
    body: String,
    created_at: i64,
    tries: u32,
    last_error: Option<String>,
    state: String,
    /// Since when it is in that state, or from when on it may be posted.
    at: i64,
    #[serde(default)]
    marks: Option<DeliveryMarks>,
    /// The payment's. A row of an older version has both codes in its body alone.
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    watch_code: Option<String>,
}

/// What is read of the body of a message where its row has no codes.
#[derive(Deserialize)]
struct Body {
    data: Codes,
}

#[derive(Deserialize)]
struct Codes {
    code: String,
    watch_code: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct DeliveryMarks {
    since: i64,
    at: i64,
    failed: Option<i64>,
    not_before: Option<i64>,
}

impl DeliveryRow {
    pub(super) fn new(delivery: &Delivery, clocks: Clocks) -> Self {
        let (DeliveryState::Due(at) | DeliveryState::Delivered(at) | DeliveryState::Failed(at)) =
            delivery.state;
        let mark = |moment| clocks.lived.mark(moment);
        Self {
            id: delivery.id.clone(),
            payment: delivery.payment,
            kind: delivery.kind.label().to_owned(),
            body: delivery.body.to_string(),
            created_at: delivery.created_at.as_millisecond(),
            tries: delivery.tries,
            last_error: delivery.last_error.clone(),
            state: delivery.state.label().to_owned(),
            at: clocks.wall(at),
            marks: Some(DeliveryMarks {
                since: mark(delivery.since),
                at: mark(at),
                failed: delivery.failed.map(mark),
                not_before: delivery.not_before.map(mark),
            }),
            code: Some(delivery.code.to_string()),
            watch_code: Some(delivery.watch_code.to_string()),
        }
    }

    pub(super) fn read(self, number: u64, lived: Lived) -> Result<Delivery, Unreadable> {
        let times = self.times(lived)?;
        let Codes { code, watch_code } = self.codes()?;
        let state = [
            DeliveryState::Due(times.due),
            DeliveryState::Delivered(times.past),
            DeliveryState::Failed(times.past),
        ];
        let kind = [Kind::Completed, Kind::PollingEnded];
        Ok(Delivery {
            number,
            payment: self.payment,
            code: code.parse().map_err(|_| Unreadable)?,
            watch_code: watch_code.parse().map_err(|_| Unreadable)?,
            kind: kind
                .into_iter()
                .find(|kind| kind.label() == self.kind)
                .ok_or(Unreadable)?,
            since: times.since,
            created_at: time(self.created_at)?,
            tries: self.tries,
            failed: times.failed,
            not_before: times.not_before,
            state: state
                .into_iter()
                .find(|state| state.label() == self.state)
                .ok_or(Unreadable)?,
            id: self.id,
            body: self.body.into(),
            last_error: self.last_error,
        })
    }

    fn codes(&self) -> Result<Codes, Unreadable> {
        if let (Some(code), Some(watch_code)) = (self.code.clone(), self.watch_code.clone()) {
            return Ok(Codes { code, watch_code });
        }
        let Body { data } = serde_json::from_str(&self.body).map_err(|_| Unreadable)?;
        Ok(data)
    }

    fn times(&self, lived: Lived) -> Result<DeliveryTimes, Unreadable> {
        let (at, created_at) = (time(self.at)?, time(self.created_at)?);
        let Some(marks) = self.marks else {
            // No older than its number of steps, and never longer to wait than one, whatever the clock said.
            let most = LONGEST_STEP.saturating_mul(self.tries);
            let age = Duration::try_from(at.duration_since(created_at))
                .unwrap_or_default()
                .min(most);
            let due = lived.due_by_wall(age.min(LONGEST_STEP), at);
            return Ok(DeliveryTimes {
                due,
                past: lived.past_by_wall(at),
                since: due.checked_sub(age).unwrap_or(due),
                // When is not known: as late as can be.
                failed: (self.tries > 0).then(|| lived.opened()),
                not_before: None,
            });
        };
        // How the wall clock showed any other moment when this was written.
        let wall = |mark: i64| {
            let milliseconds = self.at.saturating_add(mark.saturating_sub(marks.at));
            Timestamp::from_millisecond(milliseconds).unwrap_or(at)
        };
        Ok(DeliveryTimes {
            due: lived.due(marks.at, at),
            past: lived.past(marks.at),
            since: lived.past(marks.since),
            failed: marks.failed.map(|mark| lived.past(mark)),
            not_before: marks.not_before.map(|mark| lived.due(mark, wall(mark))),
        })
    }
}

/// The moments of a row in this process.
struct DeliveryTimes {
    /// When it is due, if it is.
    due: Instant,
    /// Since when it is in its state otherwise.
    past: Instant,
    since: Instant,
    failed: Option<Instant>,
    not_before: Option<Instant>,
}

/// As it is written.
pub(super) fn bytes(row: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Texts and numbers, into memory: that cannot fail.
    let _ = serde_json::to_writer(&mut bytes, row);
    bytes
}

/// As it was written.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|_| Unreadable),
        _ => Err(Unreadable),
    }
}

/// From what the gateway said, as it was when it came.
fn report(body: String) -> Result<Report, Unreadable> {
    let object = json::parse_object(body.as_bytes()).map_err(|_| Unreadable)?;
    let field = |name| json::get(&object, name);
    let status = field("status")
        .and_then(Json::as_text)
        .map(Status::from)
        .ok_or(Unreadable)?;
    Ok(Report {
        status,
        fingerprint: json::fingerprint(&body),
        body: body.into(),
    })
}

fn time(milliseconds: i64) -> Result<Timestamp, Unreadable> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests;

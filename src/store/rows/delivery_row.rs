//! The row of a message to the app.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::columns::{Clocks, Unreadable, time};
use super::lived::Lived;
use crate::clock::Instant;
use crate::store::model::{Delivery, DeliveryState, Kind};

/// The longest step from one try of a message to the next, with jitter: how long a row that an older version wrote, which
/// says it by the wall clock alone, may be believed.
const LONGEST_STEP: Duration = Duration::from_secs(5 * 3600 + 1800);

/// A message to the app.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct DeliveryRow {
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

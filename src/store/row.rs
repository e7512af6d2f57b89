//! Facts as bytes: a version byte of ours, and JSON.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::answers::Answer;
use super::outbox::{Delivery, Kind, State};
use super::{Record, Seen, Tracked};
use crate::clock::{self, Instant};
use crate::json::{self, Json};
use crate::payment::{Amount, Fingerprint, Payment, Report, Status};

/// A message is never due later than this from now on: a clock that was set back makes nothing wait for years.
const LATEST: Duration = Duration::from_secs(3 * 24 * 3600);

/// Of every row. Another one is another way to read what follows.
const VERSION: u8 = 1;

/// Not a row of ours, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of the store cannot be read")]
pub(super) struct Unreadable;

/// A payment that was started here, and the last that is known of it.
#[derive(Serialize, Deserialize)]
pub(super) struct PaymentRow {
    code: String,
    watch_code: String,
    amount: u64,
    started_at: i64,
    /// What the gateway told last.
    report: Option<String>,
    asked_at: Option<i64>,
    #[serde(default)]
    polling_ended: bool,
}

impl PaymentRow {
    pub(super) fn new(tracked: &Tracked, seen: Option<&Seen>, polling_ended: bool) -> Self {
        Self {
            code: tracked.payment.code.to_string(),
            watch_code: tracked.payment.watch_code.to_string(),
            amount: tracked.payment.amount.value(),
            started_at: tracked.started_at.as_millisecond(),
            report: seen.map(|seen| seen.report.body.to_string()),
            asked_at: seen.map(|seen| clock::wall_at(seen.asked).as_millisecond()),
            polling_ended,
        }
    }

    pub(super) fn read(self, number: u64) -> Result<Record, Unreadable> {
        let payment = Payment {
            code: self.code.parse().map_err(|_| Unreadable)?,
            watch_code: self.watch_code.parse().map_err(|_| Unreadable)?,
            amount: Amount::new(self.amount),
        };
        let started_at = time(self.started_at)?;
        let tracked = Arc::new(Tracked { number, payment, since: past(started_at), started_at });
        let seen = match self.report {
            None => None,
            Some(body) => {
                let asked = time(self.asked_at.ok_or(Unreadable)?)?;
                Some(Seen { report: Arc::new(report(body)?), asked: past(asked) })
            }
        };
        Ok(Record { tracked: Some(tracked), seen, polling_ended: self.polling_ended })
    }
}

/// A change, as the journal has it.
#[derive(Serialize, Deserialize)]
pub(super) struct ChangeRow {
    pub(super) payment: u64,
    report: Option<String>,
}

impl ChangeRow {
    pub(super) fn new(tracked: &Tracked, report: Option<&Report>) -> Self {
        Self { payment: tracked.number, report: report.map(|report| report.body.to_string()) }
    }

    pub(super) fn report(self) -> Result<Option<Arc<Report>>, Unreadable> {
        self.report.map(report).transpose().map(|report| report.map(Arc::new))
    }
}

/// What was answered under a key.
#[derive(Serialize, Deserialize)]
pub(super) struct AnswerRow {
    request: [u8; 16],
    body: String,
    since: i64,
}

impl AnswerRow {
    pub(super) fn new(answer: &Answer) -> Self {
        let since = clock::wall_at(answer.since).as_millisecond();
        Self { request: answer.request.0, body: answer.body.to_string(), since }
    }

    pub(super) fn read(self, key: &str) -> Result<Answer, Unreadable> {
        let key = crate::payment::IdempotencyKey::stored(key).ok_or(Unreadable)?;
        let since = past(time(self.since)?);
        Ok(Answer { key, request: Fingerprint(self.request), body: self.body.into(), since })
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
}

impl DeliveryRow {
    pub(super) fn new(delivery: &Delivery) -> Self {
        let (State::Due(at) | State::Delivered(at) | State::Failed(at)) = delivery.state;
        Self {
            id: delivery.id.clone(),
            payment: delivery.payment,
            kind: delivery.kind.label().to_owned(),
            body: delivery.body.to_string(),
            created_at: delivery.created_at.as_millisecond(),
            tries: delivery.tries,
            last_error: delivery.last_error.clone(),
            state: delivery.state.label().to_owned(),
            at: clock::wall_at(at).as_millisecond(),
        }
    }

    pub(super) fn read(self, number: u64) -> Result<Delivery, Unreadable> {
        let (at, created_at) = (time(self.at)?, time(self.created_at)?);
        let state = [State::Due(moment(at)), State::Delivered(past(at)), State::Failed(past(at))];
        let kind = [Kind::Completed, Kind::PollingEnded];
        Ok(Delivery {
            number,
            id: self.id,
            payment: self.payment,
            kind: kind.into_iter().find(|kind| kind.label() == self.kind).ok_or(Unreadable)?,
            body: self.body.into(),
            since: past(created_at),
            created_at,
            tries: self.tries,
            last_error: self.last_error,
            state: state.into_iter().find(|state| state.label() == self.state).ok_or(Unreadable)?,
        })
    }
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
    let status = field("status").and_then(Json::as_text).map(Status::from).ok_or(Unreadable)?;
    Ok(Report { status, fingerprint: json::fingerprint(&body), body: body.into() })
}

fn time(milliseconds: i64) -> Result<Timestamp, Unreadable> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| Unreadable)
}

/// That moment on the steady clock; of those to come none later than [`LATEST`].
fn moment(time: Timestamp) -> Instant {
    let (now, wall) = (clock::now(), clock::wall());
    match Duration::try_from(wall.duration_since(time)) {
        Ok(ago) => now.checked_sub(ago).unwrap_or(now),
        Err(_) => now + Duration::try_from(time.duration_since(wall)).unwrap_or_default().min(LATEST),
    }
}

/// The same of what has been: a wall clock that was set back meanwhile makes nothing younger than now.
fn past(time: Timestamp) -> Instant {
    moment(time).min(clock::now())
}

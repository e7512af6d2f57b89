//! Events as bytes: a version byte of ours, and JSON.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::columns::{Clocks, Unreadable, time};
use super::lived::Lived;
use crate::clock::Instant;
use crate::json::{self, Json};
use crate::payment::{
    Amount, Asked, Fields, Fingerprint, Payment, Reference, Report, Status, WatchCode,
};
use crate::store::event::PaymentState;
use crate::store::model::{
    Answer, Change, Completion, Fate, Observation, Record, StartBody, StoredPayment,
};
use crate::store::state::paid::{self, PaidReference};

/// A payment that was started here, and the last that is known of it.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct PaymentRow {
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
    /// Not there in a row of an older version.
    #[serde(default)]
    fields: Option<FieldsRow>,
    #[serde(default)]
    reference: Option<String>,
    /// The gateway's answer to its start, where there is a reference.
    #[serde(default)]
    answer: Option<String>,
    /// Not there in a row of an older version: then the payment was seen to be completed at `asked_at`.
    #[serde(default)]
    completed_seen_at: Option<i64>,
    #[serde(default)]
    paid_twice_with: Option<String>,
    /// Only what the reference still needs is there.
    #[serde(default)]
    only_reference: bool,
}

/// What a payment's row says.
pub(super) enum PaymentRead {
    /// A payment; if it is completed it is kept for its time from that moment on.
    Payment(Record, Option<Completion>, Instant),
    /// What the reference of a payment still needs that has left the lists.
    Paid(Reference, PaidReference),
}

/// The meaning of the fields that a start forwarded; empty if there were none.
type FieldsRow = Vec<u8>;

fn fields_row(fields: Fields) -> Option<FieldsRow> {
    match fields {
        Fields::Unknown => None,
        Fields::None => Some(Vec::new()),
        Fields::Some(Fingerprint(fingerprint)) => Some(fingerprint.to_vec()),
    }
}

fn fields(row: Option<FieldsRow>) -> Result<Fields, Unreadable> {
    Ok(match row {
        None => Fields::Unknown,
        Some(none) if none.is_empty() => Fields::None,
        Some(bytes) => Fields::Some(Fingerprint(bytes.try_into().map_err(|_| Unreadable)?)),
    })
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct PaymentMarks {
    since: i64,
    asked: Option<i64>,
}

impl PaymentRow {
    pub(super) fn new(state: PaymentState<'_>, clocks: Clocks) -> Self {
        let PaymentState {
            stored,
            observation,
            polling_ended,
            completion,
        } = state;
        let referenced = stored.payment.referenced.as_ref();
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
            fields: fields_row(stored.payment.fields),
            reference: referenced.map(|(reference, _)| reference.to_string()),
            answer: referenced.map(|(_, object)| object.to_string()),
            completed_seen_at: completion.map(|completion| completion.seen_at.as_millisecond()),
            paid_twice_with: completion
                .and_then(|completion| completion.paid_twice_with.as_ref())
                .map(ToString::to_string),
            only_reference: false,
        }
    }

    /// Returns what is left of the row when the payment leaves the lists, and its reference stays.
    pub(super) fn only_reference(self) -> Result<Self, Unreadable> {
        let report = self.report.map(report).transpose()?;
        Ok(Self {
            report: report.map(|report| paid::outline(&report).body.to_string()),
            answer: None,
            fields: None,
            paid_twice_with: None,
            only_reference: true,
            ..self
        })
    }

    pub(super) fn read(self, number: u64, lived: Lived) -> Result<PaymentRead, Unreadable> {
        let asked = self.asked(lived)?;
        let watch_code = self.watch_code.parse().map_err(|_| Unreadable)?;
        let amount = Amount::new(self.amount);
        let reference = self.reference.as_deref().map(Reference::stored);
        let reference = reference.map(|reference| reference.ok_or(Unreadable));
        let reference = reference.transpose()?;
        let report = self.report.map(report).transpose()?.map(Arc::new);
        if self.only_reference {
            let (_, finished) = asked.ok_or(Unreadable)?;
            let fate = Fate {
                watch_code,
                amount,
                report,
            };
            let paid = PaidReference {
                number,
                fate,
                finished,
            };
            return Ok(PaymentRead::Paid(reference.ok_or(Unreadable)?, paid));
        }
        let started_at = time(self.started_at)?;
        let since = self.marks.map_or_else(
            || lived.past_by_wall(started_at),
            |marks| lived.past(marks.since),
        );
        let payment = Payment {
            code: self.code.parse().map_err(|_| Unreadable)?,
            watch_code,
            amount,
            fields: fields(self.fields)?,
            referenced: reference.zip(self.answer.map(Into::into)),
        };
        let is_final = report
            .as_ref()
            .is_some_and(|report| report.status.is_final());
        let seen_at = self
            .completed_seen_at
            .or(self.asked_at)
            .filter(|_| is_final);
        let paid_twice_with = optional_code(self.paid_twice_with)?;
        let completion = seen_at.map(|seen_at| {
            Ok(Completion {
                seen_at: time(seen_at)?,
                paid_twice_with,
            })
        });
        let observation = report.zip(asked);
        let record = Record {
            stored: Some(Arc::new(StoredPayment {
                number,
                payment,
                since,
                started_at,
            })),
            observation: observation.map(|(report, (asked, _))| Observation { report, asked }),
            polling_ended: self.polling_ended,
            followed_since: None,
        };
        let finished = asked.map_or(since, |(_, finished)| finished);
        Ok(PaymentRead::Payment(
            record,
            completion.transpose()?,
            finished,
        ))
    }

    /// Returns when the gateway was asked for the report, and from when on a completed payment is kept for its time.
    fn asked(&self, lived: Lived) -> Result<Option<(Instant, Instant)>, Unreadable> {
        if self.report.is_none() {
            return Ok(None);
        }
        // An answer is as old as either clock says: no wall clock that is behind makes it fresh again.
        let by_wall = lived.past_by_wall(time(self.asked_at.ok_or(Unreadable)?)?);
        let mark = self.marks.and_then(|marks| marks.asked);
        let by_lived = mark.map(|mark| lived.past(mark));
        let asked = by_lived.map_or(by_wall, |by_lived| by_lived.min(by_wall));
        Ok(Some((asked, by_lived.unwrap_or(by_wall))))
    }
}

/// A change, as the journal has it.
#[derive(Serialize, Deserialize)]
pub(super) struct ChangeRow {
    pub(super) payment: u64,
    report: Option<String>,
    #[serde(default)]
    paid_twice_with: Option<String>,
}

fn optional_code(text: Option<String>) -> Result<Option<WatchCode>, Unreadable> {
    text.map(|text| text.parse().map_err(|_| Unreadable))
        .transpose()
}

impl ChangeRow {
    pub(super) fn new(change: &Change) -> Self {
        let report = change.report.as_ref();
        Self {
            payment: change.stored.number,
            report: report.map(|report| report.body.to_string()),
            paid_twice_with: change.paid_twice_with.as_ref().map(ToString::to_string),
        }
    }

    /// Returns the report, and the watch code of the payment that was completed before.
    pub(super) fn read(self) -> Result<(Option<Arc<Report>>, Option<WatchCode>), Unreadable> {
        let report = self.report.map(report).transpose()?;
        Ok((report.map(Arc::new), optional_code(self.paid_twice_with)?))
    }
}

/// What was answered under a key.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct AnswerRow {
    request: [u8; 16],
    /// Whether the redirect is no part of what was asked for: in a row of an older version it is.
    #[serde(default)]
    redirect_apart: bool,
    body: String,
    since: i64,
    /// The same as a mark.
    #[serde(default)]
    mark: Option<i64>,
}

impl AnswerRow {
    pub(super) fn new(answer: &Answer, clocks: Clocks) -> Self {
        let (Asked::Now(request) | Asked::Older(request)) = answer.request;
        Self {
            request: request.0,
            redirect_apart: matches!(answer.request, Asked::Now(_)),
            body: answer.body.object.to_string(),
            since: clocks.wall(answer.since),
            mark: Some(clocks.lived.mark(answer.since)),
        }
    }

    pub(super) fn read(self, key: &str, lived: Lived) -> Result<Answer, Unreadable> {
        let key = crate::payment::IdempotencyKey::stored(key).ok_or(Unreadable)?;
        let by_wall = lived.past_by_wall(time(self.since)?);
        let since = self.mark.map_or(by_wall, |mark| lived.past(mark));
        let request = Fingerprint(self.request);
        Ok(Answer {
            key,
            request: if self.redirect_apart {
                Asked::Now(request)
            } else {
                Asked::Older(request)
            },
            body: start_body(&self.body)?,
            since,
        })
    }
}

/// Reads what a start was answered with. An older version kept it with its `pay_url`.
fn start_body(body: &str) -> Result<StartBody, Unreadable> {
    let mut object = json::parse_object(body.as_bytes()).map_err(|_| Unreadable)?;
    object.retain(|(name, _)| name != "pay_url");
    let text = |name| {
        json::get(&object, name)
            .and_then(Json::as_text)
            .ok_or(Unreadable)
    };
    Ok(StartBody {
        code: text("code")?.parse().map_err(|_| Unreadable)?,
        watch_code: text("watch_code")?.parse().map_err(|_| Unreadable)?,
        object: Json::Object(object).to_string().into(),
    })
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

//! How many records there are, kept as they come and go.

use std::collections::BTreeMap;

use super::weight;
use crate::payment::Status;
use crate::store::model::Record;

/// The number of records by their last known status, what they weigh, and how many were let go.
pub(in crate::store) struct Counts {
    /// The app gets messages.
    has_webhook: bool,
    by_status: BTreeMap<&'static str, i64>,
    bytes: i64,
    /// Records that were let go for want of room.
    pub(in crate::store) let_go: u64,
}

impl Counts {
    pub(super) fn new(has_webhook: bool) -> Self {
        Self {
            has_webhook,
            by_status: Status::LABELS.map(|label| (label, 0)).into(),
            bytes: 0,
            let_go: 0,
        }
    }

    /// Returns how many records have each last known status, by its label.
    pub(in crate::store) fn by_status(&self) -> Vec<(&'static str, u64)> {
        let count = |(status, count): (&&'static str, &i64)| {
            (*status, u64::try_from(*count).unwrap_or_default())
        };
        self.by_status.iter().map(count).collect()
    }

    /// Returns the weight of all records.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.try_into().unwrap_or_default()
    }

    /// Adds a record, or removes it with -1.
    pub(super) fn add(&mut self, record: &Record, by: i64) {
        // The guide's first status, until the gateway was asked.
        let status = record
            .observation
            .as_ref()
            .map_or(Status::Created.label(), |observation| {
                observation.report.status.label()
            });
        *self.by_status.entry(status).or_default() += by;
        self.bytes +=
            by * i64::try_from(weight::record(record, self.has_webhook)).unwrap_or(i64::MAX);
    }
}

//! What the answers are made of.

use jiff::Timestamp;
use prometheus_client::registry::Registry;

use super::history::History;
use super::snapshot::Rooms;
use crate::clock::Instant;
use crate::readiness::Readiness;

/// The rooms, and what is known of the program beside them.
pub(super) struct Sources {
    pub(super) readiness: Readiness,
    pub(super) registry: Registry,
    pub(super) rooms: Rooms,
    pub(super) history: History,
    /// When the program began.
    pub(super) since: Instant,
    /// The same moment, for people.
    pub(super) started_at: Timestamp,
}

//! How a row stands in a file: a version byte of ours, and JSON.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lived::Lived;
use crate::clock::{Instant, Reading};

/// Of every row. Another one is another way to read what follows.
const VERSION: u8 = 1;

/// Not a row of ours, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of the store cannot be read")]
pub(in crate::store) struct Unreadable;

/// The two clocks by which a row is written: each moment is in it as the wall clock shows it, for people and for what
/// has passed between two processes, and as a mark of lived time. Rows of older versions have no marks.
#[derive(Clone, Copy)]
pub(in crate::store) struct Clocks {
    pub(in crate::store) lived: Lived,
    /// When the event was handed over to be written.
    pub(in crate::store) reading: Reading,
}

impl Clocks {
    /// Where one clock is the same for all who read and write: marks are what it shows.
    pub(in crate::store) fn of_one(reading: Reading) -> Self {
        Self {
            lived: Lived::new(reading, reading.wall.as_millisecond()),
            reading,
        }
    }

    pub(in crate::store) fn wall(&self, moment: Instant) -> i64 {
        self.reading.wall_at(moment).as_millisecond()
    }
}

/// As it is written.
pub(in crate::store) fn bytes(row: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Texts and numbers, into memory: that cannot fail.
    let _ = serde_json::to_writer(&mut bytes, row);
    bytes
}

/// As it was written.
pub(in crate::store) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|_| Unreadable),
        _ => Err(Unreadable),
    }
}

pub(in crate::store) fn time(milliseconds: i64) -> Result<Timestamp, Unreadable> {
    Timestamp::from_millisecond(milliseconds).map_err(|_| Unreadable)
}

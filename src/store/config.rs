//! The settings of the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::place::Place;
use crate::size::ByteSize;
use crate::text::FilePath;
use crate::{clock, text};

/// `[store]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Where it is kept.
    #[serde(with = "text::required")]
    pub(crate) url: Place,
    /// Payments are kept this long after they were completed.
    #[serde(with = "clock::text")]
    pub(crate) keep_for: Duration,
    /// How much memory all of it may take.
    #[serde(with = "text::required")]
    pub(crate) max_bytes: ByteSize,
    /// The password of a database, where its URL has none.
    #[serde(with = "text")]
    pub(crate) password_file: Option<FilePath>,
    /// The roots that a database's certificate is checked against, instead of the built-in ones.
    #[serde(with = "text")]
    pub(crate) ca_file: Option<FilePath>,
    /// Whether a database on another machine that has no TLS may be used.
    pub(crate) allow_plain_tcp: bool,
    /// The time limit for one statement of a database.
    #[serde(with = "clock::text")]
    pub(crate) timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: Place::Memory,
            keep_for: Duration::from_secs(24 * 3600),
            max_bytes: ByteSize::mebibytes(128),
            password_file: None,
            ca_file: None,
            allow_plain_tcp: false,
            timeout: Duration::from_secs(2),
        }
    }
}

//! `[webhook]` of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::send::Target;
use crate::clock;
use crate::text::{self, FilePath};

/// `[webhook]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Where messages about payments are posted; without it, none are.
    #[serde(with = "text")]
    pub(crate) url: Option<Target>,
    /// The keys that sign, one a line. Required with `url`.
    #[serde(with = "text")]
    pub(crate) secret_file: Option<FilePath>,
    /// For one try.
    #[serde(with = "clock::text")]
    pub(crate) timeout: Duration,
    /// PEM roots that take the place of the built-in ones, for https.
    #[serde(with = "text")]
    pub(crate) ca_file: Option<FilePath>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            secret_file: None,
            timeout: Duration::from_secs(15),
            ca_file: None,
        }
    }
}

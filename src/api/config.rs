//! `[listen]` of the configuration.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::server::{Address, Hosts, Limits, ListenAddr};
use crate::text::{self, FilePath};

/// The default of `listen.address`, which `dev` uses too.
pub(crate) const DEFAULT_ADDRESS: Address = Address::Localhost(8700);

/// `[listen]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Where the app finds us: at least one place.
    #[serde(with = "text::one_or_more")]
    pub(crate) address: Vec<ListenAddr>,
    /// Bearer tokens, one a line. Without it everybody who reaches the address may start payments.
    #[serde(with = "text")]
    pub(crate) token_file: Option<FilePath>,
    /// Connections at once.
    pub(crate) max_connections: NonZeroU32,
    /// Largest request body.
    pub(crate) max_body_bytes: NonZeroUsize,
    /// To the end of a request's head.
    #[serde(with = "clock::text")]
    pub(crate) header_timeout: Duration,
    /// To the end of its body.
    #[serde(with = "clock::text")]
    pub(crate) body_timeout: Duration,
    /// Between two requests.
    #[serde(with = "clock::text")]
    pub(crate) idle_timeout: Duration,
    /// The longest that a shutdown takes.
    #[serde(with = "clock::text")]
    pub(crate) drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: vec![ListenAddr::Tcp(DEFAULT_ADDRESS)],
            token_file: None,
            #[expect(clippy::unwrap_used, reason = "4096 is not zero")]
            max_connections: NonZeroU32::new(4096).unwrap(),
            #[expect(clippy::unwrap_used, reason = "16384 is not zero")]
            max_body_bytes: NonZeroUsize::new(16384).unwrap(),
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(15),
        }
    }
}

impl Config {
    /// What the listener enforces.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_connections: usize::try_from(self.max_connections.get()).unwrap_or(usize::MAX),
            header_timeout: self.header_timeout,
            idle_timeout: self.idle_timeout,
            hosts: Hosts::One,
        }
    }
}

//! The files that may change while the program runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::client::Network;
use crate::clock;
use crate::file::{Reload, Settle};
use crate::readiness::Latch;

/// How often the files are looked at; what is new is taken at the second look.
const RELOAD_EVERY: Duration = Duration::from_secs(1);
/// How often a secret that is still missing is logged.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// The files that may change while we run.
pub(super) struct Files {
    secret: Arc<dyn Reload>,
    /// Held while there is no secret.
    latch: Option<Latch>,
    others: Vec<Arc<dyn Reload>>,
    missing_for: Duration,
}

impl Files {
    /// `latch` is held while there is no secret.
    pub(super) fn new(secret: Arc<dyn Reload>, latch: Latch, others: Vec<Arc<dyn Reload>>) -> Self {
        let mut files = Self {
            secret,
            latch: Some(latch),
            others,
            missing_for: Duration::ZERO,
        };
        files.release();
        files
    }

    /// Looks every few seconds, and at once when asked to. Never returns.
    pub(super) async fn keep_reloading(&mut self, now: &Notify) {
        loop {
            // A time-out is the usual case here.
            let settle = match clock::timeout(RELOAD_EVERY, now.notified()).await {
                Ok(()) => {
                    tracing::info!("reading the files again");
                    Settle::Briefly
                }
                Err(_) => Settle::TwoReads,
            };
            self.reload(settle).await;
        }
    }

    async fn reload(&mut self, settle: Settle) {
        let all: Vec<_> = self.others.iter().chain([&self.secret]).cloned().collect();
        // A file may lie on a slow mount: requests do not wait for it.
        let reloaded = tokio::task::spawn_blocking(move || {
            for file in all {
                file.reload(settle);
            }
        })
        .await;
        if reloaded.is_err() {
            tracing::error!("looking at the files crashed");
        }
        self.release();
    }

    /// Drops the latch when there is a secret, and logs from time to time that there is none.
    fn release(&mut self) {
        if self.latch.is_none() {
            return;
        }
        if self.secret.is_loaded() {
            self.latch = None;
            return;
        }
        if self
            .missing_for
            .as_secs()
            .is_multiple_of(TELL_EVERY.as_secs())
        {
            tracing::warn!(
                "merchant.secret_file is missing or cannot be used: not ready, and the gateway is asked nothing: secret_unavailable"
            );
        }
        self.missing_for += RELOAD_EVERY;
    }
}

impl Reload for Network {
    fn is_loaded(&self) -> bool {
        true
    }

    fn reload(&self, settle: Settle) -> bool {
        Network::reload(self, settle)
    }
}

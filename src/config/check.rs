//! Checks what no value shows alone: what is missing, what does not go together, and what the files hold.

mod listen;
mod network;
mod places;
mod remarks;
mod secret;
mod store;
mod webhook;

use std::sync::Arc;

use super::environment::Environment;
use super::explain::Explained;
use super::reading::{Diagnostic, Reading, help_of};
use super::sections::Config;
use crate::api::Tokens;
use crate::client::Network;
use crate::file::ReloadableFile;
use crate::gateway::BaseUrl;
use crate::secret::Secret;
use crate::server::InheritedSocket;
use crate::size::ByteSize;

/// A configuration without errors, and what its files hold.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) gateway_url: BaseUrl,
    pub(crate) secret: Secret,
    pub(crate) tokens: Option<Arc<ReloadableFile<Tokens>>>,
    pub(crate) network: Arc<Network>,
    /// Posts webhooks to the app, where `webhook.url` is set.
    pub(crate) webhook: Option<crate::webhook::Sender>,
    /// The inherited sockets that `listen.address` names, as far as they are there.
    pub(crate) inherited: Vec<InheritedSocket>,
    pub(crate) explained: Explained,
}

impl Reading {
    /// Checks everything that was read, and puts it together. With `looks` also what `run` would open.
    ///
    /// # Errors
    /// Returns all diagnostics at once, in the order of their keys.
    pub(super) fn finish(
        mut self,
        environment: &Environment,
        looks: bool,
    ) -> Result<Loaded, Vec<Diagnostic>> {
        if self.is_bad("--config") {
            // Without the file everything that it may have would be reported as missing.
            return Err(self.diagnostics);
        }
        let mut config = self.extract();
        let gateway_url = self.check_gateway(&config);
        let secret = self.check_secret(&config);
        let inherited = self.check_listen_addrs(&config, environment);
        let tokens = self.check_tokens(&config, &inherited);
        let network = self.check_network(&config.gateway, gateway_url.as_ref());
        let webhook = self.check_webhook(&config);
        self.check_store(&config);
        self.check_numbers(&config);
        self.check_admin_addr(&config);
        self.remark(&config);
        if looks {
            self.look_at_places(&config);
        }
        match (gateway_url, secret, tokens, network, webhook) {
            (Some(gateway_url), Some(secret), Some(tokens), Some(network), Some(webhook))
                if self.diagnostics.is_empty() =>
            {
                config.merchant.is_inline = secret.is_inline();
                let explained = Explained::new(
                    &self.defaults,
                    &self.found,
                    &config,
                    &secret,
                    &inherited,
                    self.file.as_deref(),
                    self.remarks,
                );
                Ok(Loaded {
                    config,
                    gateway_url,
                    secret,
                    tokens,
                    network,
                    webhook,
                    inherited,
                    explained,
                })
            }
            _ => {
                self.diagnostics.sort_by(|a, b| a.key.cmp(&b.key));
                Err(self.diagnostics)
            }
        }
    }

    fn check_numbers(&mut self, config: &Config) {
        const A_YEAR: f64 = 31_536_000.0;
        const SMALLEST_STORE: ByteSize = ByteSize::kibibytes(16);
        if config.start.min_amount > config.start.max_amount {
            let key = "start.min_amount";
            let what = "it is larger than start.max_amount";
            self.report(key, self.place(key), what, "make it the smaller one");
        }
        if f64::from(config.start.burst.get()) / config.start.rate.0 > A_YEAR {
            let key = "start.burst";
            let what = "at start.rate it takes longer than a year to come back";
            self.report(key, self.place(key), what, help_of(key));
        }
        if config.store.max_bytes < SMALLEST_STORE {
            let key = "store.max_bytes";
            let what = format!("it is less than {SMALLEST_STORE}, which a few payments take");
            self.report(key, self.place(key), what, help_of(key));
        }
        if config.watch.poll_rate.get() > 10_000 {
            let key = "watch.poll_rate";
            let what = "more than 10000 a second";
            self.report(key, self.place(key), what, help_of(key));
        }
    }
}

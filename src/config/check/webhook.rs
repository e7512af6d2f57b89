//! `[webhook]`: its URL, the keys to sign with, and what is needed to reach it.

use std::sync::Arc;

use super::super::reading::{Reading, help_of};
use super::super::sections::Config;
use crate::client::{self, Network, Roots, Side, Target};
use crate::webhook::{Keys, Sender};

const URL: &str = "webhook.url";
const FILE: &str = "webhook.secret_file";
const ROOTS: &str = "webhook.ca_file";

impl Reading {
    /// Returns `Some(None)` where no webhooks are configured.
    pub(super) fn check_webhook(&mut self, config: &Config) -> Option<Option<Sender>> {
        let webhook = &config.webhook;
        let (url_is_bad, file_is_bad) = (self.is_bad(URL), self.is_bad(FILE));
        let has_url = webhook.url.is_some() || url_is_bad;
        if !has_url {
            let files = [(FILE, &webhook.secret_file), (ROOTS, &webhook.ca_file)];
            for (key, _) in files.into_iter().filter(|(_, file)| file.is_some()) {
                let what = "it is set, and webhook.url is not";
                let help = "set webhook.url too, or remove it";
                self.report(key, self.place(key), what, help);
            }
        }
        let help = "write one key a line, for example with: tillgate webhook secret";
        if has_url && webhook.secret_file.is_none() && !file_is_bad {
            let what = "webhook.url is set, and there is no key to sign with";
            self.report(FILE, self.unset(FILE), what, help);
        }
        let file = webhook.secret_file.as_ref().filter(|_| has_url);
        let keys = self.open_file(FILE, file, Keys::parse, help);
        let help = "give a file with the root certificate of the app's server as PEM";
        let roots = self.open_file(ROOTS, webhook.ca_file.as_ref(), client::roots, help)?;
        let Some(url) = &webhook.url else {
            return (!has_url && !file_is_bad).then_some(None);
        };
        let network = Arc::new(self.check_app(config, Target::new(url.uri()), roots)?);
        let keys = Arc::new(keys??);
        let sender = Sender::new(url.clone(), keys, network, webhook.timeout);
        Some(Some(sender))
    }

    /// The way to the app.
    fn check_app(
        &mut self,
        config: &Config,
        target: Result<Target, String>,
        roots: Roots,
    ) -> Option<Network> {
        let timeout = config.gateway.connect_timeout;
        let network = target
            .and_then(|target| Network::new(Side::Webhook, target, None, roots, None, timeout));
        match network {
            Ok(network) => Some(network),
            Err(what) => {
                self.report(URL, self.place(URL), what, help_of(URL));
                None
            }
        }
    }
}

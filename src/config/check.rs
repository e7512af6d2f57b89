//! What no value shows alone: what is missing, what does not go together, what the files hold.

use std::sync::Arc;

use super::explain::Explained;
use super::load::{Environment, PREFIX, Reading, SECRET, mend_of};
use super::{Config, Fault, Loaded};
use crate::api::Tokens;
use crate::client::Network;
use crate::courier::{Courier, Keys};
use crate::file::Watched;
use crate::gateway::BaseUrl;
use crate::secret::Secret;
use crate::serve::{Entrance, Passed, SocketFile};

impl Reading {
    /// Everything that was read, checked and put together.
    ///
    /// # Errors
    /// All faults at once, in the order of their keys.
    pub(super) fn finish(mut self, environment: &Environment) -> Result<Loaded, Vec<Fault>> {
        if self.faults.iter().any(|fault| fault.key == "--config") {
            // A file that says nothing would be blamed for everything that is missing.
            return Err(self.faults);
        }
        let mut config = self.extract();
        let gateway_url = self.check_gateway(&config);
        let secret = self.check_secret(&config);
        let passed = self.check_entrance(&config, environment);
        let tokens = self.check_tokens(&config, passed.as_ref());
        let network =
            Network::open(config.gateway.ca_file.as_ref().map(|path| &*path.0), config.gateway.connect_timeout);
        let network = network.map(Arc::new).map_err(|what| {
            let place = self.place("gateway.ca_file");
            self.fault("gateway.ca_file", place, what, "give a file with the gateway's root certificate as PEM");
        });
        if config.start.min_amount > config.start.max_amount {
            let place = self.place("start.min_amount");
            self.fault("start.min_amount", place, "it is larger than start.max_amount", "make it the smaller one");
        }
        if f64::from(config.start.burst.get()) / config.start.rate.0 > 31_536_000.0 {
            let place = self.place("start.burst");
            let what = "at start.rate it takes longer than a year to come back";
            self.fault("start.burst", place, what, mend_of("start.burst"));
        }
        if config.watch.poll_rate.get() > 10_000 {
            let place = self.place("watch.poll_rate");
            self.fault("watch.poll_rate", place, "more than 10000 a second", mend_of("watch.poll_rate"));
        }
        if let (Some(Entrance::Tcp(api)), Some(admin)) = (&config.listen.address, config.admin.address)
            && *api == admin
            && admin.port() > 0
        {
            let place = self.place("admin.address");
            self.fault("admin.address", place, "it is the same as listen.address", "take another port, like 8701");
        }
        match (gateway_url, secret, tokens, network, self.check_webhook(&config)) {
            (Some(gateway_url), Some(secret), Some(tokens), Ok(network), Some(courier)) if self.faults.is_empty() => {
                config.merchant.is_inline = secret.is_inline();
                let file = self.file.as_deref();
                let explained = Explained::new(&self.defaults, &self.found, &config, &secret, passed.as_ref(), file);
                Ok(Loaded { config, gateway_url, secret, tokens, network, courier, passed, explained })
            }
            _ => {
                self.faults.sort_by(|a, b| a.key.cmp(&b.key));
                Err(self.faults)
            }
        }
    }

    /// Where the value of that key comes from.
    fn place(&self, key: &str) -> String {
        self.found.get(key).map_or_else(|| self.unset(key), |(_, origin)| origin.to_string())
    }

    /// Where a value that is not set could be set.
    fn unset(&self, key: &str) -> String {
        let variable = format!("{PREFIX}{}", key.replace('.', "__").to_uppercase());
        match &self.file {
            Some(path) => format!("not set in {}, and {variable} is not set", path.display()),
            None => format!("there is no configuration file, and {variable} is not set"),
        }
    }

    fn check_gateway(&mut self, config: &Config) -> Option<BaseUrl> {
        const KEY: &str = "gateway.url";
        if self.faults.iter().any(|fault| fault.key == KEY) {
            return None;
        }
        let Some(url) = &config.gateway.url else {
            let place = self.unset(KEY);
            self.fault(KEY, place, "it is required", mend_of(KEY));
            return None;
        };
        if url.is_exposed() && !config.gateway.allow_plain_http {
            let place = self.place(KEY);
            let what = "over plain http everyone on the way to the gateway can read the merchant secret and take the merchant's money";
            let mend = "use https://; or accept that risk with this line in [gateway]: allow_plain_http = true";
            self.fault(KEY, place, what, mend);
        }
        Some(url.clone())
    }

    fn check_secret(&mut self, config: &Config) -> Option<Secret> {
        const FILE: &str = "merchant.secret_file";
        match (&self.secret, &config.merchant.secret_file) {
            (None, None) => {
                if !self.faults.iter().any(|fault| fault.key.starts_with("merchant.")) {
                    let place = self.unset(FILE);
                    let mend = "name the file that holds it: secret_file = \"/run/secrets/merchant\"";
                    self.fault(FILE, place, "there is no merchant secret", mend);
                }
                None
            }
            (Some(_), Some(_)) => {
                let place = self.place(SECRET);
                let what = "merchant.secret_file is set too, and only one of the two may be";
                self.fault(SECRET, place, what, "remove it, and keep secret_file");
                None
            }
            (Some(secret), None) => match Secret::inline(secret) {
                Ok(secret) => Some(secret),
                Err(what) => {
                    let place = self.place(SECRET);
                    let mend = "copy it again from the gateway's /dev/api page, without quotes or spaces around it";
                    self.fault(SECRET, place, what, mend);
                    None
                }
            },
            (None, Some(path)) => match Secret::file(path) {
                Ok(secret) => Some(secret),
                Err(what) => {
                    let place = format!("{path}, named in {}", self.place(FILE));
                    self.fault(FILE, place, what, "put the secret, and nothing else, into that file");
                    None
                }
            },
        }
    }

    fn check_webhook(&mut self, config: &Config) -> Option<Option<Courier>> {
        const FILE: &str = "webhook.secret_file";
        let mend = "write one key a line, for example with: tillgate webhook-secret";
        if self.faults.iter().any(|fault| fault.key == "webhook.url") {
            return None;
        }
        match (&config.webhook.url, &config.webhook.secret_file) {
            (None, None) => Some(None),
            (None, Some(_)) => {
                let place = self.place(FILE);
                self.fault(FILE, place, "it is set, and webhook.url is not", "set webhook.url too, or remove it");
                None
            }
            (Some(_), None) => {
                let place = self.unset(FILE);
                self.fault(FILE, place, "webhook.url is set, and there is no key to sign with", mend);
                None
            }
            (Some(url), Some(path)) => match Watched::open(&path.0, Keys::parse) {
                Ok(file) if file.get().is_some() => {
                    let network = Network::open(None, config.gateway.connect_timeout).ok()?;
                    Some(Some(Courier::new(url.clone(), Arc::new(file), network, config.webhook.timeout)))
                }
                other => {
                    let what = other.err().unwrap_or_else(|| "the file is missing".to_owned());
                    let place = format!("{path}, named in {}", self.place(FILE));
                    self.fault(FILE, place, what, mend);
                    None
                }
            },
        }
    }

    /// The socket that `listen.address` names, if it names one that was passed and there is one.
    fn check_entrance(&mut self, config: &Config, environment: &Environment) -> Option<Passed> {
        const KEY: &str = "listen.address";
        match &config.listen.address {
            Some(Entrance::Passed(number)) => environment.passed(*number).unwrap_or_else(|what| {
                let place = self.place(KEY);
                self.fault(
                    KEY,
                    place,
                    what,
                    "name one that listens, or mend what passes it (systemd: the socket unit)",
                );
                None
            }),
            Some(Entrance::Unix(path)) => {
                if let Some(what) = SocketFile::in_the_way(path) {
                    let place = self.place(KEY);
                    self.fault(KEY, place, what, "remove it, or name another path");
                }
                None
            }
            Some(Entrance::Tcp(_)) | None => None,
        }
    }

    fn check_tokens(&mut self, config: &Config, passed: Option<&Passed>) -> Option<Option<Arc<Watched<Tokens>>>> {
        const FILE: &str = "listen.token_file";
        let Some(path) = &config.listen.token_file else {
            let exposed = match &config.listen.address {
                Some(Entrance::Tcp(address)) => !address.is_loopback(),
                Some(Entrance::Passed(_)) => passed.is_some_and(Passed::is_exposed),
                Some(Entrance::Unix(_)) | None => false,
            };
            if exposed {
                let place = self.place("listen.address");
                let what = "other machines can reach this address, and without tokens all of them could start payments";
                self.fault("listen.address", place, what, "listen on localhost:8700, or set listen.token_file");
            }
            return Some(None);
        };
        match Watched::open(&path.0, Tokens::parse) {
            Ok(file) if file.get().is_some() => Some(Some(Arc::new(file))),
            other => {
                let what = other.err().unwrap_or_else(|| "the file is missing".to_owned());
                let place = format!("{path}, named in {}", self.place(FILE));
                self.fault(FILE, place, what, "write one token a line, for example with: openssl rand -hex 32");
                None
            }
        }
    }
}

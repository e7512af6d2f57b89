//! What no value shows alone: what is missing, what does not go together, what the files hold.

mod network;

use std::sync::Arc;

use super::environment::{Environment, variable_of};
use super::explain::Explained;
use super::load::{Reading, SECRET, help_of};
use super::{Config, Diagnostic, Loaded};
use crate::api::Tokens;
use crate::client::{self, Network, Side, Target};
use crate::file::ReloadableFile;
use crate::secret::Secret;
use crate::server::{InheritedSocket, ListenAddr, SocketFile};
use crate::text::FilePath;
use crate::webhook::{Keys, Sender};

impl Reading {
    /// Everything that was read, checked and put together.
    ///
    /// # Errors
    /// All diagnostics at once, in the order of their keys.
    pub(super) fn finish(mut self, environment: &Environment) -> Result<Loaded, Vec<Diagnostic>> {
        if self
            .diagnostics
            .iter()
            .any(|diagnostic| diagnostic.key == "--config")
        {
            // A file that says nothing would be blamed for everything that is missing.
            return Err(self.diagnostics);
        }
        let mut config = self.extract();
        let gateway_url = self.check_gateway(&config);
        let secret = self.check_secret(&config);
        let inherited = self.check_listen_addr(&config, environment);
        let tokens = self.check_tokens(&config, inherited.as_ref());
        let network = self.check_network(&config.gateway, gateway_url.as_ref());
        if config.start.min_amount > config.start.max_amount {
            let place = self.place("start.min_amount");
            self.report(
                "start.min_amount",
                place,
                "it is larger than start.max_amount",
                "make it the smaller one",
            );
        }
        if f64::from(config.start.burst.get()) / config.start.rate.0 > 31_536_000.0 {
            let place = self.place("start.burst");
            let what = "at start.rate it takes longer than a year to come back";
            self.report("start.burst", place, what, help_of("start.burst"));
        }
        if config.watch.poll_rate.get() > 10_000 {
            let place = self.place("watch.poll_rate");
            self.report(
                "watch.poll_rate",
                place,
                "more than 10000 a second",
                help_of("watch.poll_rate"),
            );
        }
        if let ListenAddr::Tcp(api) = config.listen.address
            && api == config.admin.address
            && api.port() > 0
        {
            let place = self.place("admin.address");
            self.report(
                "admin.address",
                place,
                "it is the same as listen.address",
                "take another port, like 8701",
            );
        }
        match (
            gateway_url,
            secret,
            tokens,
            network,
            self.check_webhook(&config),
        ) {
            (Some(gateway_url), Some(secret), Some(tokens), Some(network), Some(webhook))
                if self.diagnostics.is_empty() =>
            {
                config.merchant.is_inline = secret.is_inline();
                let file = self.file.as_deref();
                let explained = Explained::new(
                    &self.defaults,
                    &self.found,
                    &config,
                    &secret,
                    inherited.as_ref(),
                    file,
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

    /// Where the value of that key comes from.
    fn place(&self, key: &str) -> String {
        self.found
            .get(key)
            .map_or_else(|| self.unset(key), |(_, origin)| origin.to_string())
    }

    /// Where a value that is not set could be set.
    fn unset(&self, key: &str) -> String {
        let variable = variable_of(key);
        match &self.file {
            Some(path) => format!("not set in {}, and {variable} is not set", path.display()),
            None => format!("there is no configuration file, and {variable} is not set"),
        }
    }

    /// Reads one of the files, if it is named: it must be there, and good.
    fn open_file<T: 'static>(
        &mut self,
        key: &str,
        path: Option<&FilePath>,
        parse: fn(&[u8]) -> Result<T, String>,
        help: &str,
    ) -> Option<Option<ReloadableFile<T>>> {
        let Some(path) = path else { return Some(None) };
        match ReloadableFile::open(&path.0, parse) {
            Ok(file) if file.get().is_some() => Some(Some(file)),
            other => {
                let what = other
                    .err()
                    .unwrap_or_else(|| "the file is missing".to_owned());
                let place = self.named(path, key);
                self.report(key, place, what, help);
                None
            }
        }
    }

    /// Where a file is named, and that name if it can be shown.
    fn named(&self, path: &FilePath, key: &str) -> String {
        let place = self.place(key);
        if path.could_be_a_secret() {
            place
        } else {
            format!("{path}, named in {place}")
        }
    }

    fn check_secret(&mut self, config: &Config) -> Option<Secret> {
        const FILE: &str = "merchant.secret_file";
        match (&self.secret, &config.merchant.secret_file) {
            (None, None) => {
                if !self
                    .diagnostics
                    .iter()
                    .any(|diagnostic| diagnostic.key.starts_with("merchant."))
                {
                    let place = self.unset(FILE);
                    let help =
                        "name the file that holds it: secret_file = \"/run/secrets/merchant\"";
                    self.report(FILE, place, "there is no merchant secret", help);
                }
                None
            }
            (Some(_), Some(_)) => {
                let place = self.place(SECRET);
                let what = "merchant.secret_file is set too, and only one of the two may be";
                self.report(SECRET, place, what, "remove it, and keep secret_file");
                None
            }
            (Some(secret), None) => match Secret::inline(secret) {
                Ok(secret) => Some(secret),
                Err(what) => {
                    let place = self.place(SECRET);
                    let help = "copy it again from the gateway's /dev/api page, without quotes or spaces around it";
                    self.report(SECRET, place, what, help);
                    None
                }
            },
            (None, Some(path)) if path.could_be_a_secret() => {
                let place = self.place(FILE);
                let what = "no file has that name, and it could be the secret itself, so it is not shown here";
                self.report(
                    FILE,
                    place,
                    what,
                    "give the path of the file that holds the secret",
                );
                None
            }
            (None, Some(path)) => match Secret::file(path) {
                Ok(secret) => Some(secret),
                Err(what) => {
                    let place = self.named(path, FILE);
                    self.report(
                        FILE,
                        place,
                        what,
                        "put the secret, and nothing else, into that file",
                    );
                    None
                }
            },
        }
    }

    fn check_webhook(&mut self, config: &Config) -> Option<Option<Sender>> {
        const URL: &str = "webhook.url";
        const FILE: &str = "webhook.secret_file";
        const ROOTS: &str = "webhook.ca_file";
        let webhook = &config.webhook;
        let is_bad = |key| {
            self.diagnostics
                .iter()
                .any(|diagnostic| diagnostic.key == key)
        };
        let (url_is_bad, file_is_bad) = (is_bad(URL), is_bad(FILE));
        let has_url = webhook.url.is_some() || url_is_bad;
        for (key, is_set) in [
            (FILE, webhook.secret_file.is_some()),
            (ROOTS, webhook.ca_file.is_some()),
        ] {
            if is_set && !has_url {
                let place = self.place(key);
                self.report(
                    key,
                    place,
                    "it is set, and webhook.url is not",
                    "set webhook.url too, or remove it",
                );
            }
        }
        let help = "write one key a line, for example with: tillgate webhook-secret";
        if has_url && webhook.secret_file.is_none() && !file_is_bad {
            let place = self.unset(FILE);
            self.report(
                FILE,
                place,
                "webhook.url is set, and there is no key to sign with",
                help,
            );
        }
        let keys = self.open_file(
            FILE,
            webhook.secret_file.as_ref().filter(|_| has_url),
            Keys::parse,
            help,
        );
        let help = "give a file with the root certificate of the app's server as PEM";
        let roots = self.open_file(ROOTS, webhook.ca_file.as_ref(), client::roots, help)?;
        let Some(url) = &webhook.url else {
            return (!has_url && !file_is_bad).then_some(None);
        };
        let network = Target::new(url.uri()).and_then(|target| {
            Network::new(
                Side::Webhook,
                target,
                None,
                roots,
                None,
                config.gateway.connect_timeout,
            )
        });
        match network {
            Ok(network) => Some(Some(Sender::new(
                url.clone(),
                Arc::new(keys??),
                Arc::new(network),
                webhook.timeout,
            ))),
            Err(what) => {
                let place = self.place(URL);
                self.report(URL, place, what, help_of(URL));
                None
            }
        }
    }

    /// The socket that `listen.address` names, if it names one that was passed and there is one.
    fn check_listen_addr(
        &mut self,
        config: &Config,
        environment: &Environment,
    ) -> Option<InheritedSocket> {
        const KEY: &str = "listen.address";
        match &config.listen.address {
            ListenAddr::Inherited(number) => {
                environment.inherited(*number).unwrap_or_else(|what| {
                    let place = self.place(KEY);
                    self.report(
                    KEY,
                    place,
                    what,
                    "name one that listens, or repair what passes it (systemd: the socket unit)",
                );
                    None
                })
            }
            ListenAddr::Unix(path) => {
                if let Some(what) = SocketFile::in_the_way(path) {
                    let place = self.place(KEY);
                    self.report(KEY, place, what, "remove it, or name another path");
                }
                None
            }
            ListenAddr::Tcp(_) => None,
        }
    }

    fn check_tokens(
        &mut self,
        config: &Config,
        inherited: Option<&InheritedSocket>,
    ) -> Option<Option<Arc<ReloadableFile<Tokens>>>> {
        const FILE: &str = "listen.token_file";
        let Some(path) = &config.listen.token_file else {
            let exposed = match &config.listen.address {
                ListenAddr::Tcp(address) => !address.is_loopback(),
                ListenAddr::Inherited(_) => inherited.is_some_and(InheritedSocket::is_exposed),
                ListenAddr::Unix(_) => false,
            };
            if exposed {
                let place = self.place("listen.address");
                let what = "other machines can reach this address, and without tokens all of them could start payments";
                self.report(
                    "listen.address",
                    place,
                    what,
                    "listen on localhost:8700, or set listen.token_file",
                );
            }
            return Some(None);
        };
        match ReloadableFile::open(&path.0, Tokens::parse) {
            Ok(file) if file.get().is_some() => Some(Some(Arc::new(file))),
            other => {
                let what = other
                    .err()
                    .unwrap_or_else(|| "the file is missing".to_owned());
                let place = self.named(path, FILE);
                self.report(
                    FILE,
                    place,
                    what,
                    "write one token a line, for example with: openssl rand -hex 32",
                );
                None
            }
        }
    }
}

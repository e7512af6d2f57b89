//! Every effective setting, where it comes from, and the consequences of a choice where they are easy to miss.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::Path;

use figment::value::Value;
use serde_json::Value as Json;

use super::sections::Config;
use crate::file;
use crate::secret::Secret;
use crate::server::{InheritedSocket, ListenAddr, SocketFile};
use crate::store::{self, DatabaseUrl, Place};

/// Where a value comes from. A default has no origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, and the line in it.
    File { path: String, line: usize },
    /// An environment variable.
    Variable(String),
    /// The command that runs, such as `dev`.
    Given,
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Given => f.write_str("given by the command"),
        }
    }
}

/// What was noticed on the way, and is no fault.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remarks {
    /// What somebody should do something about.
    pub(crate) warnings: Vec<String>,
    /// What nothing need be done about.
    pub(crate) notes: Vec<String>,
    /// Files with secrets that are not there yet.
    pub(crate) missing: Vec<String>,
}

/// What `tillgate check` prints.
#[derive(Clone, Debug)]
pub(crate) struct Explained {
    /// The key, the value as TOML, and the origin.
    settings: Vec<(String, String, String)>,
    pub(crate) remarks: Remarks,
}

impl Explained {
    pub(super) fn new(
        defaults: &BTreeMap<String, Value>,
        found: &BTreeMap<String, (Value, Origin)>,
        config: &Config,
        secret: &Secret,
        inherited: &[InheritedSocket],
        file: Option<&Path>,
        mut remarks: Remarks,
    ) -> Self {
        // The sections write their values themselves, so this shows what was understood rather than what was typed.
        let effective = serde_json::to_value(config).unwrap_or_default();
        let settings = defaults.keys().map(|key| {
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            let value = effective
                .get(section)
                .and_then(|section| section.get(name))
                .unwrap_or(&Json::Null);
            let origin = match found.get(key) {
                Some((_, origin)) => origin.to_string(),
                None => "default".to_owned(),
            };
            (key.clone(), value.to_string(), origin)
        });
        let settings = settings.collect();
        remarks.warnings.extend(warnings(config, file));
        let notes = notes(config, secret, inherited, file);
        remarks.notes.splice(..0, notes);
        Self { settings, remarks }
    }
}

fn warnings(config: &Config, file: Option<&Path>) -> Vec<String> {
    let files = [
        &config.merchant.secret_file,
        &config.listen.token_file,
        &config.webhook.secret_file,
        &config.gateway.client_key_file,
        &config.gateway.proxy_authorization_file,
        &config.store.password_file,
    ];
    let database = database(config);
    let has_secret = config.merchant.is_inline || database.is_some_and(DatabaseUrl::has_password);
    let own = file.filter(|_| has_secret);
    let files = files.into_iter().flatten().map(|path| &*path.0).chain(own);
    let mut warnings: Vec<String> = files.filter_map(file::too_open).collect();
    for address in &config.listen.address {
        if let ListenAddr::Unix(path) = address {
            warnings.extend(SocketFile::too_open(path));
        }
    }
    if config.gateway.is_exposed() {
        warnings.push(
            "gateway.allow_plain_http: everyone on the way to the gateway can read the merchant secret".to_owned(),
        );
    }
    if config.store.allow_plain_tcp && database.is_some_and(|url| !url.is_local()) {
        warnings.push(
            "store.allow_plain_tcp: without TLS everyone on the way to the database can read and change the payments in it".to_owned(),
        );
    }
    warnings
}

fn database(config: &Config) -> Option<&DatabaseUrl> {
    match &config.store.url {
        Place::Fleet(url) => Some(url),
        Place::Memory | Place::Directory(_) => None,
    }
}

fn notes(
    config: &Config,
    secret: &Secret,
    inherited: &[InheritedSocket],
    file: Option<&Path>,
) -> Vec<String> {
    let mut notes = Vec::new();
    if file.is_none() {
        notes.push(
            "there is no configuration file: everything comes from variables and defaults"
                .to_owned(),
        );
    }
    notes.push(match secret.now() {
        Some(_) => format!("the merchant secret is [redacted], {}", secret.source()),
        None => format!(
            "the merchant secret is not there yet ({} is missing): tillgate starts unready and waits for it",
            secret.source().trim_start_matches("read from ")
        ),
    });
    if config.merchant.is_inline {
        notes.push("an inline secret is in the environment or the configuration of every start, and never changes while tillgate runs: merchant.secret_file is safer".to_owned());
    }
    if config.redirect.allowed.is_empty() && config.redirect.default.is_none() {
        notes.push("redirect.allowed is empty: a start that names a redirect is refused, and payers stay on the gateway's page".to_owned());
    }
    for address in &config.listen.address {
        let is_open = config.listen.token_file.is_none();
        notes.extend(who_may_come_in(address, inherited, is_open));
    }
    if let Some(url) = database(config) {
        notes.extend(of_database(url, &config.store));
    }
    if matches!(config.store.url, Place::Memory) {
        notes.push("store.url is memory: a restart forgets the payments, the answers to Idempotency-Keys and the event ids; apps must keep their own watch codes".to_owned());
    }
    notes
}

/// Says who reaches that address of the API. `is_open`: no token is asked for.
fn who_may_come_in(
    address: &ListenAddr,
    inherited: &[InheritedSocket],
    is_open: bool,
) -> Option<String> {
    let passed = match address {
        ListenAddr::Unix(path) => return Some(SocketFile::who_may_come_in(path)),
        ListenAddr::Inherited(number) => {
            let passed = inherited.iter().find(|socket| socket.number() == *number);
            if passed.is_none() {
                return Some(format!(
                    "{address} is a socket that tillgate is started with (socket activation), and it was not passed here: \
                     what passes it decides where it is and who reaches it"
                ));
            }
            passed
        }
        ListenAddr::Tcp(_) => None,
    };
    if passed.is_some_and(InheritedSocket::is_unix) {
        return Some(format!(
            "{address} is a Unix socket: who may open its file can start payments, and see every code"
        ));
    }
    is_open.then(|| {
        format!(
            "listen.token_file is not set: every program that reaches {address} can start payments"
        )
    })
}

fn of_database(url: &DatabaseUrl, config: &store::Config) -> Vec<String> {
    let tls = match (url.is_local(), config.allow_plain_tcp, &config.ca_file) {
        (true, ..) => "without TLS, since it is on this machine",
        (false, true, _) => "with TLS if it has it",
        (false, false, None) => "with TLS and the built-in roots",
        (false, false, Some(_)) => "with TLS and the roots of store.ca_file",
    };
    let (place, schema) = (url.place(), url.schema());
    let mut notes = vec![format!(
        "store.url is the database at {place}, schema {schema}, {tls}: starts stop while it is away; watches go on"
    )];
    match &config.password_file {
        Some(path) if !path.0.exists() => notes.push(format!(
            "the password of store.url is not there yet ({path} is missing): tillgate starts unready and waits for it"
        )),
        Some(_) => {}
        None if url.has_password() => notes.push(
            "a password in store.url is in the environment or the configuration of every start, and never changes while tillgate runs: store.password_file is safer"
                .to_owned(),
        ),
        None => notes.push(
            "there is no password for store.url: the database has to let its user in without one"
                .to_owned(),
        ),
    }
    notes
}

impl Display for Explained {
    /// Writes the settings as TOML, each with its origin in a comment, then the warnings and the notes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .settings
            .iter()
            .map(|(_, value, _)| value.len())
            .max()
            .unwrap_or(0)
            .min(40)
            + 24;
        let mut section = "";
        for (key, value, origin) in &self.settings {
            let (of, name) = key.split_once('.').unwrap_or(("", key));
            if of != section {
                writeln!(f, "{}[{of}]", if section.is_empty() { "" } else { "\n" })?;
                section = of;
            }
            writeln!(f, "{:<width$} # {origin}", format!("{name} = {value}"))?;
        }
        writeln!(f)?;
        let Remarks {
            warnings, notes, ..
        } = &self.remarks;
        warnings
            .iter()
            .try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        notes
            .iter()
            .try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

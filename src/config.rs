//! The configuration: puts the sections together that the rooms define, loads them, and reports everything that is
//! wrong at once.

mod check;
mod environment;
mod explain;
#[cfg(fuzzing)]
pub mod fuzz;
mod load;
mod reach;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(crate) use self::environment::Environment;
pub(crate) use self::explain::Explained;
pub(crate) use self::load::{Source, load};
pub(crate) use self::reach::{Reach, admin_address, authorization, reach};
use crate::api::Tokens;
use crate::client::Network;
use crate::file::ReloadableFile;
use crate::gateway::BaseUrl;
use crate::secret::Secret;
use crate::server::{InheritedSocket, ListenAddr};
use crate::{admin, api, gateway, secret, start, store, telemetry, watch, webhook};

/// Every key there is. What a key means is said where its section is defined.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) gateway: gateway::Config,
    pub(crate) merchant: secret::Config,
    pub(crate) listen: api::Config,
    pub(crate) admin: admin::Config,
    pub(crate) start: start::Config,
    pub(crate) redirect: start::RedirectConfig,
    pub(crate) watch: watch::Config,
    pub(crate) webhook: webhook::Config,
    pub(crate) store: store::Config,
    pub(crate) log: telemetry::Config,
}

/// A configuration without errors, and what its files held.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) gateway_url: BaseUrl,
    pub(crate) secret: Secret,
    pub(crate) tokens: Option<Arc<ReloadableFile<Tokens>>>,
    pub(crate) network: Arc<Network>,
    /// Where messages to the app are posted.
    pub(crate) webhook: Option<webhook::Sender>,
    /// The socket that `listen.address` names, where it names one that was passed.
    pub(crate) inherited: Option<InheritedSocket>,
    pub(crate) explained: Explained,
}

impl Loaded {
    /// Only who may open the API's socket file reaches it.
    pub(crate) fn is_unix(&self) -> bool {
        match &self.config.listen.address {
            ListenAddr::Unix(_) => true,
            ListenAddr::Inherited(_) => self
                .inherited
                .as_ref()
                .is_some_and(InheritedSocket::is_unix),
            ListenAddr::Tcp(_) => false,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// The key, or the file where no key is to blame.
    pub(crate) key: String,
    /// Where the value comes from.
    pub(crate) place: String,
    /// What is wrong with it.
    pub(crate) what: String,
    /// What to do.
    pub(crate) help: String,
}

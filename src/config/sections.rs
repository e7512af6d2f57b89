//! All sections, each of which is defined in the room that it configures.

use serde::{Deserialize, Serialize};

use crate::{admin, api, gateway, secret, start, store, telemetry, watch, webhook};

/// Every key of the configuration. The type of a section documents its keys.
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

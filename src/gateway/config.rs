//! `[gateway]` of the configuration.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BaseUrl;
use crate::client::ProxyUrl;
use crate::clock;
use crate::text::{self, FilePath};

/// `[gateway]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// The base URL of the API. Required.
    #[serde(with = "text")]
    pub(crate) url: Option<BaseUrl>,
    /// The base URL of the pages that payers open, if it is another one.
    #[serde(with = "text")]
    pub(crate) public_url: Option<BaseUrl>,
    /// Accepts an http URL, over which everyone on the way can read the secret.
    pub(crate) allow_plain_http: bool,
    /// Root certificates in PEM, in place of the built-in ones.
    #[serde(with = "text")]
    pub(crate) ca_file: Option<FilePath>,
    /// The client certificate in PEM, for a gateway that asks for one. Set together with its key.
    #[serde(with = "text")]
    pub(crate) client_cert_file: Option<FilePath>,
    /// The key of the client certificate in PEM, without a passphrase.
    #[serde(with = "text")]
    pub(crate) client_key_file: Option<FilePath>,
    /// The HTTP proxy on the way to the gateway, if there is one.
    #[serde(with = "text")]
    pub(crate) proxy: Option<ProxyUrl>,
    /// The credentials for the proxy: the value of a Proxy-Authorization field.
    #[serde(with = "text")]
    pub(crate) proxy_authorization_file: Option<FilePath>,
    /// The time limit for TCP and TLS to one address.
    #[serde(with = "clock::text")]
    pub(crate) connect_timeout: Duration,
    /// The time limit for one start or one poll, with all its repeats.
    #[serde(with = "clock::text")]
    pub(crate) timeout: Duration,
    /// How often a request that is safe to repeat is repeated.
    pub(crate) retries: u32,
    /// The largest answer that is read, in bytes.
    pub(crate) max_response_bytes: NonZeroUsize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            public_url: None,
            allow_plain_http: false,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            proxy: None,
            proxy_authorization_file: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            retries: 2,
            #[expect(clippy::unwrap_used, reason = "65536 is not zero")]
            max_response_bytes: NonZeroUsize::new(65536).unwrap(),
        }
    }
}

impl Config {
    /// Returns whether requests can be read on the way. A host that is local here is not local to a proxy.
    pub(crate) fn is_exposed(&self) -> bool {
        self.url
            .as_ref()
            .is_some_and(|url| url.is_exposed() || !url.is_https() && self.proxy.is_some())
    }
}

//! `[gateway]`: its URL, and what is needed to reach it.

use std::sync::Arc;

use super::super::reading::{Reading, help_of};
use super::super::sections::Config;
use crate::client::{self, Identity, Network, Proxy, ProxyAuthorization, Side, Target};
use crate::gateway::{self, BaseUrl};

impl Reading {
    pub(super) fn check_gateway(&mut self, config: &Config) -> Option<BaseUrl> {
        const KEY: &str = "gateway.url";
        if self.is_bad(KEY) {
            return None;
        }
        let Some(url) = &config.gateway.url else {
            let place = self.unset(KEY);
            self.report(KEY, place, "it is required", help_of(KEY));
            return None;
        };
        if config.gateway.is_exposed() && !config.gateway.allow_plain_http {
            let place = self.place(KEY);
            let what = "over plain http everyone on the way to the gateway can read the merchant secret and take the merchant's money";
            let help = "use https://; or accept that risk with this line in [gateway]: allow_plain_http = true";
            self.report(KEY, place, what, help);
        }
        Some(url.clone())
    }

    pub(super) fn check_network(
        &mut self,
        config: &gateway::Config,
        url: Option<&BaseUrl>,
    ) -> Option<Arc<Network>> {
        const ROOTS: &str = "gateway.ca_file";
        let help = "give a file with the gateway's root certificate as PEM";
        let roots = self.open_file(ROOTS, config.ca_file.as_ref(), client::roots, help);
        let identity = self.check_identity(config);
        let proxy = self.check_proxy(config);
        let target = match Target::new(url?.uri()) {
            Ok(target) => target,
            Err(what) => {
                let place = self.place("gateway.url");
                self.report("gateway.url", place, what, help_of("gateway.url"));
                return None;
            }
        };
        match Network::new(
            Side::Gateway,
            target,
            proxy?,
            roots?,
            identity?,
            config.connect_timeout,
        ) {
            Ok(network) => Some(Arc::new(network)),
            Err(what) => {
                let place = self.place(ROOTS);
                self.report(ROOTS, place, what, help_of(ROOTS));
                None
            }
        }
    }

    fn check_identity(&mut self, config: &gateway::Config) -> Option<Option<Identity>> {
        let [of_chain, of_key] = ["gateway.client_cert_file", "gateway.client_key_file"];
        let gateway::Config {
            client_cert_file,
            client_key_file,
            ..
        } = config;
        for (one, other, is_alone) in [
            (
                of_chain,
                of_key,
                client_cert_file.is_some() && client_key_file.is_none(),
            ),
            (
                of_key,
                of_chain,
                client_key_file.is_some() && client_cert_file.is_none(),
            ),
        ] {
            if is_alone {
                self.is_alone(one, other, "set both, or neither");
            }
        }
        let help = "give a file with the certificate that the gateway knows tillgate by, as PEM";
        let chain = self.open_file(of_chain, client_cert_file.as_ref(), client::chain, help);
        let help = "give a file with the private key of gateway.client_cert_file, as PEM without a passphrase";
        let key = self.open_file(of_key, client_key_file.as_ref(), client::key, help);
        let (Some(chain), Some(key)) = (chain?, key?) else {
            return Some(None);
        };
        match Identity::new(chain, key) {
            Ok(identity) => Some(Some(identity)),
            Err(what) => {
                let place = self.place(of_key);
                self.report(of_key, place, what, help);
                None
            }
        }
    }

    fn check_proxy(&mut self, config: &gateway::Config) -> Option<Option<Proxy>> {
        const KEY: &str = "gateway.proxy";
        const FILE: &str = "gateway.proxy_authorization_file";
        if config.proxy_authorization_file.is_some() && config.proxy.is_none() {
            self.is_alone(FILE, KEY, "set gateway.proxy too, or remove it");
        }
        let help = "write one line into that file, the value of a Proxy-Authorization field: Basic, a space, and USER:PASSWORD in base64";
        let path = config.proxy_authorization_file.as_ref();
        let authorization = self.open_file(FILE, path, ProxyAuthorization::parse, help)?;
        let Some(url) = &config.proxy else {
            return Some(None);
        };
        match Proxy::new(url, authorization) {
            Ok(proxy) => Some(Some(proxy)),
            Err(what) => {
                let place = self.place(KEY);
                self.report(KEY, place, what, help_of(KEY));
                None
            }
        }
    }

    /// Reports that `key` is set and `other`, which it needs, is not.
    fn is_alone(&mut self, key: &str, other: &str, help: &str) {
        if !self.is_bad(other) {
            let place = self.unset(other);
            self.report(other, place, format!("{key} is set, and this is not"), help);
        }
    }
}

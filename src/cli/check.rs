//! `tillgate check`

use std::path::Path;

use super::{Exit, answer, complain, tell};
use crate::client::Network;
use crate::config::{self, Environment, Loaded, Source};
use crate::gateway::{BaseUrl, Gateway};
use crate::{clock, start};

/// Prints the configuration, or everything that is wrong with it; goes online when asked to.
pub(super) async fn check(path: Option<&Path>, environment: &Environment, online: bool, start: bool) -> Exit {
    let loaded = match config::load(Source::File(path), environment) {
        Ok(loaded) => loaded,
        Err(faults) => return tell(&faults),
    };
    answer(&loaded.explained.to_string());
    if online && let Err(why) = connect(&loaded.network, &loaded.gateway_url, loaded.config.gateway.timeout).await {
        complain(&why);
        return Exit::Failed;
    }
    if start && let Err(why) = start_one(&loaded).await {
        complain(&why);
        return Exit::Failed;
    }
    answer("ok");
    Exit::Fine
}

async fn connect(network: &Network, url: &BaseUrl, timeout: std::time::Duration) -> Result<(), String> {
    let (host, port) = url.host_and_port();
    let lookup = clock::timeout(timeout, tokio::net::lookup_host((host.as_str(), port))).await;
    let addresses: Vec<String> = match lookup {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip().to_string()).collect(),
        Ok(Err(error)) => return Err(format!("gateway.url: {host} cannot be looked up: {error}")),
        Err(_) => return Err(format!("gateway.url: looking up {host} took longer than gateway.timeout")),
    };
    answer(&format!("online: {host} is {}", addresses.join(", ")));
    network.connect(&url.to_string()).await.map_err(|why| format!("gateway.url: no connection to {url}: {why}"))?;
    let how = if url.is_https() { "and TLS with it works" } else { "over plain http" };
    answer(&format!("online: {host}:{port} takes connections, {how}"));
    Ok(())
}

async fn start_one(loaded: &Loaded) -> Result<(), String> {
    let transport = loaded.network.clone();
    let gateway = Gateway::new(&loaded.config.gateway, loaded.gateway_url.clone(), loaded.secret.clone(), transport);
    let order = start::smallest_order(&loaded.config.start);
    match gateway.start(&order).await {
        Ok(_) => {
            let amount = order.amount;
            answer(&format!(
                "start: the gateway takes the secret (one payment of {amount} was started, and its code thrown away)"
            ));
            Ok(())
        }
        Err(error) => {
            let said = error.said().and_then(|said| said.message.clone());
            Err(format!("start: {error}{}", said.map(|said| format!(": {said}")).unwrap_or_default()))
        }
    }
}

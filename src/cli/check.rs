//! `tillgate check`

use std::path::Path;
use std::time::Duration;

use super::exit::Exit;
use super::output::{answer, complain, faulty, misconfigured};
use crate::client::Network;
use crate::config::{self, Environment, Loaded, Remarks};
use crate::gateway::{Gateway, Order};
use crate::store::{Findings, Place, check_database};
use crate::{clock, start, text};

/// What is looked at beside the configuration.
#[derive(clap::Args)]
pub(super) struct Also {
    /// Take warnings, and a secret file that is missing, for faults
    #[arg(long)]
    strict: bool,
    /// Also look up the gateway, connect to it, and do TLS; and connect to the webhook and to the store's database
    #[arg(long)]
    online: bool,
    /// Also start one payment of start.min_amount and throw its code away: the only proof that the secret is right
    #[arg(long, requires = "online")]
    start: bool,
}

/// Prints the configuration, or everything that is wrong with it. With `online` it also connects to whatever is
/// configured, and with `start` it also starts a payment there.
pub(super) async fn check(
    path: Option<&Path>,
    environment: &Environment,
    Also {
        strict,
        online,
        start,
    }: Also,
) -> Exit {
    let loaded = match config::look(path, environment) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return misconfigured(&diagnostics),
    };
    answer(&loaded.explained.to_string());
    let faults = to_do(&loaded.explained.remarks);
    if strict && !faults.is_empty() {
        return faulty(&faults);
    }
    let gateway = gateway(&loaded);
    if online && let Err(why) = connect(&loaded).await {
        // Parts of it come from outside, such as the names in a certificate.
        complain(&gateway.scrub(why));
        return Exit::Failed;
    }
    if start
        && let Err(why) = start_one(&gateway, &start::smallest_order(&loaded.config.start)).await
    {
        complain(&why);
        return Exit::Failed;
    }
    answer("ok");
    Exit::Fine
}

/// Returns what somebody should do something about.
fn to_do(remarks: &Remarks) -> Vec<String> {
    let missing = remarks.missing.iter();
    let missing =
        missing.map(|file| format!("{file}: the file is missing: put it there, or name another"));
    remarks.warnings.iter().cloned().chain(missing).collect()
}

/// Connects to the gateway, to the app where webhooks are configured, and to the store's database where there is one.
///
/// # Errors
/// Says which connection failed, and why.
async fn connect(loaded: &Loaded) -> Result<(), String> {
    let gateway = &loaded.config.gateway;
    let through = gateway
        .proxy
        .as_ref()
        .map(|proxy| format!("{proxy} (gateway.proxy)"));
    probe(
        "gateway.url",
        &loaded.gateway_url.to_string(),
        through,
        &loaded.network,
        gateway.timeout,
    )
    .await?;
    if let (Some(sender), Some(url)) = (&loaded.webhook, &loaded.config.webhook.url) {
        let timeout = loaded.config.webhook.timeout;
        probe(
            "webhook.url",
            &url.to_string(),
            None,
            sender.network(),
            timeout,
        )
        .await?;
    }
    let store = &loaded.config.store;
    if let Place::Fleet(url) = &store.url {
        let Findings { lines, faults } =
            check_database(url, store, &loaded.gateway_url.to_string()).await?;
        for line in lines {
            // A database may say anything of itself.
            let line: String = text::printable(&line).collect();
            answer(&format!("online: {line}"));
        }
        if !faults.is_empty() {
            return Err(faults.join("; "));
        }
    }
    Ok(())
}

async fn probe(
    key: &str,
    url: &str,
    through: Option<String>,
    network: &Network,
    timeout: Duration,
) -> Result<(), String> {
    let probe = network.probe(clock::now() + timeout).await;
    let probe = probe.map_err(|why| format!("{key}: no connection to {url}: {why}"))?;
    let addresses: Vec<_> = probe.addresses.iter().map(ToString::to_string).collect();
    let host = through.as_deref().unwrap_or(url);
    answer(&format!(
        "online: {host} is {}; {} answers",
        addresses.join(", "),
        probe.address
    ));
    let steps = probe
        .steps
        .iter()
        .map(|(step, took)| format!("{step} {:.1} ms", took.as_secs_f64() * 1000.0));
    let steps = steps.collect::<Vec<_>>().join(", ");
    let is_tls = probe.steps.iter().any(|(step, _)| *step == "TLS");
    let how = if is_tls {
        "and TLS with it works"
    } else {
        "over plain http"
    };
    answer(&format!("online: {key} takes connections, {how} ({steps})"));
    if probe.has_small_hello {
        answer(
            "online: something on the way drops a TLS hello that does not fit into one packet, so a small one is sent, \
             without a key share that is safe from quantum computers: have that firewall mended",
        );
    }
    Ok(())
}

/// Returns the way to the gateway, which also knows the secret that no text may show.
pub(super) fn gateway(loaded: &Loaded) -> Gateway {
    let transport = loaded.network.clone();
    Gateway::new(
        &loaded.config.gateway,
        loaded.gateway_url.clone(),
        loaded.secret.clone(),
        transport,
    )
}

async fn start_one(gateway: &Gateway, order: &Order) -> Result<(), String> {
    match gateway.start(order).await {
        Ok(_) => {
            let amount = order.amount;
            answer(&format!(
                "start: the gateway takes the secret (one payment of {amount} was started, and its code thrown away)"
            ));
            Ok(())
        }
        Err(error) => {
            let message = error
                .gateway_message()
                .and_then(|answer| answer.message.clone());
            Err(format!(
                "start: {error}{}",
                message.map_or_else(String::new, |message| format!(": {message}"))
            ))
        }
    }
}

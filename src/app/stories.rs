//! The stories, over the gateway and the store.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use crate::admin::Rooms;
use crate::api::Api;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::json;
use crate::readiness::Readiness;
use crate::start::{Allowed, Starter};
use crate::store::{CannotOpen, Compose, Fleetwide, Limits, Store};
use crate::tasks::SharedTasks;
use crate::watch::StatusPoller;
use crate::webhook::{self, Dispatcher, Sender};

/// Everything between the ways out and the ways in: each can be used by all that stand above it.
pub(super) struct Stories {
    pub(super) gateway: Arc<Gateway>,
    pub(super) store: Store,
    pub(super) starter: Starter,
    pub(super) poller: StatusPoller,
}

impl Stories {
    /// `owes`: the app is to get webhooks.
    pub(super) fn build(
        config: &Config,
        (gateway, gateway_url): (Gateway, String),
        tasks: &SharedTasks,
        readiness: &Readiness,
        owes: bool,
        dev: bool,
    ) -> Result<Self, CannotOpen> {
        let gateway = Arc::new(gateway);
        let compose = owes.then_some(webhook::compose as Compose);
        let limits = Limits {
            watch_codes: usize::try_from(config.watch.max_tracked.get()).unwrap_or(usize::MAX),
            bytes: config.store.max_bytes.bytes(),
            answers: config.start.idempotency_ttl,
            // Whose key lives has a payment in the lists.
            finished: config.store.keep_for.max(config.start.idempotency_ttl),
            polled: config.watch.give_up_after,
        };
        let fleetwide = fleetwide(config, gateway_url);
        let store = Store::open(&config.store, fleetwide, limits, compose, readiness)?;
        let allowed = Allowed::new(&config.redirect, dev);
        let starter = Starter::new(
            &config.start,
            allowed,
            gateway.clone(),
            &store,
            tasks.clone(),
        );
        let poller = StatusPoller::new(&config.watch, gateway.clone(), &store, owes);
        Ok(Self {
            gateway,
            store,
            starter,
            poller,
        })
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        self.gateway.register(registry);
        self.store.register(registry);
        self.starter.register(registry);
        self.poller.register(registry);
    }

    pub(super) fn dispatcher(&self, sender: Sender, tasks: &SharedTasks) -> Dispatcher {
        let (outbox, gateway) = (self.store.outbox(), self.gateway.clone());
        Dispatcher::new(outbox, sender, gateway, tasks.clone())
    }

    /// What the status page shows.
    pub(super) fn rooms(
        &self,
        api: &Api,
        dispatcher: Option<&Dispatcher>,
        memory_bound: u64,
    ) -> Rooms {
        Rooms {
            starter: self.starter.clone(),
            poller: self.poller.clone(),
            gateway: self.gateway.clone(),
            store: self.store.clone(),
            tries: dispatcher.map(Dispatcher::tries),
            waiters: api.waiters(),
            refusals: api.refusals(),
            memory_bound,
        }
    }
}

/// What replicas that share a store have in common.
fn fleetwide(config: &Config, gateway_url: String) -> Fleetwide {
    let (start, watch, webhook) = (&config.start, &config.watch, &config.webhook);
    let common = format!("{start:?} {watch:?} {webhook:?} {gateway_url}");
    Fleetwide {
        gateway: gateway_url,
        call: config.gateway.timeout,
        poll_rate: watch.poll_rate,
        config: json::fingerprint(&common).to_string(),
    }
}

//! Builds the program from the ground up.

use std::sync::Arc;

use prometheus_client::registry::Registry;

use super::behind::Behind;
use super::files::Files;
use super::stories::Stories;
use crate::admin::Admin;
use crate::api::{Api, Tokens};
use crate::client::Network;
use crate::config::{self, Config, Loaded};
use crate::file::{Reload, ReloadableFile};
use crate::gateway::Gateway;
use crate::readiness::Readiness;
use crate::server;
use crate::store::{CannotOpen, Store};
use crate::tasks::SharedTasks;
use crate::telemetry;
use crate::watch::StatusPoller;
use crate::webhook::{self, Dispatcher};

/// Everything but the sockets.
pub(crate) struct App {
    pub(super) config: Config,
    pub(crate) api: Api,
    pub(super) admin: Admin,
    pub(super) poller: StatusPoller,
    pub(super) store: Store,
    /// Posts the messages to the app.
    pub(super) dispatcher: Option<Dispatcher>,
    /// The starts and webhooks that are under way, whether somebody still waits for them or not.
    pub(super) tasks: SharedTasks,
    pub(super) files: Files,
    pub(super) readiness: Readiness,
}

impl App {
    /// Builds everything from a checked configuration. `dev`: on a developer's own machine, where starts may name any
    /// page of this machine, and everybody may see every code.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub(crate) fn build(loaded: Loaded, behind: Behind, dev: bool) -> Result<Self, CannotOpen> {
        let Loaded {
            mut config,
            gateway_url,
            secret,
            tokens,
            network,
            webhook: sender,
            inherited: _,
            explained: _,
        } = loaded;
        config.listen.max_connections = server::room_for(config.listen.max_connections);
        let mut registry = telemetry::registry();
        let tasks = SharedTasks::default();
        let readiness = Readiness::default();
        drop(readiness.latch("draining"));
        let sender = sender.map(|sender| behind.app(sender));
        let gateway = Gateway::new(
            &config.gateway,
            gateway_url.clone(),
            secret.clone(),
            behind.transport(&network),
        );
        network.register(&mut registry);
        let owes = sender.is_some();
        let stories = Stories::build(
            &config,
            (gateway, gateway_url.to_string()),
            &tasks,
            &readiness,
            owes,
            dev,
        )?;
        stories.register(&mut registry);
        let api = Api::new(
            &config.listen,
            config.watch.max_wait,
            stories.starter.clone(),
            stories.poller.clone(),
            &stories.store,
            tokens.clone(),
            dev.then_some(config::hint),
        );
        api.register(&mut registry);
        let latch = readiness.latch("secret");
        let others = reloaded(network, tokens, sender.as_ref(), &mut registry);
        let files = Files::new(Arc::new(secret), latch, others);
        let dispatcher = sender.map(|sender| stories.dispatcher(sender, &tasks));
        if let Some(dispatcher) = &dispatcher {
            dispatcher.register(&mut registry);
        }
        let loopback = config.admin.address.is_loopback();
        let rooms = stories.rooms(&api, dispatcher.as_ref(), config.memory().bytes());
        let admin = Admin::new(readiness.clone(), registry, rooms, loopback);
        let Stories { store, poller, .. } = stories;
        Ok(Self {
            config,
            api,
            poller,
            store,
            dispatcher,
            admin,
            tasks,
            files,
            readiness,
        })
    }
}

/// The files beside the secret that are to be looked at for changes.
fn reloaded(
    network: Arc<Network>,
    tokens: Option<Arc<ReloadableFile<Tokens>>>,
    sender: Option<&webhook::Sender>,
    registry: &mut Registry,
) -> Vec<Arc<dyn Reload>> {
    let mut others: Vec<Arc<dyn Reload>> = vec![network];
    if let Some(tokens) = &tokens {
        let failures = tokens.failures.clone();
        registry.register(
            "token_reload_failures",
            "Looks at the token file that found nothing usable",
            failures,
        );
    }
    others.extend(tokens.map(|tokens| tokens as Arc<dyn Reload>));
    if let Some(sender) = sender {
        sender.register(registry);
        others.extend([sender.keys(), sender.network().clone() as Arc<dyn Reload>]);
    }
    others
}

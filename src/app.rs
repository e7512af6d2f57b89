//! Builds the program from the ground up, binds, runs, drains.

mod bound;
mod in_process;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

pub(crate) use self::bound::{Bound, CannotBind, Opened};
pub use self::in_process::Sidecar;
use crate::admin::{Admin, Rooms};
use crate::api::Api;
use crate::client::{Network, Transport};
use crate::clock;
use crate::config::{Config, Loaded};
use crate::file::{Reload, Settle};
use crate::gateway::Gateway;
use crate::readiness::{Latch, Readiness};
use crate::sandbox::Sandbox;
use crate::sd_notify::{SdNotify, ServiceState};
use crate::server::{self, Limits, Server};
use crate::signals::{Signal, Signals};
use crate::start::{Allowed, Starter};
use crate::store::{CannotOpen, Compose, Store};
use crate::tasks::SharedTasks;
use crate::telemetry;
use crate::watch::StatusPoller;
use crate::webhook::{self, Dispatcher};

/// How often the files are looked at; what is new is taken at the second look.
const RELOAD_EVERY: Duration = Duration::from_secs(1);
/// How often the store forgets what has had its time; more often where that is short.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How often a secret that is still missing is logged.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Everything but the sockets.
pub(crate) struct App {
    config: Config,
    pub(crate) api: Api,
    admin: Admin,
    poller: StatusPoller,
    store: Store,
    /// Posts the messages to the app.
    dispatcher: Option<Dispatcher>,
    /// The starts and webhooks that are under way, whether somebody still waits for them or not.
    tasks: SharedTasks,
    files: Files,
    readiness: Readiness,
}

/// Where the gateway is.
pub(crate) enum Behind {
    /// Over the network.
    Network,
    /// In this process.
    Sandbox(Sandbox),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Asked to end, and everything that was under way is done, or out of its time.
    Drained,
    /// Asked twice.
    Forced,
    /// The store's file can never be used again by this process; another one recovers from it.
    Broken,
}

impl App {
    /// Builds everything from a checked configuration. `dev`: on a developer's own machine, where starts may name any
    /// page of this machine, and everybody may see every code.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub(crate) fn build(loaded: Loaded, behind: Behind, dev: bool) -> Result<Self, CannotOpen> {
        let lists = dev || loaded.is_unix();
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
        let transport: Arc<dyn Transport> = match behind {
            Behind::Network => network.clone(),
            Behind::Sandbox(sandbox) => Arc::new(in_process::Gateway(sandbox)),
        };
        let gateway = Arc::new(Gateway::new(
            &config.gateway,
            gateway_url,
            secret.clone(),
            transport,
        ));
        let compose = sender.is_some().then_some(webhook::compose as Compose);
        let room = usize::try_from(config.watch.max_tracked.get()).unwrap_or(usize::MAX);
        let readiness = Readiness::default();
        drop(readiness.latch("draining"));
        let store = Store::open(
            &config.store.url,
            room,
            config.start.idempotency_ttl,
            compose,
            &readiness,
        )?;
        let allowed = Allowed::new(&config.redirect, dev);
        let starter = Starter::new(
            &config.start,
            allowed,
            gateway.clone(),
            &store,
            tasks.clone(),
        );
        let poller = StatusPoller::new(&config.watch, gateway.clone(), &store, sender.is_some());
        network.register(&mut registry);
        gateway.register(&mut registry);
        store.register(&mut registry);
        starter.register(&mut registry);
        poller.register(&mut registry);
        let max_wait = config.watch.max_wait;
        let api = Api::new(
            &config.listen,
            max_wait,
            starter.clone(),
            poller.clone(),
            &store,
            tokens.clone(),
            lists,
        );
        api.register(&mut registry);
        let latch = Some(readiness.latch("secret"));
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
        if let Some(sender) = &sender {
            sender.register(&mut registry);
            others.extend([sender.keys(), sender.network().clone() as Arc<dyn Reload>]);
        }
        let dispatcher = sender
            .map(|sender| Dispatcher::new(store.outbox(), sender, gateway.clone(), tasks.clone()));
        if let Some(dispatcher) = &dispatcher {
            dispatcher.register(&mut registry);
        }
        let mut files = Files {
            secret: Arc::new(secret),
            latch,
            others,
            missing_for: Duration::ZERO,
        };
        files.release();
        let loopback = config.admin.address.is_loopback();
        let rooms = Rooms {
            starter,
            poller: poller.clone(),
            gateway,
            store: store.clone(),
            tries: dispatcher.as_ref().map(Dispatcher::tries),
            waiters: api.waiters(),
            refusals: api.refusals(),
        };
        let admin = Admin::new(readiness.clone(), registry, rooms, loopback);
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

    /// Serves on these sockets until the process is asked to end.
    pub(crate) async fn run(
        self,
        api: Opened,
        admin: Bound,
        signals: &mut Signals,
        service_manager: &SdNotify,
    ) -> End {
        let Self {
            config,
            api: api_service,
            poller: _poller,
            store,
            dispatcher,
            admin: admin_service,
            tasks,
            mut files,
            readiness,
        } = self;
        let servers = [
            Arc::new(Server::new(config.listen.limits())),
            Arc::new(Server::new(ADMIN_LIMITS)),
        ];
        let [api_server, admin_server] = &servers;
        // Its file, if it has one, is removed at the end of the run.
        let Opened {
            listeners,
            place,
            file: _file,
        } = api;
        for listener in listeners {
            let api = api_service.clone();
            api_server.serve(
                listener,
                api_service.clone().service(),
                move |rejection, head| api.reject(rejection, head),
            );
        }
        for listener in admin.listeners {
            let admin = admin_service.clone();
            admin_server.serve(
                listener,
                admin_service.clone().service(),
                move |rejection, head| admin.reject(rejection, head),
            );
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = place,
            admin = %admin.address,
            ready = readiness.is_ready(),
            "tillgate is running"
        );
        service_manager.tell(ServiceState::Ready);
        let reload = Notify::new();
        let asked_to_end = async {
            while signals.next().await == Signal::Reload {
                reload.notify_one();
            }
        };
        tokio::select! {
            () = asked_to_end => {}
            () = files.keep_reloading(&reload) => {}
            () = admin_service.keep_history() => {}
            () = keep_sweeping(&store, config.start.idempotency_ttl) => {}
            () = store.broken() => return End::Broken,
        }
        let _draining = readiness.latch("draining");
        service_manager.tell(ServiceState::Stopping);
        tracing::info!("shutting down: finishing what is under way");
        api_service.drain();
        drop(dispatcher);
        api_server.stop_accepting();
        let drained = async {
            api_server.idle().await;
            tasks.idle().await;
            api_server.close().await;
            store.close().await;
        };
        tokio::select! {
            biased;
            () = store.broken() => End::Broken,
            done = clock::timeout(config.listen.drain_timeout, drained) => {
                match done {
                    Ok(()) => tracing::info!("everything is finished"),
                    Err(_) => tracing::warn!("listen.drain_timeout is over: what is still under way is cut off"),
                }
                End::Drained
            }
            () = second(signals) => {
                tracing::warn!("asked to end a second time: what is still under way is cut off");
                End::Forced
            }
        }
    }
}

/// The admin listener needs no settings: probes and scrapers are few and small.
const ADMIN_LIMITS: Limits = Limits {
    max_connections: 64,
    header_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(120),
};

/// Forgets, now and then, what has had its time. Never returns.
async fn keep_sweeping(store: &Store, ttl: Duration) {
    loop {
        store.sweep();
        clock::sleep(SWEEP_EVERY.min(ttl / 4)).await;
    }
}

async fn second(signals: &mut Signals) {
    while signals.next().await == Signal::Reload {}
}

/// Serves a sandbox gateway on these sockets, for as long as the process runs.
pub(crate) fn serve_sandbox(bound: Bound, sandbox: &Sandbox) {
    let limits = Limits {
        max_connections: 1024,
        ..ADMIN_LIMITS
    };
    let server = Arc::new(Server::new(limits));
    for listener in bound.listeners {
        let sandbox = sandbox.clone();
        let service = tower::service_fn(move |request| {
            let sandbox = sandbox.clone();
            async move { sandbox.answer(request).await }
        });
        server.serve(listener, service, |_, _| Sandbox::reject());
    }
}

/// The files that may change while we run.
struct Files {
    secret: Arc<dyn Reload>,
    /// Held while there is no secret.
    latch: Option<Latch>,
    others: Vec<Arc<dyn Reload>>,
    missing_for: Duration,
}

impl Files {
    /// Looks every few seconds, and at once when asked to. Never returns.
    async fn keep_reloading(&mut self, now: &Notify) {
        loop {
            // A time-out is the usual case here.
            let settle = match clock::timeout(RELOAD_EVERY, now.notified()).await {
                Ok(()) => {
                    tracing::info!("reading the files again");
                    Settle::Briefly
                }
                Err(_) => Settle::TwoReads,
            };
            self.reload(settle).await;
        }
    }

    async fn reload(&mut self, settle: Settle) {
        let all: Vec<_> = self.others.iter().chain([&self.secret]).cloned().collect();
        // A file may lie on a slow mount: requests do not wait for it.
        let reloaded = tokio::task::spawn_blocking(move || {
            for file in all {
                file.reload(settle);
            }
        })
        .await;
        if reloaded.is_err() {
            tracing::error!("looking at the files crashed");
        }
        self.release();
    }

    /// Drops the latch when there is a secret, and logs from time to time that there is none.
    fn release(&mut self) {
        if self.latch.is_none() {
            return;
        }
        if self.secret.is_loaded() {
            self.latch = None;
            return;
        }
        if self
            .missing_for
            .as_secs()
            .is_multiple_of(TELL_EVERY.as_secs())
        {
            tracing::warn!(
                "merchant.secret_file is missing or cannot be used: not ready, and the gateway is asked nothing: secret_unavailable"
            );
        }
        self.missing_for += RELOAD_EVERY;
    }
}

impl Reload for Network {
    fn is_loaded(&self) -> bool {
        true
    }

    fn reload(&self, settle: Settle) -> bool {
        Network::reload(self, settle)
    }
}

//! The whole program: built from the ground up, bound, run and drained.

mod behind;
mod bound;
mod build;
mod files;
mod in_process;
mod stories;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::error::Elapsed;

pub(crate) use self::behind::Behind;
pub use self::behind::{Answering, Unanswered, World};
pub(crate) use self::bound::{Bound, CannotBind, Opened};
pub(crate) use self::build::App;
pub use self::in_process::Sidecar;
use crate::admin::Admin;
use crate::api::Api;
use crate::clock;
use crate::sandbox::Sandbox;
use crate::sd_notify::{SdNotify, ServiceState};
use crate::server::{Hosts, Limits, Listener, Server};
use crate::signals::{Signal, Signals};

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
        // The files of its sockets are removed at the end of the run.
        let Opened {
            listeners,
            places,
            files: _files,
        } = api;
        serve_api(api_server, listeners, &api_service);
        serve_admin(admin_server, admin.listeners, &admin_service);
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = places.join(", "),
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
            () = sweep::keep_sweeping(&store, config.start.idempotency_ttl) => {}
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
        let drained = clock::timeout(config.listen.drain_timeout, drained);
        end(drained, store.broken(), second(signals)).await
    }
}

fn serve_api(server: &Arc<Server>, listeners: Vec<Listener>, api: &Api) {
    for listener in listeners {
        let rejections = api.clone();
        server.serve(listener, api.clone().service(), move |rejection, head| {
            rejections.reject(rejection, head)
        });
    }
}

fn serve_admin(server: &Arc<Server>, listeners: Vec<Listener>, admin: &Admin) {
    for listener in listeners {
        let rejections = admin.clone();
        server.serve(listener, admin.clone().service(), move |rejection, head| {
            rejections.reject(rejection, head)
        });
    }
}

/// Returns when what is under way is finished or out of its time, or cannot be, or is not waited for any more.
async fn end(
    drained: impl Future<Output = Result<(), Elapsed>>,
    broken: impl Future<Output = ()>,
    forced: impl Future<Output = ()>,
) -> End {
    tokio::select! {
        biased;
        () = broken => End::Broken,
        done = drained => {
            match done {
                Ok(()) => tracing::info!("everything is finished"),
                Err(_) => tracing::warn!("listen.drain_timeout is over: what is still under way is cut off"),
            }
            End::Drained
        }
        () = forced => {
            tracing::warn!("asked to end a second time: what is still under way is cut off");
            End::Forced
        }
    }
}

/// The admin listener needs no settings: probes and scrapers are few and small.
const ADMIN_LIMITS: Limits = Limits {
    max_connections: 64,
    header_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(120),
    hosts: Hosts::OneSinceHttp11,
};

async fn second(signals: &mut Signals) {
    while signals.next().await == Signal::Reload {}
}

/// Serves a sandbox gateway on these sockets, for as long as the process runs.
pub(crate) fn serve_sandbox(bound: Bound, sandbox: &Sandbox) {
    let limits = Limits {
        max_connections: 1024,
        hosts: Hosts::One,
        ..ADMIN_LIMITS
    };
    let server = Arc::new(Server::new(limits));
    let is_loopback = bound.address.is_loopback();
    for listener in bound.listeners {
        let sandbox = sandbox.clone();
        let service = tower::service_fn(move |request| {
            let sandbox = sandbox.clone();
            async move { sandbox.serve(request, is_loopback).await }
        });
        server.serve(listener, service, |_, _| Sandbox::reject());
    }
}

//! `tillgate dev`: the sidecar, with a sandbox gateway behind it.

use std::ffi::OsString;
use std::io::IsTerminal;

use secrecy::SecretString;

use super::banner::banner;
use super::child::Child;
use super::{Exit, answer, begin, cannot_bind, complain, failed, tell, tour};
use crate::admin;
use crate::api;
use crate::app::{App, Behind, Bound, CannotBind, End, serve_sandbox};
use crate::config::{self, Environment, Source};
use crate::sandbox::{DEFAULT_SECRET, Options, Sandbox};
use crate::sd_notify::SdNotify;
use crate::server::Address;
use crate::signals::{Signal, Signals};

/// Where the parts of a running `dev` are.
pub(super) struct Places {
    /// The API.
    pub(super) api: String,
    /// Probes, metrics and the status page.
    pub(super) admin: String,
    /// The sandbox gateway.
    pub(super) sandbox: String,
}

/// Runs until asked to end; with `tour`, until the tour is over; with a command, until that app has ended.
pub(super) async fn dev(tour: bool, command: &[OsString], environment: &Environment) -> Exit {
    let bound = bind_or_next("sandbox", Address::Localhost(8081))
        .and_then(|sandbox| {
            Ok((
                sandbox,
                bind_or_next("listen.address", api::DEFAULT_ADDRESS)?,
            ))
        })
        .and_then(|(sandbox, api)| {
            Ok((
                sandbox,
                api,
                bind_or_next("admin.address", admin::DEFAULT_ADDRESS)?,
            ))
        });
    let (sandbox, api, admin) = match bound {
        Ok(bound) => bound,
        Err(error) => return cannot_bind(&error),
    };
    let places = Places {
        api: format!("http://{}", api.address.reachable()),
        admin: format!("http://{}", admin.address.reachable()),
        sandbox: format!("http://{}", sandbox.address.reachable()),
    };
    let mut given = vec![
        ("gateway.url", places.sandbox.as_str()),
        ("gateway.public_url", ""),
    ];
    if tour {
        // The tour prints what happens; the log would say it twice.
        given.push(("log.level", "warn"));
    }
    let loaded = match config::load(
        Source::Given(&given, SecretString::from(DEFAULT_SECRET)),
        environment,
    ) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return tell(&diagnostics),
    };
    let (mut signals, _log) = match begin(&loaded.config.log, environment) {
        Ok(begun) => begun,
        Err(exit) => return exit,
    };
    let token_file = loaded.config.listen.token_file.clone();
    serve_sandbox(sandbox, &Sandbox::new(Options::default()));
    let app = match App::build(loaded, Behind::Network, true) {
        Ok(app) => app,
        Err(error) => return failed(&error),
    };
    let service_manager = SdNotify::default();
    if tour {
        let authorization = match config::authorization(token_file.as_ref()) {
            Ok(authorization) => authorization,
            Err(diagnostics) => return tell(&diagnostics),
        };
        return tokio::select! {
            _ = app.run(api.into(), admin, &mut signals, &service_manager) => Exit::Failed,
            walked = tour::walk(&places, authorization.as_deref()) => walked.map_or_else(|error| failed(&*error), |()| Exit::Fine),
        };
    }
    let color = std::io::stdout().is_terminal() && environment.wants_color();
    if command.is_empty() {
        answer(&banner(&places, token_file.as_ref(), None, color));
        return match app
            .run(api.into(), admin, &mut signals, &service_manager)
            .await
        {
            End::Drained => Exit::Fine,
            End::Forced | End::Broken => Exit::Failed,
        };
    }
    // Both sockets listen already: whatever the app asks for first is answered.
    let mut child = match Child::start(command, &places.api, environment) {
        Ok(child) => child,
        Err(error) => {
            let name = command
                .first()
                .map(|name| name.display().to_string())
                .unwrap_or_default();
            complain(&format!(
                "cannot run {name:?}: {error}: give a program that is in PATH, or its path"
            ));
            return Exit::Usage;
        }
    };
    answer(&banner(
        &places,
        token_file.as_ref(),
        command.first(),
        color,
    ));
    let (pass, mut forwarded) = Signals::forwarded();
    let mut exit = None;
    let attended = async {
        let ended = child.attend(&mut signals, &pass).await;
        exit = Some(ended);
        pass.on(Signal::Terminate);
        if ended == Exit::Failed {
            // Asked twice.
            pass.on(Signal::Terminate);
        }
        loop {
            pass.on(signals.next().await);
        }
    };
    tokio::select! {
        _ = app.run(api.into(), admin, &mut forwarded, &service_manager) => {}
        never = attended => never,
    }
    match exit {
        Some(exit) => exit,
        // The store is broken.
        None => {
            child.end().await;
            Exit::Failed
        }
    }
}

/// The usual port, or a free one where it is taken.
fn bind_or_next(key: &'static str, address: Address) -> Result<Bound, CannotBind> {
    match Bound::new(key, address) {
        Err(error) if error.is_taken() => Bound::new(key, address.with_port(0)),
        bound => bound,
    }
}

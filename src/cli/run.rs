//! `tillgate run`: the sidecar.

use std::path::Path;

use super::exit::Exit;
use super::output::{failed, misconfigured};
use crate::app::{App, Behind, Bound, End, Opened};
use crate::config::{self, Environment, Source};
use crate::gateway;
use crate::hardening::Hardening;
use crate::sd_notify::SdNotify;
use crate::signals::{Signal, Signals};
use crate::telemetry;

/// Runs the sidecar until a signal ends it, or its store fails for good.
pub(super) async fn run(path: Option<&Path>, environment: Environment) -> Exit {
    let loaded = match config::load(Source::File(path), &environment) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return misconfigured(&diagnostics),
    };
    // Signals are listened for before anything is open, so that an early one is not lost.
    let (mut signals, _log) = match begin(&loaded.config.log, &environment, Signal::Reload) {
        Ok(begun) => begun,
        Err(exit) => return exit,
    };
    let service_manager = environment.service_manager().unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) cannot be told");
        SdNotify::default()
    });
    // It may hold the secret.
    drop(environment);
    warn(&loaded.explained.remarks.warnings);
    let (listen, admin) = (&loaded.config.listen, &loaded.config.admin);
    let bound = Opened::new(&listen.address, &loaded.inherited)
        .and_then(|api| Ok((api, Bound::new("admin.address", admin.address)?)));
    let (api, admin) = match bound {
        Ok(bound) => bound,
        Err(error) => return failed(&error),
    };
    let app = match App::build(loaded, Behind::Network, false) {
        Ok(app) => app,
        Err(error) => return failed(&error),
    };
    let end = tokio::select! {
        end = app.run(api, admin, &mut signals, &service_manager) => end,
        never = service_manager.keep_alive() => match never {},
    };
    exit_of(end)
}

/// Checks that the secret would be found in an answer, starts the log, which ends when its guard is dropped, and begins to
/// listen for signals; SIGHUP asks for `hangup`.
///
/// # Errors
/// The exit code, if one of the three fails; the reason is printed.
pub(super) fn begin(
    log: &telemetry::Config,
    environment: &Environment,
    hangup: Signal,
) -> Result<(Signals, telemetry::Log), Exit> {
    gateway::prove_scrubbing().map_err(|error| failed(&error))?;
    let log = telemetry::start(log, environment.wants_color()).map_err(|error| failed(&error))?;
    let signals = Signals::listen(hangup).map_err(|error| failed(&error))?;
    Ok((signals, log))
}

/// The exit code for the end of a sidecar.
pub(super) fn exit_of(end: End) -> Exit {
    match end {
        End::Drained => Exit::Fine,
        End::Forced | End::Broken => Exit::Failed,
    }
}

/// Logs what somebody should do something about.
fn warn(warnings: &[String]) {
    let hardening = Hardening::now();
    if !hardening.is_whole() {
        tracing::warn!(
            ?hardening,
            "other programs of this user may read the memory of this one, and the secret in it"
        );
    }
    for warning in warnings {
        tracing::warn!(warning, "configuration");
    }
}

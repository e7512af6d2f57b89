//! `tillgate dev`: the sidecar, with a sandbox gateway behind it.

use std::ffi::OsString;
use std::io::IsTerminal;

use secrecy::SecretString;

use super::banner::banner;
use super::child::Child;
use super::exit::Exit;
use super::output::{answer, complain, failed, misconfigured};
use super::places::{Places, Sockets};
use super::run::{begin, exit_of};
use super::tour;
use crate::app::{App, Behind, Bound, serve_sandbox};
use crate::config::{self, Diagnostic, Environment, Loaded, Source};
use crate::sandbox::{DEFAULT_SECRET, Options, Sandbox};
use crate::sd_notify::SdNotify;
use crate::signals::{Signal, Signals};
use crate::text::FilePath;

/// Runs until a signal ends it; with `tour` until the tour is over; with a command until that app has ended.
pub(super) async fn dev(tour: bool, command: &[OsString], environment: &Environment) -> Exit {
    let sockets = match Sockets::open() {
        Ok(sockets) => sockets,
        Err(error) => return failed(&error),
    };
    let places = sockets.places();
    let loaded = match load(&places, tour, environment) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return misconfigured(&diagnostics),
    };
    let (signals, _log) = match begin(&loaded.config.log, environment) {
        Ok(begun) => begun,
        Err(exit) => return exit,
    };
    let token_file = loaded.config.listen.token_file.clone();
    serve_sandbox(sockets.sandbox, &Sandbox::new(Options::default()));
    let app = match App::build(loaded, Behind::Network, true) {
        Ok(app) => app,
        Err(error) => return failed(&error),
    };
    let dev = Dev {
        app,
        api: sockets.api,
        admin: sockets.admin,
        signals,
        places,
        token_file,
        color: std::io::stdout().is_terminal() && environment.wants_color(),
    };
    match command {
        _ if tour => dev.tour().await,
        [] => dev.alone().await,
        command => dev.beside(command, environment).await,
    }
}

/// The configuration of a sidecar whose gateway is the sandbox.
fn load(places: &Places, tour: bool, environment: &Environment) -> Result<Loaded, Vec<Diagnostic>> {
    let mut given = vec![
        ("gateway.url", places.sandbox.as_str()),
        ("gateway.public_url", ""),
    ];
    if tour {
        // The tour prints each request and answer itself.
        given.push(("log.level", "warn"));
    }
    let source = Source::Given(&given, SecretString::from(DEFAULT_SECRET));
    config::load(source, environment)
}

/// A sidecar that is built and not running yet. Its sandbox is running.
struct Dev {
    app: App,
    api: Bound,
    admin: Bound,
    signals: Signals,
    places: Places,
    token_file: Option<FilePath>,
    color: bool,
}

impl Dev {
    /// Runs it for as long as the tour takes.
    async fn tour(mut self) -> Exit {
        let authorization = match config::authorization(self.token_file.as_ref()) {
            Ok(authorization) => authorization,
            Err(diagnostics) => return misconfigured(&diagnostics),
        };
        let service_manager = SdNotify::default();
        tokio::select! {
            _ = self.app.run(self.api.into(), self.admin, &mut self.signals, &service_manager) => Exit::Failed,
            walked = tour::walk(&self.places, authorization.as_deref()) => {
                walked.map_or_else(|error| failed(&error), |()| Exit::Fine)
            }
        }
    }

    /// Runs it without an app of its own.
    async fn alone(mut self) -> Exit {
        self.greet(None);
        let service_manager = SdNotify::default();
        let end = self.app.run(
            self.api.into(),
            self.admin,
            &mut self.signals,
            &service_manager,
        );
        exit_of(end.await)
    }

    /// Runs it beside the app of this command, for as long as the app runs.
    async fn beside(mut self, command: &[OsString], environment: &Environment) -> Exit {
        // Both sockets listen already, so the first request of the app is answered.
        let mut child = match Child::start(command, &self.places.api, environment) {
            Ok(child) => child,
            Err(error) => {
                let name = command.first().map(|name| name.display().to_string());
                complain(&format!(
                    "cannot run {:?}: {error}: give a program that is in PATH, or its path",
                    name.unwrap_or_default()
                ));
                return Exit::Usage;
            }
        };
        self.greet(command.first());
        let (pass, mut forwarded) = Signals::forwarded();
        let mut exit = None;
        let signals = &mut self.signals;
        let attended = async {
            let ended = child.attend(signals, &pass).await;
            exit = Some(ended);
            pass.on(Signal::Terminate);
            if ended == Exit::Failed {
                // The app was killed: the second signal ends the sidecar at once, too.
                pass.on(Signal::Terminate);
            }
            loop {
                pass.on(signals.next().await);
            }
        };
        let service_manager = SdNotify::default();
        tokio::select! {
            _ = self.app.run(self.api.into(), self.admin, &mut forwarded, &service_manager) => {}
            never = attended => never,
        }
        match exit {
            Some(exit) => exit,
            // The sidecar ended first, because its store failed.
            None => {
                child.end().await;
                Exit::Failed
            }
        }
    }

    fn greet(&self, app: Option<&OsString>) {
        let token_file = self.token_file.as_ref();
        answer(&banner(&self.places, token_file, app, self.color));
    }
}

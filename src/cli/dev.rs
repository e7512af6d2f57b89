//! `tillgate dev`: the sidecar, with a sandbox gateway behind it.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{MemfdFlags, memfd_create};
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
use crate::webhook;

/// Runs until a signal ends it; with `tour` until the tour is over; with a command until that app has ended. Webhooks
/// are posted to the URL `webhook`, if there is one.
pub(super) async fn dev(
    tour: bool,
    webhook: Option<&str>,
    command: &[OsString],
    environment: &Environment,
) -> Exit {
    let sockets = match Sockets::open() {
        Ok(sockets) => sockets,
        Err(error) => return failed(&error),
    };
    let places = sockets.places();
    let webhook = match webhook.map(Webhook::new).transpose() {
        Ok(webhook) => webhook,
        Err(error) => return failed(&format!("no key for the webhooks can be made: {error}")),
    };
    let loaded = match load(&places, tour, webhook.as_ref(), environment) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return misconfigured(&diagnostics),
    };
    let (signals, _log) = match begin(&loaded.config.log, environment, Signal::Terminate) {
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
        webhook,
        color: std::io::stdout().is_terminal() && environment.wants_color(),
    };
    match command {
        _ if tour => dev.tour().await,
        [] => dev.alone().await,
        command => dev.beside(command, environment).await,
    }
}

/// The configuration of a sidecar whose gateway is the sandbox.
fn load(
    places: &Places,
    tour: bool,
    webhook: Option<&Webhook>,
    environment: &Environment,
) -> Result<Loaded, Vec<Diagnostic>> {
    let mut given = vec![
        ("gateway.url", places.sandbox.as_str()),
        ("gateway.public_url", ""),
    ];
    if tour {
        // The tour prints each request and answer itself.
        given.push(("log.level", "warn"));
    }
    if let Some(webhook) = webhook {
        given.push(("webhook.url", &webhook.url));
        given.push(("webhook.secret_file", &webhook.key_file.1));
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
    webhook: Option<Webhook>,
    color: bool,
}

/// The app's endpoint for webhooks, and the key that signs them.
struct Webhook {
    url: String,
    key: String,
    /// A file in memory that has the key, and its path for this process.
    key_file: (File, String),
}

impl Webhook {
    /// Makes a key.
    fn new(url: &str) -> io::Result<Self> {
        let key = webhook::fresh_key();
        let mut file = File::from(memfd_create("webhook-key", MemfdFlags::CLOEXEC)?);
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(key.as_bytes())?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(Self {
            url: url.to_owned(),
            key,
            key_file: (file, path),
        })
    }
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
        let mut variables = vec![("TILLGATE_URL", &*self.places.api)];
        let key = self.webhook.as_ref().map(|webhook| &*webhook.key);
        variables.extend(key.map(|key| ("TILLGATE_WEBHOOK_KEY", key)));
        let mut child = match Child::start(command, &variables, environment) {
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
            let ended = child.attend(signals).await;
            if let Some(how) = child.how_it_ended() {
                complain(&how);
            }
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
        let webhook = self
            .webhook
            .as_ref()
            .map(|webhook| (&*webhook.url, &*webhook.key));
        answer(&banner(&self.places, token_file, app, webhook, self.color));
    }
}

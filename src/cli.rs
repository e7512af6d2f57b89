//! Arguments, exit codes, and what the commands print.

mod banner;
mod check;
mod child;
mod client;
mod deliveries;
mod dev;
mod health;
mod orphans;
mod tour;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::app::{App, Behind, Bound, CannotBind, End, Opened};
use crate::config::{self, Diagnostic, Environment, Source};
use crate::hardening::{self, Hardening};
use crate::sandbox::{Fault as SandboxFault, Options, Sandbox};
use crate::sd_notify::SdNotify;
use crate::server::Address;
use crate::signals::{Signal, Signals};
use crate::{app, clock, telemetry};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Fine.
    Fine,
    /// Failed while running.
    Failed,
    /// Bad usage or configuration.
    Usage,
    /// As the app that it ran.
    AsApp(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::AsApp(code) => code,
        })
    }
}

/// A sidecar that keeps a payment gateway's merchant secret out of your app.
#[derive(Parser)]
#[command(name = "tillgate", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the sidecar
    Run(ConfigFile),
    /// Run the sidecar with a sandbox gateway behind it: everything works, no money moves
    Dev {
        /// Walk the steps of the gateway's guide, print each request and answer, and exit
        #[arg(long)]
        tour: bool,
        /// Your app, to run beside it, with TILLGATE_URL in its environment; dev ends when it ends, with its exit code
        #[arg(last = true, value_name = "CMD", conflicts_with = "tour")]
        command: Vec<OsString>,
    },
    /// Run the sandbox gateway alone
    Sandbox(SandboxArguments),
    /// Check the configuration: print every setting and where it comes from, or everything that is wrong
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Also look up the gateway, connect to it, and do TLS
        #[arg(long)]
        online: bool,
        /// Also start one payment of start.min_amount and throw its code away: the only proof that the secret is right
        #[arg(long, requires = "online")]
        start: bool,
    },
    /// Webhooks that the running sidecar has posted, or is to post
    Deliveries {
        #[command(flatten)]
        config: ConfigFile,
        #[command(subcommand)]
        action: Option<Deliveries>,
    },
    /// Print a fresh key to sign webhooks with, for webhook.secret_file
    WebhookSecret,
    /// Exit 0 if the running sidecar is ready, else 1
    Health {
        #[command(flatten)]
        config: ConfigFile,
        /// Keep asking for so long, like 10s
        #[arg(long, value_name = "DURATION", value_parser = clock::parse_duration)]
        wait: Option<Duration>,
    },
}

#[derive(Subcommand)]
enum Deliveries {
    /// List them, the newest first: id, type, state, made at, tries, next try at, last error, watch code
    List,
    /// Post one again
    Redeliver {
        /// Its id, like msg_…
        id: String,
    },
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration file [default: ./tillgate.toml, else /etc/tillgate/tillgate.toml, else variables alone]
    #[arg(long = "config", value_name = "FILE", global = true)]
    path: Option<PathBuf>,
}

#[derive(Args)]
struct SandboxArguments {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    listen: Address,
    /// The secret that it takes
    #[arg(long, default_value = crate::sandbox::DEFAULT_SECRET)]
    secret: String,
    /// Payments are paid by themselves after so long, like 5s
    #[arg(long, value_name = "DURATION", value_parser = clock::parse_duration)]
    auto_complete: Option<Duration>,
    /// What goes wrong, like start:status=500,rate=0.1 or watch:delay=3s; may be given several times
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<SandboxFault>,
}

/// Runs the program with these arguments, the first of which is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, everything else is bad usage; clap knows which stream is whose.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Fine
            };
        }
    };
    let environment = Environment::of_process();
    // Before there is a thread, and before anything secret is read.
    // The app that `dev` runs would inherit all of this, and the only secret there is the sandbox's.
    let runs_an_app =
        matches!(&arguments.command, Command::Dev { command, .. } if !command.is_empty());
    if !environment.is_debuggable() && !runs_an_app {
        hardening::apply();
    }
    // A sidecar is small: more threads than this would only cost memory on a large machine.
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the runtime cannot start: {error}"));
            return Exit::Failed;
        }
    };
    let exit = runtime.block_on(command(arguments.command, environment));
    // What is still running in the background has had its time.
    runtime.shutdown_background();
    exit
}

async fn command(command: Command, environment: Environment) -> Exit {
    match command {
        Command::Run(config) => run_sidecar(config, environment).await,
        Command::Dev { tour, command } => dev::dev(tour, &command, &environment).await,
        Command::Sandbox(arguments) => run_sandbox(arguments).await,
        Command::Check {
            config,
            online,
            start,
        } => check::check(config.path.as_deref(), &environment, online, start).await,
        Command::Deliveries { config, action } => {
            let redeliver = match &action {
                Some(Deliveries::Redeliver { id }) => Some(id.as_str()),
                Some(Deliveries::List) | None => None,
            };
            deliveries::deliveries(config.path.as_deref(), &environment, redeliver).await
        }
        Command::WebhookSecret => {
            answer(&crate::webhook::fresh_key());
            Exit::Fine
        }
        Command::Health { config, wait } => {
            health::health(config.path.as_deref(), &environment, wait).await
        }
    }
}

async fn run_sidecar(config: ConfigFile, environment: Environment) -> Exit {
    let loaded = match config::load(Source::File(config.path.as_deref()), &environment) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return tell(&diagnostics),
    };
    // Listened for before anything is open: a signal that comes early is not lost.
    let (mut signals, _log) = match begin(&loaded.config.log, &environment) {
        Ok(begun) => begun,
        Err(exit) => return exit,
    };
    let service_manager = environment.service_manager().unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) cannot be told");
        SdNotify::default()
    });
    // The secret may stand in it.
    drop(environment);
    let hardening = Hardening::now();
    if !hardening.is_whole() {
        tracing::warn!(
            ?hardening,
            "other programs of this user may read the memory of this one, and the secret in it"
        );
    }
    for warning in &loaded.explained.warnings {
        tracing::warn!(warning, "configuration");
    }
    let (listen, admin) = (&loaded.config.listen, &loaded.config.admin);
    let bound = Opened::new(&listen.address, loaded.inherited.as_ref())
        .and_then(|api| Ok((api, Bound::new("admin.address", admin.address)?)));
    let (api, admin) = match bound {
        Ok(bound) => bound,
        Err(error) => return cannot_bind(&error),
    };
    let app = match App::build(loaded, Behind::Network, false) {
        Ok(app) => app,
        Err(error) => return failed(&error),
    };
    let end = tokio::select! {
        end = app.run(api, admin, &mut signals, &service_manager) => end,
        never = service_manager.keep_alive() => match never {},
    };
    match end {
        End::Drained => Exit::Fine,
        End::Forced | End::Broken => Exit::Failed,
    }
}

async fn run_sandbox(arguments: SandboxArguments) -> Exit {
    let SandboxArguments {
        listen,
        secret,
        auto_complete,
        faults,
    } = arguments;
    let bound = match Bound::new("--listen", listen) {
        Ok(bound) => bound,
        Err(error) => return cannot_bind(&error),
    };
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return failed(&error),
    };
    let url = match bound.address {
        Address::One(address) => format!("http://{address}"),
        Address::Localhost(port) | Address::Everywhere(port) => format!("http://127.0.0.1:{port}"),
    };
    let sandbox = Sandbox::new(Options {
        secret,
        auto_complete,
        faults,
        ..Options::default()
    });
    app::serve_sandbox(bound, &sandbox);
    answer(&format!("sandbox listening on {url}"));
    while signals.next().await == Signal::Reload {}
    Exit::Fine
}

/// Starts the log, which ends when its guard is dropped, and listens for signals.
fn begin(
    log: &telemetry::Config,
    environment: &Environment,
) -> Result<(Signals, telemetry::Log), Exit> {
    let log = telemetry::start(log, environment.wants_color()).map_err(|error| failed(&error))?;
    Ok((Signals::listen().map_err(|error| failed(&error))?, log))
}

/// One line of an answer, on stdout. Whoever closed it does not want to know.
fn answer(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// One line to a person, on stderr.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "tillgate: {line}");
}

fn failed(error: &dyn std::error::Error) -> Exit {
    complain(&error.to_string());
    Exit::Failed
}

fn cannot_bind(error: &CannotBind) -> Exit {
    complain(&error.to_string());
    Exit::Failed
}

/// Everything that is wrong, at once.
fn tell(diagnostics: &[Diagnostic]) -> Exit {
    let mut text = String::new();
    for Diagnostic {
        key,
        place,
        what,
        help,
    } in diagnostics
    {
        text.push_str(&format!(
            "error: {key}: {what}\n   at: {place}\n help: {help}\n"
        ));
    }
    let plural = if diagnostics.len() == 1 { "" } else { "s" };
    let _ = writeln!(
        std::io::stderr().lock(),
        "{text}{} fault{plural} in the configuration",
        diagnostics.len()
    );
    Exit::Usage
}

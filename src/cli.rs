//! The arguments of the program, and the command that each of them runs.

mod banner;
mod check;
mod child;
mod client;
mod deliveries;
mod dev;
mod exit;
mod health;
mod machine;
mod orphans;
mod output;
mod places;
mod run;
mod sandbox;
mod store;
mod tour;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::runtime::Runtime;

use self::deliveries::Action;
pub use self::exit::Exit;
use self::output::complain;
use crate::config::Environment;
use crate::sandbox::Fault as SandboxFault;
use crate::server::{Address, ListenAddr};
use crate::{clock, hardening};

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
        /// Tell the app of completed payments at this URL, signed with a fresh key, which CMD has as TILLGATE_WEBHOOK_KEY
        #[arg(long, value_name = "URL", conflicts_with = "tour")]
        webhook: Option<String>,
        /// Your app, to run beside it, with TILLGATE_URL in its environment; dev ends when it ends, with its exit code
        #[arg(last = true, value_name = "CMD", conflicts_with = "tour")]
        command: Vec<std::ffi::OsString>,
    },
    /// Run the sandbox gateway alone
    Sandbox(SandboxArguments),
    /// Check the configuration: print every setting and where it comes from, or everything that is wrong
    Check {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        also: check::Also,
    },
    /// Webhooks that the running sidecar has posted, or is to post
    Deliveries {
        #[command(flatten)]
        config: ConfigFile,
        /// Where the sidecar's API is, like unix:/run/tillgate/api.sock or localhost:8700 [default: the Unix socket in
        /// listen.address, else its first address]
        #[arg(long, value_name = "ADDRESS", global = true)]
        api: Option<ListenAddr>,
        #[command(subcommand)]
        action: Option<Deliveries>,
    },
    /// Webhooks to the app: test them, and make keys to sign them with
    Webhook {
        #[command(flatten)]
        config: ConfigFile,
        #[command(subcommand)]
        action: Webhook,
    },
    #[command(hide = true)]
    WebhookSecret(FreshKey),
    /// The store in a database
    Store {
        #[command(flatten)]
        config: ConfigFile,
        #[command(subcommand)]
        action: Store,
    },
    /// Exit 0 if the running sidecar is ready, else 1
    Health {
        #[command(flatten)]
        config: ConfigFile,
        /// How long to keep asking, like 10s
        #[arg(long, value_name = "DURATION", value_parser = clock::parse_duration)]
        wait: Option<Duration>,
    },
}

#[derive(Subcommand)]
enum Deliveries {
    /// List them, the newest first
    List,
    /// Post one again, or all that have failed
    Redeliver {
        /// Its id, like msg_…
        #[arg(required_unless_present = "failed")]
        id: Option<String>,
        /// Post all again that have failed, and are not tried again by themselves
        #[arg(long, conflicts_with = "id")]
        failed: bool,
    },
}

#[derive(Subcommand)]
enum Webhook {
    /// Post one signed message about nothing (tillgate.test) to webhook.url, and print what came back; exit 0 for a 2xx
    Test,
    /// Print a fresh key to sign webhooks with, for webhook.secret_file
    Secret(FreshKey),
}

#[derive(Args)]
struct FreshKey {
    /// A new file for the key, which only its owner can open; nothing is overwritten
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Store {
    /// Print the SQL that makes the tables of a postgres: store, for whoever has to run it by hand
    Schema,
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
    /// Payments become paid by themselves after this time, like 5s
    #[arg(long, value_name = "DURATION", value_parser = clock::parse_duration)]
    auto_complete: Option<Duration>,
    /// What goes wrong, like start:status=500,rate=0.1 or watch:delay=3s; may be given several times
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<SandboxFault>,
}

/// Runs the program with the arguments of the process.
///
/// Not generic: everything that it calls would be compiled a second time, into the program.
pub fn run() -> Exit {
    let environment = Environment::of_process();
    // Before anything else: until then other programs of this user can read the environment, and a secret in it.
    if !environment.is_debuggable() {
        hardening::close_memory();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, everything else is bad usage; clap chooses the stream for each.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Fine
            };
        }
    };
    // Applied before any thread is started. Not with an app under `dev`: it would inherit all of this, and the only secret
    // there is the sandbox's.
    let runs_an_app =
        matches!(&arguments.command, Command::Dev { command, .. } if !command.is_empty());
    if runs_an_app {
        hardening::open_memory();
    } else if !environment.is_debuggable() {
        hardening::apply();
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => {
            complain(&why);
            return Exit::Failed;
        }
    };
    let exit = runtime.block_on(command(arguments.command, environment));
    // The command has waited for the tasks that matter; the others are dropped.
    runtime.shutdown_background();
    exit
}

/// Makes the threads that everything runs on.
///
/// # Errors
/// Says which limit of the system is in the way.
fn runtime() -> Result<Runtime, String> {
    // More threads would only cost memory on a large machine: a sidecar has little to do.
    let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(4));
    machine::suffices(workers)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        // For files and names, one at a time each; they stay, since there may be no threads for others later.
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(60))
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot start: {error}"))?;
    // While there is one, others that the system does not give are waited for.
    runtime.spawn_blocking(|| ());
    Ok(runtime)
}

async fn command(command: Command, environment: Environment) -> Exit {
    match command {
        Command::Run(config) => run::run(config.path.as_deref(), environment).await,
        Command::Dev {
            tour,
            webhook,
            command,
        } => dev::dev(tour, webhook.as_deref(), &command, &environment).await,
        Command::Sandbox(SandboxArguments {
            listen,
            secret,
            auto_complete,
            faults,
        }) => sandbox::sandbox(listen, secret, auto_complete, faults).await,
        Command::Check { config, also } => {
            check::check(config.path.as_deref(), &environment, also).await
        }
        Command::Deliveries {
            config,
            api,
            action,
        } => {
            let action = match action {
                Some(Deliveries::Redeliver { id: Some(id), .. }) => Action::Redeliver(id),
                Some(Deliveries::Redeliver { id: None, .. }) => Action::RedeliverFailed,
                Some(Deliveries::List) | None => Action::List,
            };
            deliveries::deliveries(config.path.as_deref(), &environment, api, action).await
        }
        Command::Webhook {
            config,
            action: Webhook::Test,
        } => webhook::test(config.path.as_deref(), &environment).await,
        Command::Webhook {
            action: Webhook::Secret(FreshKey { out }),
            ..
        }
        | Command::WebhookSecret(FreshKey { out }) => webhook::secret(out.as_deref()),
        Command::Store {
            config,
            action: Store::Schema,
        } => store::schema(config.path.as_deref(), &environment),
        Command::Health { config, wait } => {
            health::health(config.path.as_deref(), &environment, wait).await
        }
    }
}

//! A PostgreSQL for the bench alone, with the settings of its package: what it commits is on the disk.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::process;

/// A user without rights: a server refuses to run as root.
const NOBODY: u32 = 65534;
/// More than the connections of 50 replicas.
const CONNECTIONS: &str = "max_connections=150";

/// A server, which is gone when this is dropped.
pub(super) struct Postgres {
    port: u16,
    programs: PathBuf,
    postmaster: Child,
    stores: Cell<u32>,
    cpu_times: RefCell<HashMap<u32, Duration>>,
    directory: TempDir,
}

impl Postgres {
    /// One that runs and has nothing in it; `None` where it is not installed.
    pub(super) async fn new() -> Option<Self> {
        let programs = programs()?;
        let directory = directory();
        let data = directory.path().join("data");
        let mut initdb = unprivileged(&programs.join("initdb"));
        initdb.arg("-D").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        succeeds(&mut initdb);
        let server = Self::launch(programs, directory).await;
        let postgres = server.client("postgres").await.expect("it answers");
        for statement in [
            "create role tillgate login",
            "create database tillgate owner tillgate",
        ] {
            postgres.batch_execute(statement).await.expect("it is run");
        }
        Some(server)
    }

    /// Starts what is in this directory, and waits until it answers.
    async fn launch(programs: PathBuf, directory: TempDir) -> Self {
        let port = process::free_addresses()[0].port();
        let postmaster = spawn(&programs, directory.path(), port);
        let mut server = Self {
            port,
            programs,
            postmaster,
            stores: Cell::new(0),
            cpu_times: RefCell::default(),
            directory,
        };
        server.answers().await;
        server
    }

    /// Waits until it answers. While processes of the last one are not gone yet it ends, and is started again.
    async fn answers(&mut self) {
        let began = Instant::now();
        while self.client("postgres").await.is_none() {
            let waited = began.elapsed();
            assert!(waited < Duration::from_secs(60), "no PostgreSQL in time");
            if self.postmaster.try_wait().expect("a child").is_some() {
                self.postmaster = spawn(&self.programs, self.directory.path(), self.port);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Another server that follows this one.
    pub(super) async fn standby(&self) -> Self {
        let directory = directory();
        let mut backup = unprivileged(&self.programs.join("pg_basebackup"));
        backup.arg("-D").arg(directory.path().join("data")).args([
            &format!("--host={}", self.directory.path().display()),
            &format!("--port={}", self.port),
            "--username=postgres",
            "--write-recovery-conf",
            "--checkpoint=fast",
        ]);
        succeeds(&mut backup);
        Self::launch(self.programs.clone(), directory).await
    }

    /// From here on it takes writes itself.
    pub(super) async fn promote(&self) {
        let client = self.of_stores().await;
        let promoted = client.execute("select pg_promote(true, 60)", &[]).await;
        promoted.expect("it is promoted");
    }

    /// Kills the postmaster; its children end when they notice.
    pub(super) fn kill(&mut self) {
        self.postmaster.kill().expect("it runs");
        self.postmaster.wait().expect("it is a child");
    }

    /// Starts it after it was killed, and waits until it answers.
    pub(super) async fn recover(&mut self) {
        self.postmaster = spawn(&self.programs, self.directory.path(), self.port);
        self.answers().await;
    }

    pub(super) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The settings of a store that nobody has used yet, reached by these addresses; and its schema.
    pub(super) fn store(&self, addresses: &[SocketAddr]) -> (String, String) {
        self.stores.set(self.stores.get() + 1);
        let schema = format!("bench{}", self.stores.get());
        let hosts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let hosts = hosts.join(",");
        let url = format!("postgres://tillgate@{hosts}/tillgate?schema={schema}");
        (url, schema)
    }

    /// A connection of the superuser to this database, over the Unix socket.
    pub(super) async fn client(&self, database: &str) -> Option<Client> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.directory.path())
            .port(self.port)
            .user("postgres")
            .dbname(database);
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// The same to the database of the stores.
    pub(super) async fn of_stores(&self) -> Client {
        self.client("tillgate").await.expect("it answers")
    }

    /// Time on a core so far, of all of its processes; of those that are gone, as far as it was seen.
    pub(super) fn cpu_time(&self) -> Duration {
        let id = self.postmaster.id();
        let mut seen = self.cpu_times.borrow_mut();
        for id in children_of(id).into_iter().chain([id]) {
            let time = seen.entry(id).or_default();
            *time = process::cpu_time(id).max(*time);
        }
        seen.values().sum()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["-s", "INT", &self.postmaster.id().to_string()])
            .stderr(Stdio::null())
            .status();
        let _ = self.postmaster.wait();
    }
}

/// Where `initdb` and the others are: Debian keeps them apart from other programs.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql");
    let mut versions: Vec<_> = debian
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    // The newest first.
    versions.sort_by_key(|path| {
        let version = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        std::cmp::Reverse(version.unwrap_or(0_u32))
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions
        .into_iter()
        .map(|path| path.join("bin"))
        .chain(std::env::split_paths(&path))
        .find(|path| path.join("initdb").is_file() && path.join("postgres").is_file())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory that the server can reach.
fn directory() -> TempDir {
    let directory = tempfile::Builder::new().prefix("tillgate-bench-").tempdir();
    let directory = directory.expect("a directory");
    if is_root() {
        std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    directory
}

/// A program that runs as a user without rights where the bench runs as root.
fn unprivileged(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args([
            &format!("--reuid={NOBODY}"),
            &format!("--regid={NOBODY}"),
            "--clear-groups",
            "--pdeathsig=QUIT",
            "--",
        ]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn succeeds(command: &mut Command) {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn spawn(programs: &Path, directory: &Path, port: u16) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"));
    let log = log.expect("a file");
    let sockets = format!("unix_socket_directories={}", directory.display());
    let mut command = unprivileged(&programs.join("postgres"));
    command.arg("-D").arg(directory.join("data"));
    for parameter in [&sockets, &format!("port={port}"), CONNECTIONS] {
        command.arg("-c").arg(parameter);
    }
    command.stdout(log.try_clone().expect("a file")).stderr(log);
    command.spawn().expect("it starts")
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("proc(5)").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name is in brackets, and may have some in it; then the state, and then the parent.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1) == Some(&*parent.to_string())
    })
    .collect()
}

//! A real PostgreSQL for one test: started, stopped, killed and paused by it, on a port of its own.

mod disk;
pub mod processes;
mod standby;
pub mod template;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Child;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use self::disk::Mount;
pub use self::disk::{Ballast, has_small_disks};
pub use self::template::{PASSWORD, USER, has_postgres};
use super::{show_end, until};
use crate::harness::free_port;

/// How a server is to be.
#[derive(Clone, Default)]
pub struct Options {
    /// Parameters of the server, beside those that all have.
    pub parameters: Vec<(&'static str, String)>,
    /// Variables of its environment.
    pub variables: Vec<(String, String)>,
    /// Everything but the write-ahead log is on a disk of so many MiB, which takes root.
    pub small_disk: Option<u32>,
    /// The write-ahead log is on one.
    pub small_log_disk: Option<u32>,
}

impl Options {
    pub fn parameter(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.parameters.push((name, value.into()));
        self
    }
}

/// A server, which runs or not. It is gone when this is dropped.
pub struct Postgres {
    pub port: u16,
    options: Options,
    data: PathBuf,
    postmaster: Mutex<Option<Child>>,
    /// Dropped before the directory that they are in.
    mounts: Vec<Mount>,
    directory: TempDir,
}

impl Postgres {
    /// One that runs, as it is after its installation.
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// The same with these options.
    pub async fn with(options: Options) -> Self {
        let server = Self::stopped(options).await;
        server.start().await;
        server
    }

    /// One that does not run yet.
    pub async fn stopped(options: Options) -> Self {
        let directory = template::directory();
        let (data, mounts) = disk::prepare(directory.path(), &options);
        template::copy_to(&data).await;
        if options.small_disk.is_some() || options.small_log_disk.is_some() {
            disk::move_log(directory.path(), &data).await;
        }
        Self::of(directory, data, options, mounts)
    }

    /// One whose data is there already.
    fn of(directory: TempDir, data: PathBuf, options: Options, mounts: Vec<Mount>) -> Self {
        Self {
            port: free_port(),
            options,
            data,
            postmaster: Mutex::default(),
            mounts,
            directory,
        }
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The directory that it keeps everything in.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory of its Unix socket.
    pub fn sockets(&self) -> &Path {
        self.directory.path()
    }

    /// Everything that the server has logged.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Starts it, and waits until it answers.
    pub async fn start(&self) {
        self.launch();
        self.answers().await;
    }

    /// Starts it.
    pub fn launch(&self) {
        let mut postmaster = self.postmaster.lock().unwrap();
        assert!(postmaster.is_none(), "it runs already");
        let sockets = self.directory.path().to_str().unwrap();
        let port = self.port.to_string();
        // The variables are its own, not those of what it is started by.
        let mut command = template::unprivileged(Path::new("env"));
        let variables = self.options.variables.iter();
        command.args(variables.map(|(name, value)| format!("{name}={value}")));
        command.arg(template::program("postgres"));
        command.arg("-D").arg(&self.data);
        let parameters = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", sockets),
            ("shared_buffers", "16MB"),
            ("max_connections", "60"),
            ("autovacuum", "off"),
            ("dynamic_shared_memory_type", "mmap"),
            ("log_line_prefix", "%m [%p] %a "),
            ("jit", "off"),
        ];
        for (name, value) in parameters {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in &self.options.parameters {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log = log.expect("a file");
        let child = command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn();
        *postmaster = Some(child.expect("it starts"));
    }

    /// Waits until it takes connections.
    pub async fn answers(&self) {
        until("the server answers", async || {
            self.try_connect("postgres").await
        })
        .await;
    }

    /// Stops it in order: who is connected is cut off (`fast`).
    pub async fn stop(&self) {
        self.end_by(Signal::INT).await;
    }

    /// Stops it at once, as a crash does: it recovers when it starts again (`immediate`).
    pub async fn stop_immediately(&self) {
        self.end_by(Signal::QUIT).await;
    }

    async fn end_by(&self, signal: Signal) {
        let mut postmaster = self.taken();
        let id = processes::id_of(&postmaster);
        processes::signal(&[id], signal);
        let ended = super::in_time("the server ends", postmaster.wait()).await;
        ended.expect("it is waited for");
    }

    fn taken(&self) -> Child {
        let postmaster = self.postmaster.lock().unwrap().take();
        postmaster.expect("it runs")
    }

    /// Its processes, the postmaster first.
    fn processes(&self) -> Vec<i32> {
        let postmaster = self.postmaster.lock().unwrap();
        processes::family(postmaster.as_ref().expect("it runs"))
    }

    /// Kills the postmaster and all that it has started, without a word.
    pub async fn kill(&self) {
        let mut postmaster = self.taken();
        processes::signal(&processes::family(&postmaster), Signal::KILL);
        postmaster.wait().await.expect("it is waited for");
    }

    /// Kills one backend as the kernel does that has no memory left: the others end too, what is not logged is emptied,
    /// and the postmaster begins anew.
    pub async fn crash(&self) {
        let (victim, witness) = (
            self.connect("postgres").await,
            self.connect("postgres").await,
        );
        let row = victim.query_one("select pg_backend_pid()", &[]).await;
        let id: i32 = row.expect("a row").get(0);
        processes::signal(&[id], Signal::KILL);
        // The postmaster ends all others when it has noticed.
        until("all backends are gone", async || {
            witness.is_closed().then_some(())
        })
        .await;
        self.answers().await;
    }

    /// Stops all of its processes where they are: it accepts connections (the kernel does) and answers nothing.
    pub fn pause(&self) {
        // The postmaster first, so that no new one comes.
        processes::signal(&self.processes()[..1], Signal::STOP);
        processes::signal(&self.processes(), Signal::STOP);
    }

    pub fn resume(&self) {
        processes::signal(&self.processes(), Signal::CONT);
    }

    /// Waits until it either takes connections or has ended by itself; says whether it takes some.
    pub async fn answers_or_ended(&self) -> bool {
        let came = until("the server answers, or it is gone", async || {
            let has_ended = {
                let mut postmaster = self.postmaster.lock().unwrap();
                let postmaster = postmaster.as_mut().expect("it ran");
                postmaster.try_wait().expect("a child").is_some()
            };
            if has_ended {
                return Some(false);
            }
            self.try_connect("postgres").await.map(|_| true)
        })
        .await;
        if !came {
            self.taken();
        }
        came
    }

    /// A connection of the superuser to this database, over the Unix socket. Its writes never wait for a standby.
    pub async fn connect(&self, database: &str) -> Client {
        let found = self.try_connect(database).await;
        found.unwrap_or_else(|| panic!("no connection; the log:\n{}", self.log()))
    }

    async fn try_connect(&self, database: &str) -> Option<Client> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.directory.path())
            .port(self.port)
            .user("postgres")
            .dbname(database)
            .connect_timeout(std::time::Duration::from_secs(5))
            .options("-c synchronous_commit=local -c default_transaction_read_only=off");
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// Runs this as the superuser in the database of the sidecars: its rows, as text.
    pub async fn query(&self, statements: &str) -> Vec<Vec<String>> {
        let client = self.connect(USER).await;
        let answers = super::in_time("an answer of the server", client.simple_query(statements));
        let answers = answers.await;
        let answers = answers.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
        let rows = answers.into_iter().filter_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| {
            let column = |i| row.get(i).unwrap_or("").to_owned();
            (0..row.len()).map(column).collect()
        })
        .collect()
    }

    /// The first column of the first row.
    pub async fn query_one(&self, statement: &str) -> String {
        let rows = self.query(statement).await;
        let row = rows
            .first()
            .unwrap_or_else(|| panic!("no row: {statement}"));
        row[0].clone()
    }

    /// Sets a parameter of the running server, and waits until new connections have it.
    pub async fn set(&self, name: &str, value: &str) {
        self.query(&format!("alter system set {name} = '{value}'"))
            .await;
        self.query("select pg_reload_conf()").await;
        // As a sidecar's connection has it: that of the superuser begins with parameters of its own.
        let shown = format!("select reset_val from pg_settings where name = '{name}'");
        until(&format!("{name} is {value}"), async || {
            let postgres = self.plain().await?;
            let row = postgres.query_one(&shown, &[]).await.ok()?;
            (row.get::<_, &str>(0) == value).then_some(())
        })
        .await;
    }

    async fn plain(&self) -> Option<Client> {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(self.directory.path())
            .port(self.port)
            .user("postgres")
            .dbname(USER);
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// Ends every connection of the sidecars.
    pub async fn terminate_all(&self) -> usize {
        let statement = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{USER}'"
        );
        self.query(&statement).await.len()
    }

    /// How many connections the sidecars have.
    pub async fn connections(&self) -> usize {
        let statement = format!("select 1 from pg_stat_activity where usename = '{USER}'");
        self.query(&statement).await.len()
    }

    /// Fills the small disk to its last byte; there is room again when this is dropped.
    pub fn fill(&self) -> Ballast {
        self.mounts.first().expect("a small disk").fill()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_end("the server", &self.log());
        }
        if let Some(postmaster) = self.postmaster.get_mut().unwrap() {
            processes::end(postmaster);
        }
    }
}

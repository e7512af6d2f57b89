//! PgBouncer in transaction mode, between the sidecars and their database.

use std::net::SocketAddr;
use std::process::Stdio;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Child;

use super::postgres::processes::{id_of, signal};
use super::postgres::{PASSWORD, Postgres, USER, template};
use super::until;
use crate::harness::{free_port, skip};

/// A pool, which is gone when this is dropped.
pub struct PgBouncer {
    pub address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

/// Where it is: not in every user's path.
fn program() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = std::path::PathBuf::from("/usr/sbin");
    std::env::split_paths(&path)
        .chain([usual])
        .map(|directory| directory.join("pgbouncer"))
        .find(|path| path.is_file())
}

pub fn has_pgbouncer() -> bool {
    program().is_some() || skip("pgbouncer is not installed")
}

impl PgBouncer {
    /// It does nothing until [`PgBouncer::resume`], and its machine acknowledges what it is sent.
    pub fn pause(&self) {
        signal(&[id_of(&self.child)], Signal::STOP);
    }

    pub fn resume(&self) {
        signal(&[id_of(&self.child)], Signal::CONT);
    }

    /// In front of this server, with so many connections to it at most.
    pub async fn before(server: &Postgres, connections: usize) -> Self {
        let directory = template::directory();
        let path = |name: &str| directory.path().join(name);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let users = path("users");
        std::fs::write(&users, format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
        let config = format!(
            "[databases]\n{USER} = host=127.0.0.1 port={} dbname={USER}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
             auth_file = {}\npool_mode = transaction\ndefault_pool_size = {connections}\n\
             max_client_conn = 200\n",
            server.port,
            address.port(),
            users.display()
        );
        std::fs::write(path("config"), config).unwrap();
        for name in ["users", "config"] {
            template::give_away(&path(name));
        }
        let log = std::fs::File::create(path("log")).unwrap();
        let child = template::unprivileged(&program().expect("it is installed"))
            .arg(path("config"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        let pool = Self {
            address,
            child: child.expect("it starts"),
            _directory: directory,
        };
        until("the pool listens", async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        pool
    }
}

//! A PostgreSQL for the promises, started once for all tests of the process. It ends with the process.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs, thread};

use tempfile::TempDir;

use crate::random;
use crate::store::Place;

/// Returns a store that is empty in a running server; `None` where PostgreSQL is not installed, with a line that says so.
pub(super) fn place() -> Option<Place> {
    static PORT: OnceLock<Option<u16>> = OnceLock::new();
    let port = (*PORT.get_or_init(start))?;
    let schema = random::token(12).to_lowercase();
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?schema=t{schema}");
    Some(url.parse().unwrap())
}

#[expect(clippy::disallowed_methods, reason = "a test is no program")]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name)
}

/// Debian keeps the server out of the path.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = versions.map(|version| version.unwrap().path().join("bin"));
    let path = variable("PATH").unwrap_or_default();
    let path: Vec<_> = env::split_paths(&path).collect();
    let mut all = debian.chain(path);
    all.find(|directory| directory.join("initdb").exists())
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn skip() {
    eprintln!("skipped: PostgreSQL is not installed");
}

fn start() -> Option<u16> {
    let Some(programs) = programs() else {
        assert!(
            variable("TILLGATE_TEST_ALL").is_none(),
            "PostgreSQL is not installed"
        );
        skip();
        return None;
    };
    let directory = TempDir::new().unwrap().keep();
    let data = directory.join("data");
    fs::create_dir(&data).unwrap();
    // The server does not run as root.
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        for path in [&directory, &data] {
            let done = Command::new("chown").arg("nobody").arg(path).status();
            assert!(done.unwrap().success());
        }
    }
    let command = |program: &str| {
        let program = programs.join(program);
        if !is_root {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        command.args(["--pdeathsig=KILL", "--"]).arg(program);
        command
    };
    let made = command("initdb")
        .args(["-U", "postgres", "--auth=trust", "--no-sync", "-D"])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success(), "initdb");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut server = command("postgres");
    server.args(["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1"]);
    server.arg("-c").arg(format!("port={port}"));
    server.arg("-k").arg(&directory).arg("-D").arg(&data);
    server.stdout(Stdio::null()).stderr(Stdio::null());
    // It is killed when the thread ends that started it: with the process.
    thread::spawn(move || {
        let mut server = server.spawn().unwrap();
        let _ = server.wait();
    });
    Some(port)
}

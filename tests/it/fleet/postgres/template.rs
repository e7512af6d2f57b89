//! The data directory that each server of a test begins with: made once for this build, then copied.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once};

use tempfile::TempDir;
use tokio::process::Command;

use super::{Options, Postgres};
use crate::harness::skip;

/// The role that sidecars connect as.
pub const USER: &str = "tillgate";
pub const PASSWORD: &str = "hunter2-of-the-tests";
/// A user without rights: a server refuses to run as root.
const NOBODY: u32 = 65534;
/// To be changed with what [`make`] does.
const REVISION: u32 = 1;

/// The directory of `initdb` and the others.
static PROGRAMS: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let debian = std::fs::read_dir("/usr/lib/postgresql");
    let mut versions: Vec<_> = debian
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    // The newest first.
    versions.sort_by_key(|path| {
        let name = path.file_name().and_then(OsStr::to_str);
        std::cmp::Reverse(name.and_then(|name| name.parse::<u32>().ok()))
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&path);
    versions
        .into_iter()
        .map(|path| path.join("bin"))
        .chain(others)
        .find(|path| path.join("initdb").is_file() && path.join("postgres").is_file())
});

/// Whether there is a PostgreSQL on this machine. One line for all tests says that there is none.
pub fn has_postgres() -> bool {
    static SAID: Once = Once::new();
    let why = "the tests of fleets need PostgreSQL, and it is not installed";
    let found = PROGRAMS.is_some();
    if !found {
        match std::env::var_os("TILLGATE_TEST_ALL").is_some_and(|all| all == "1") {
            true => _ = skip(why),
            false => SAID.call_once(|| _ = skip(why)),
        }
    }
    found
}

pub fn program(name: &str) -> PathBuf {
    PROGRAMS.as_ref().expect("PostgreSQL").join(name)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program that runs as a user without rights where these tests run as root. It ends with the thread that started it.
pub fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let user = [
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        "--clear-groups".to_owned(),
        "--pdeathsig=QUIT".to_owned(),
        "--".to_owned(),
    ];
    command.args(user).arg(program);
    command
}

/// Gives a file or directory to the user of [`unprivileged`].
pub fn give_away(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
}

/// A directory below the one for temporary files, which that user can reach.
pub fn directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("tillgate-fleet-")
        .tempdir()
        .expect("a directory");
    give_away(directory.path());
    directory
}

/// Runs it to its end, which must be a good one.
pub async fn succeeds(command: &mut Command) -> String {
    let output = command.output().await.expect("it starts");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

/// Copies the template to this place.
pub async fn copy_to(data: &Path) {
    let template = template().await;
    succeeds(Command::new("cp").arg("-a").arg(&template).arg(data)).await;
}

/// Where the template is; makes it where it is not.
async fn template() -> PathBuf {
    let version = succeeds(Command::new(program("postgres")).arg("--version")).await;
    let words = |c: char| !c.is_ascii_alphanumeric();
    let version = version.split(words).collect::<Vec<_>>().join("-");
    let user = rustix::process::geteuid().as_raw();
    let name = format!("template-{REVISION}-{user}-{version}");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (template, partial) = (home.join(&name), home.join(format!("{name}partial")));
    // Other tests may be at it, in this process or in another.
    let lock = File::create(home.join(format!("{name}lock"))).expect("a file");
    lock.lock().expect("a lock");
    if !template.is_dir() {
        let made = make(directory()).await;
        let _ = std::fs::remove_dir_all(&partial);
        succeeds(Command::new("cp").arg("-a").arg(made.data()).arg(&partial)).await;
        std::fs::rename(&partial, &template).expect("the same file system");
    }
    template
}

/// A cluster with the database and the role that sidecars use. A connection over TCP needs the password.
async fn make(directory: TempDir) -> Postgres {
    let data = directory.path().join("data");
    let mut initdb = unprivileged(&program("initdb"));
    initdb.arg("-D").arg(&data).args([
        "--username=postgres",
        "--auth-local=trust",
        "--auth-host=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        // Small files are copied sooner.
        "--wal-segsize=1",
    ]);
    succeeds(initdb.current_dir("/")).await;
    let server = Postgres::of(directory, data, Options::default(), Vec::new());
    server.start().await;
    let postgres = server.connect("postgres").await;
    for statement in [
        format!("create role {USER} login password '{PASSWORD}'"),
        format!("create database {USER} owner {USER}"),
    ] {
        postgres.batch_execute(&statement).await.expect("it is run");
    }
    drop(postgres);
    server.stop().await;
    server
}

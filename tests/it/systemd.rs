//! What a service manager does for us, and is told: sockets that are passed, and how it goes.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use hyper::Method;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::time::Instant;

use crate::harness::{NOBODY, Program, call, call_unix, get_at, has, start_at};

/// Makes these sockets, gives them the numbers from 3 on, and becomes the program, as systemd starts a service. The
/// first argument says for whom they are, if not for that program.
const ACTIVATOR: &str = r#"
import fcntl, os, socket, sys
tcp, unix, stream = socket.AF_INET, socket.AF_UNIX, socket.SOCK_STREAM
pid, kinds, program = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
made = []
for kind in kinds:
    name, _, where = kind.partition(":")
    if name == "file":
        made.append(open(os.devnull))
        continue
    family = unix if name in ("unix", "pair") else tcp
    s = socket.socket(family, socket.SOCK_DGRAM if name == "udp" else stream)
    if name == "pair":
        s, other = socket.socketpair()
        made.append(other)
    elif family == unix:
        s.bind(where)
    else:
        s.bind((where or "127.0.0.1", 0))
    if name in ("unix", "tcp"):
        s.listen()
    made.append(s)
made = [m for i, m in enumerate(made) if not (kinds[0] == "pair" and i == 0)]
high = [fcntl.fcntl(m.fileno(), fcntl.F_DUPFD, 50) for m in made]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.environ.update(LISTEN_FDS=str(len(high)), LISTEN_PID=pid or str(os.getpid()))
os.execv(program[0], program)
"#;

/// Starts a sidecar with these sockets, to listen at this address.
fn activate(sockets: &str, address: &str, settings: &[(&str, &str)]) -> Program {
    activate_for("", sockets, address, NOBODY, settings)
}

fn activate_for(
    id: &str,
    sockets: &str,
    address: &str,
    gateway: &str,
    settings: &[(&str, &str)],
) -> Program {
    let path = std::env::var("PATH").unwrap();
    let own = [("listen.address", address), ("PATH", &path)];
    let settings = [&own, settings].concat();
    Program::launch(
        &["python3", "-c", ACTIVATOR, id, sockets],
        gateway,
        &settings,
    )
}

/// The same, which must not run: exit code and what it says.
async fn refused(sockets: &str, address: &str, settings: &[(&str, &str)]) -> (i32, String) {
    let (code, out, err) = activate(sockets, address, settings).end().await;
    assert_eq!(out, "");
    assert!(err.contains("listen.address"), "{err}");
    (code, err)
}

#[tokio::test]
async fn a_unix_socket_that_is_passed_is_served_and_stays() {
    if !has("python3") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let socket = format!("unix:{}", path.display());
    let mut sidecar = activate_for("", &socket, "fd:3", &gateway, &[]);
    let line = sidecar.log_line("tillgate is running").await;
    assert!(line.contains(&format!("\"listen\":\"{socket}\"")), "{line}");
    let json = [("content-type", "application/json")];
    let started = call_unix(
        &path,
        Method::POST,
        "/api/start_payment",
        &json,
        r#"{"amount":1}"#,
    )
    .await;
    assert_eq!(started.status, 200, "{started:?}");
    let listed = call_unix(&path, Method::GET, "/payments", &[], "").await;
    assert!(
        listed.status == 200 && listed.body.contains(started.text("code")),
        "{listed:?}"
    );
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    assert!(
        fs::symlink_metadata(&path).unwrap().file_type().is_socket(),
        "it is not ours to remove"
    );
}

#[tokio::test]
async fn a_socket_that_is_passed_and_not_named_is_warned_about() {
    if !has("python3") {
        return;
    }
    let mut sidecar = activate("tcp tcp", "fd:3", &[]);
    let warning = sidecar.log_line("a socket was passed as fd:").await;
    assert!(
        warning.contains("fd:4, and nobody answers there: name it in listen.address too"),
        "{warning}"
    );
}

#[tokio::test]
async fn a_tcp_socket_that_is_passed_is_served_as_one_that_we_made() {
    if !has("python3") {
        return;
    }
    let mut sidecar = activate("tcp:127.0.0.1", "fd:3", &[]);
    let (api, _) = sidecar.addresses().await;
    assert_eq!(
        get_at(api, "/payments").await.text("error"),
        "token_required"
    );
    assert_eq!(
        start_at(api, r#"{"amount":1}"#).await.text("error"),
        "gateway_unreachable"
    );
    // One that other machines reach needs tokens.
    let (code, err) = refused("tcp:0.0.0.0", "fd:3", &[]).await;
    assert!(code == 2 && err.contains("token_file"), "{err}");
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(tokens.path(), "a-token-of-the-app\n").unwrap();
    let tokens = [("listen.token_file", tokens.path().to_str().unwrap())];
    let mut sidecar = activate("tcp:0.0.0.0", "fd:3", &tokens);
    let (api, _) = sidecar.addresses().await;
    let api = (std::net::Ipv4Addr::LOCALHOST, api.port()).into();
    assert_eq!(get_at(api, "/payments").await.status, 401);
    let token = [("authorization", "Bearer a-token-of-the-app")];
    assert_eq!(
        call(api, Method::GET, "/payments", &token, "").await.status,
        200
    );
}

#[tokio::test]
async fn of_several_sockets_the_named_one_is_taken() {
    if !has("python3") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let mut sidecar = activate(
        &format!("tcp:127.0.0.1 file unix:{}", path.display()),
        "fd:5",
        &[],
    );
    sidecar.log_line("tillgate is running").await;
    assert_eq!(
        call_unix(&path, Method::GET, "/payments", &[], "")
            .await
            .status,
        200
    );
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    // Or all of them, beside one that is made.
    let mut sidecar = activate(
        &format!(
            "tcp:127.0.0.1 unix:{}",
            path.with_extension("two").display()
        ),
        r#"["fd:4", "127.0.0.1:0", "fd:3"]"#,
        &[],
    );
    let line = sidecar.log_line("tillgate is running").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let places: Vec<_> = line["listen"].as_str().unwrap().split(", ").collect();
    assert!(places[0].starts_with("unix:/"), "{places:?}");
    for tcp in &places[1..] {
        let listed = get_at(tcp.parse().unwrap(), "/payments").await;
        assert_eq!(listed.text("error"), "token_required");
    }
    for address in ["fd:4", "fd:6"] {
        let (code, err) = refused("tcp:127.0.0.1 file tcp:127.0.0.1", address, &[]).await;
        assert!(code == 2 && err.contains("3 sockets"), "{err}");
    }
}

#[tokio::test]
async fn what_cannot_be_listened_on_is_told() {
    if !has("python3") {
        return;
    }
    for (sockets, part) in [
        ("udp", "none of TCP or a Unix stream"),
        ("file", "none of TCP or a Unix stream"),
        ("bound", "not listening"),
        ("pair", "Accept=no"),
    ] {
        let (code, err) = refused(sockets, "fd:3", &[]).await;
        assert!(code == 2 && err.contains(part), "{sockets}: {err}");
    }
    // For another process, or none at all.
    let other = activate_for("1", "tcp:127.0.0.1", "fd:3", NOBODY, &[])
        .end()
        .await;
    assert!(
        other.0 == 1 && other.2.contains("LISTEN_PID") && other.2.lines().count() == 1,
        "{other:?}"
    );
    let none = Program::launch(&[], NOBODY, &[("listen.address", "fd:3")])
        .end()
        .await;
    assert_eq!(none, other);
    // What something of ours has by then is not taken for a passed one.
    for count in ["1", "9"] {
        for number in 3..12 {
            let address = format!("fd:{number}");
            let lie = Program::launch(
                &[],
                NOBODY,
                &[("listen.address", &address), ("LISTEN_FDS", count)],
            );
            let (code, _, err) = lie.end().await;
            assert!(
                code == 2 && err.contains("listen.address"),
                "{address}: {err}"
            );
        }
    }
}

/// A service manager that listens.
struct Manager {
    directory: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        Self { directory, socket }
    }

    fn address(&self) -> String {
        self.directory
            .path()
            .join("notify")
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// What it is told next.
    async fn hears(&self) -> String {
        let mut bytes = [0; 512];
        let read =
            tokio::time::timeout(Duration::from_secs(20), self.socket.recv(&mut bytes)).await;
        String::from_utf8(bytes[..read.expect("a message in time").unwrap()].to_vec()).unwrap()
    }

    /// What it is told next that is not a sign of life; how many of those came before.
    async fn hears_news(&self) -> (String, usize) {
        let mut alive = 0;
        loop {
            match self.hears().await {
                sign if sign == "WATCHDOG=1" => alive += 1,
                news => return (news, alive),
            }
        }
    }
}

fn with_manager(address: &str, others: &[(&str, &str)]) -> Program {
    Program::launch(
        &[],
        NOBODY,
        &[&[("NOTIFY_SOCKET", address)], others].concat(),
    )
}

#[tokio::test]
async fn the_manager_is_told_when_we_run_and_when_we_end() {
    let manager = Manager::new();
    let mut sidecar = with_manager(&manager.address(), &[]);
    assert_eq!(manager.hears().await, "READY=1");
    // By then it is so.
    let (api, admin) = sidecar.addresses().await;
    assert_eq!(get_at(admin, "/readyz").await.status, 200);
    assert_eq!(get_at(api, "/payments").await.status, 403);
    sidecar.signal("TERM");
    assert_eq!(manager.hears().await, "STOPPING=1");
    assert_eq!(sidecar.end().await.0, 0);
    let mut rest = [0; 16];
    assert!(
        manager.socket.try_recv(&mut rest).is_err(),
        "without a watchdog there are no signs of life"
    );
}

#[tokio::test]
async fn signs_of_life_come_at_half_of_the_watchdogs_time() {
    let manager = Manager::new();
    let since = Instant::now();
    let sidecar = with_manager(&manager.address(), &[("WATCHDOG_USEC", "1000000")]);
    let (news, mut alive) = manager.hears_news().await;
    assert_eq!(news, "READY=1");
    let (mut last, mut shortest) = (None, Duration::MAX);
    while alive < 7 {
        assert_eq!(manager.hears().await, "WATCHDOG=1");
        alive += 1;
        let now = Instant::now();
        shortest = last.map_or(shortest, |last| shortest.min(now - last));
        last = Some(now);
    }
    assert!(
        since.elapsed() >= Duration::from_millis(2900),
        "seven are six halves apart: {:?}",
        since.elapsed()
    );
    assert!(
        shortest < Duration::from_millis(900),
        "in time: {shortest:?}"
    );
    sidecar.signal("STOP");
    let silence = tokio::time::timeout(Duration::from_millis(100), async {
        while manager.hears().await == "WATCHDOG=1" {}
    });
    let _ = silence.await;
    let mut bytes = [0; 16];
    let silence =
        tokio::time::timeout(Duration::from_secs(1), manager.socket.recv(&mut bytes)).await;
    assert!(silence.is_err(), "one that hangs says nothing");
    sidecar.signal("CONT");
    assert_eq!(manager.hears().await, "WATCHDOG=1");
    sidecar.signal("TERM");
    assert_eq!(manager.hears_news().await.0, "STOPPING=1");
    assert_eq!(sidecar.end().await.0, 0);
}

#[tokio::test]
async fn a_watchdog_for_another_process_or_of_no_time_is_none() {
    for variables in [
        &[("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")][..],
        &[("WATCHDOG_USEC", "soon")],
        &[("WATCHDOG_USEC", "0")],
    ] {
        let manager = Manager::new();
        let mut sidecar = with_manager(&manager.address(), variables);
        assert_eq!(manager.hears().await, "READY=1");
        sidecar.addresses().await;
        sidecar.signal("TERM");
        assert_eq!(manager.hears().await, "STOPPING=1", "{variables:?}");
        assert_eq!(sidecar.end().await.0, 0);
    }
}

#[tokio::test]
async fn an_abstract_name_of_the_manager_works_and_one_who_does_not_listen_harms_nothing() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("tillgate-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
    let socket = std::os::unix::net::UnixDatagram::bind_addr(&address).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut sidecar = with_manager(&format!("@{name}"), &[]);
    let mut bytes = [0; 64];
    let told = tokio::task::spawn_blocking(move || (socket.recv(&mut bytes).unwrap(), bytes))
        .await
        .unwrap();
    assert_eq!(&told.1[..told.0], b"READY=1");
    sidecar.addresses().await;

    let nobody = tempfile::tempdir().unwrap();
    for address in [
        nobody.path().join("notify").to_str().unwrap(),
        "vsock:2:3",
        "notify",
        "@",
    ] {
        let mut sidecar = with_manager(address, &[("WATCHDOG_USEC", "400000")]);
        sidecar.log_line("cannot be told").await;
        sidecar.signal("TERM");
        assert_eq!(sidecar.end().await.0, 0, "{address}");
    }
}

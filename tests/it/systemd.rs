//! What a service manager does for us: sockets that are passed.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use hyper::Method;

use crate::harness::{Program, call, call_unix, get_at, has, start_at};

/// A gateway that no test asks.
const NOBODY: &str = "http://127.0.0.1:9";

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

fn activate_for(id: &str, sockets: &str, address: &str, gateway: &str, settings: &[(&str, &str)]) -> Program {
    let path = std::env::var("PATH").unwrap();
    let settings = [&[("LISTEN__ADDRESS", address)], settings].concat();
    Program::launch(&["python3", "-c", ACTIVATOR, id, sockets], gateway, &settings, &[("PATH", &path)])
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
    let started = call_unix(&path, Method::POST, "/api/start_payment", &json, r#"{"amount":1}"#).await;
    assert_eq!(started.status, 200, "{started:?}");
    let listed = call_unix(&path, Method::GET, "/payments", &[], "").await;
    assert!(listed.status == 200 && listed.body.contains(started.text("code")), "{listed:?}");
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket(), "it is not ours to remove");
}

#[tokio::test]
async fn a_tcp_socket_that_is_passed_is_served_as_one_that_we_made() {
    if !has("python3") {
        return;
    }
    let mut sidecar = activate("tcp:127.0.0.1", "fd:3", &[]);
    let (api, _) = sidecar.addresses().await;
    assert_eq!(get_at(api, "/payments").await.text("error"), "token_required");
    assert_eq!(start_at(api, r#"{"amount":1}"#).await.text("error"), "gateway_unreachable");
    // One that other machines reach needs tokens.
    let (code, err) = refused("tcp:0.0.0.0", "fd:3", &[]).await;
    assert!(code == 2 && err.contains("token_file"), "{err}");
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(tokens.path(), "a-token-of-the-app\n").unwrap();
    let tokens = [("LISTEN__TOKEN_FILE", tokens.path().to_str().unwrap())];
    let mut sidecar = activate("tcp:0.0.0.0", "fd:3", &tokens);
    let (api, _) = sidecar.addresses().await;
    let api = (std::net::Ipv4Addr::LOCALHOST, api.port()).into();
    assert_eq!(get_at(api, "/payments").await.status, 401);
    let token = [("authorization", "Bearer a-token-of-the-app")];
    assert_eq!(call(api, Method::GET, "/payments", &token, "").await.status, 200);
}

#[tokio::test]
async fn of_several_sockets_the_named_one_is_taken() {
    if !has("python3") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let mut sidecar = activate(&format!("tcp:127.0.0.1 file unix:{}", path.display()), "fd:5", &[]);
    sidecar.log_line("tillgate is running").await;
    assert_eq!(call_unix(&path, Method::GET, "/payments", &[], "").await.status, 200);
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
    let other = activate_for("1", "tcp:127.0.0.1", "fd:3", NOBODY, &[]).end().await;
    assert!(other.0 == 1 && other.2.contains("LISTEN_PID") && other.2.lines().count() == 1, "{other:?}");
    let none = Program::launch(&[], NOBODY, &[("LISTEN__ADDRESS", "fd:3")], &[]).end().await;
    assert_eq!(none, other);
    // What something of ours has by then is not taken for a passed one.
    for count in ["1", "9"] {
        for number in 3..12 {
            let address = format!("fd:{number}");
            let lie = Program::launch(&[], NOBODY, &[("LISTEN__ADDRESS", &address)], &[("LISTEN_FDS", count)]);
            let (code, _, err) = lie.end().await;
            assert!(code == 2 && err.contains("listen.address"), "{address}: {err}");
        }
    }
}

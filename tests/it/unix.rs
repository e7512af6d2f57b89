//! The API over a socket in the file system: who gets in, what becomes of what has its name already.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use hyper::Method;
use tempfile::TempDir;
use tillgate::sandbox::DEFAULT_SECRET;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::harness::{
    Answer, NOBODY, ORDER, Program, Wire, call, call_unix, calls, get_at, has, pay_at, run, skip,
    until,
};

const JSON: (&str, &str) = ("content-type", "application/json");
/// A group that has no name, and nobody in it.
const GROUP: u32 = 42_420;

/// A directory for a socket that everybody may look into.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    /// The directory is that group's; `false`, and the test is left out, where only root could do that.
    fn of_group(group: u32) -> Option<Self> {
        let place = Self::new();
        match chown(place.directory.path(), None, Some(group)) {
            Ok(()) => Some(place),
            Err(_) => {
                skip("this needs root");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    fn address(&self) -> String {
        format!("unix:{}", self.path().display())
    }

    /// The names of everything in it.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// A sidecar that listens there and runs.
    async fn sidecar(&self, gateway: &str, settings: &[(&str, &str)]) -> Program {
        let mut program = self.launch(&[], gateway, settings);
        program.log_line("tillgate is running").await;
        program
    }

    fn launch(&self, under: &[&str], gateway: &str, settings: &[(&str, &str)]) -> Program {
        let address = self.address();
        Program::launch(
            under,
            gateway,
            &[&[("listen.address", address.as_str())], settings].concat(),
        )
    }

    async fn get(&self, path: &str) -> Answer {
        call_unix(&self.path(), Method::GET, path, &[], "").await
    }

    async fn start(&self) -> Answer {
        call_unix(
            &self.path(),
            Method::POST,
            "/api/start_payment",
            &[JSON],
            ORDER,
        )
        .await
    }

    /// Sends these bytes; gives everything that comes back.
    async fn exchange(&self, bytes: &str) -> String {
        let mut stream = UnixStream::connect(self.path()).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A command that finds the sidecar there.
    async fn command(&self, arguments: &[&str]) -> (i32, String, String) {
        let variables = [
            ("listen.address", self.address()),
            ("admin.address", "127.0.0.1:0".to_owned()),
            ("gateway.url", NOBODY.to_owned()),
            ("merchant.secret", DEFAULT_SECRET.to_owned()),
        ];
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        run(arguments, &variables).await
    }
}

/// What a file is: mode, group, and which one.
fn look(path: &Path) -> Option<(u32, u32, u64)> {
    let now = fs::symlink_metadata(path).ok()?;
    Some((now.mode() & 0o7777, now.gid(), now.ino()))
}

/// A start by a user with this group, and this further group: curl's exit code, and the status of the answer.
async fn start_as(place: &Place, group: u32, further: Option<u32>) -> (i32, String) {
    let (group, further) = (
        group.to_string(),
        further.map(|further| further.to_string()),
    );
    let groups = further
        .as_deref()
        .map_or(vec!["--clear-groups"], |further| vec!["--groups", further]);
    let socket = place.path();
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", &group])
        .args(groups)
        .args([
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "20",
            "--unix-socket",
        ])
        .arg(&socket)
        .args([
            "-H",
            "Content-Type: application/json",
            "-d",
            ORDER,
            "http://localhost/api/start_payment",
        ])
        .current_dir("/")
        .output()
        .await
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[tokio::test]
async fn the_group_of_the_directory_gets_in_and_nobody_else() {
    if !has("setpriv") || !has("curl") {
        return;
    }
    let Some(place) = Place::of_group(GROUP) else {
        return;
    };
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let _sidecar = place.sidecar(&gateway, &[]).await;
    assert_eq!(start_as(&place, GROUP, None).await, (0, "200".to_owned()));
    assert_eq!(
        start_as(&place, 65534, Some(GROUP)).await,
        (0, "200".to_owned())
    );
    let could_not_connect = (7, "000".to_owned());
    assert_eq!(start_as(&place, 65534, None).await, could_not_connect);
    assert_eq!(
        start_as(&place, GROUP + 1, Some(65534)).await,
        could_not_connect
    );
    assert_eq!(calls(&gateway).await.0, 2);
}

#[tokio::test]
async fn whoever_sees_the_socket_sees_it_with_its_mode_and_group_whatever_the_umask() {
    let Some(place) = Place::of_group(GROUP) else {
        return;
    };
    for umask in ["0", "022", "077", "0777"] {
        let path = place.path();
        let watching = std::thread::spawn(move || {
            let since = std::time::Instant::now();
            while since.elapsed().as_secs() < 20 {
                if let Some((mode, group, _)) = look(&path) {
                    return Some((mode, group));
                }
            }
            None
        });
        let script = format!("umask {umask}; exec \"$@\"");
        let mut sidecar = place.launch(&["sh", "-c", &script, "sh"], NOBODY, &[]);
        sidecar.log_line("tillgate is running").await;
        let first = tokio::task::spawn_blocking(move || watching.join().unwrap())
            .await
            .unwrap();
        assert_eq!(first, Some((0o660, GROUP)), "umask {umask}");
        assert_eq!(
            look(&place.path()).map(|(mode, group, _)| (mode, group)),
            Some((0o660, GROUP))
        );
        assert_eq!(place.names(), ["api.sock"]);
        sidecar.signal("TERM");
        assert_eq!(sidecar.end().await.0, 0);
        assert_eq!(place.names(), [""; 0], "a peaceful end removes it");
    }
}

#[tokio::test]
async fn the_name_of_the_socket_is_given_to_one_that_is_ready() {
    if !has("strace") {
        return;
    }
    let Some(place) = Place::of_group(GROUP) else {
        return;
    };
    let traced = tempfile::NamedTempFile::new().unwrap();
    let calls = "trace=bind,listen,?chmod,?fchmodat,?chown,?fchownat,?link,?linkat,?rename,?renameat,?renameat2";
    // -D: strace is the child, and the traced program has the id. A question mark: not every machine has that call.
    let under = [
        "strace",
        "-D",
        "-f",
        "-o",
        traced.path().to_str().unwrap(),
        "-e",
        calls,
    ];
    let mut sidecar = place.launch(&under, NOBODY, &[]);
    sidecar.log_line("tillgate is running").await;
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let name = format!("\"{}\"", place.path().display());
    let found = until("the trace is written", async || {
        let trace = fs::read_to_string(traced.path()).unwrap();
        let lines: Vec<String> = trace.lines().map(ToOwned::to_owned).collect();
        let named = lines
            .iter()
            .position(|line| line.contains(&name) && line.contains(" = 0"))?;
        Some((lines, named))
    });
    let (lines, named) = found.await;
    let before = |call: &str, what: &str| {
        let found = lines[..named]
            .iter()
            .any(|line| line.contains(call) && line.contains(what) && line.ends_with("= 0"));
        assert!(found, "no {call} with {what} before:\n{lines:#?}");
    };
    assert!(lines[named].contains("link"), "{}", lines[named]);
    before("bind(", "AF_UNIX");
    before("chown", &GROUP.to_string());
    before("chmod", "0660");
    before("listen(", "1024");
}

#[tokio::test]
async fn what_is_no_socket_is_refused_and_left_as_it_is() {
    let place = Place::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("other.sock");
    let _listens = UnixListener::bind(&other).unwrap();
    let path = place.path();
    type Plant<'a> = (&'a str, &'a dyn Fn());
    let plants: [Plant<'_>; 6] = [
        ("a regular file", &|| fs::write(&path, "precious").unwrap()),
        ("a symlink", &|| symlink("/etc/hostname", &path).unwrap()),
        ("a symlink", &|| {
            symlink(elsewhere.path().join("nothing"), &path).unwrap()
        }),
        ("a symlink", &|| symlink(&other, &path).unwrap()),
        ("a directory", &|| fs::create_dir(&path).unwrap()),
        ("a pipe", &|| {
            assert!(
                std::process::Command::new("mkfifo")
                    .arg(&path)
                    .status()
                    .unwrap()
                    .success()
            )
        }),
    ];
    for (what, plant) in plants {
        plant();
        let planted = look(&path);
        for command in ["run", "check"] {
            let (code, out, err) = place.command(&[command]).await;
            assert_eq!((code, out.as_str()), (2, ""), "{what}: {err}");
            for part in ["listen.address", path.to_str().unwrap(), what, "remove it"] {
                assert!(err.contains(part), "{what}: no {part:?} in {err}");
            }
        }
        assert_eq!(look(&path), planted, "{what}");
        assert_eq!(place.names(), ["api.sock"]);
        match what {
            "a regular file" => assert_eq!(fs::read_to_string(&path).unwrap(), "precious"),
            "a directory" => fs::remove_dir(&path).unwrap(),
            _ => {}
        }
        let _ = fs::remove_file(&path);
    }
    assert!(other.exists() && !elsewhere.path().join("nothing").exists());
}

#[tokio::test]
async fn a_socket_that_nobody_listens_at_is_replaced() {
    let place = Place::new();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    drop(UnixListener::bind(place.path()).unwrap());
    let mut old = look(&place.path());
    for _ in 0..3 {
        let sidecar = place.sidecar(&gateway, &[]).await;
        assert_ne!(look(&place.path()), old);
        assert_eq!(place.start().await.status, 200);
        assert_eq!(place.names(), ["api.sock"]);
        old = look(&place.path());
        sidecar.kill().await;
        assert_eq!(look(&place.path()), old, "after a kill it is still there");
    }
}

#[tokio::test]
async fn a_socket_that_somebody_listens_at_is_taken() {
    let place = Place::new();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let first = place.sidecar(&gateway, &[]).await;
    let seen = look(&place.path());
    let is_taken = async || {
        let (code, out, err) = place.command(&["run"]).await;
        assert_eq!(
            (code, out.as_str(), err.lines().count()),
            (1, "", 1),
            "{err}"
        );
        let parts = [
            "listen.address",
            "another program listens",
            place.path().to_str().unwrap(),
        ]
        .map(ToOwned::to_owned);
        assert!(
            parts.iter().all(|part| err.contains(part.as_str())),
            "{err}"
        );
    };
    is_taken().await;
    assert_eq!(
        (look(&place.path()), place.names()),
        (seen, vec!["api.sock".to_owned()])
    );
    assert_eq!(place.start().await.status, 200);
    // `check` is for the operator of the one that runs: it finds nothing wrong.
    assert_eq!(place.command(&["check"]).await.0, 0);
    first.kill().await;
    fs::remove_file(place.path()).unwrap();

    // Somebody who never accepts, where the question of the first fills the queue; somebody who speaks in datagrams.
    let busy = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    busy.bind(&socket2::SockAddr::unix(place.path()).unwrap())
        .unwrap();
    busy.listen(0).unwrap();
    is_taken().await;
    is_taken().await;
    fs::remove_file(place.path()).unwrap();
    let _datagrams = UnixDatagram::bind(place.path()).unwrap();
    is_taken().await;
}

#[tokio::test]
async fn of_many_that_start_at_once_one_gets_the_socket() {
    let place = Place::new();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    for _ in 0..3 {
        drop(UnixListener::bind(place.path()).unwrap());
        let mut programs: Vec<_> = (0..6).map(|_| place.launch(&[], &gateway, &[])).collect();
        let mut running = Vec::new();
        for mut program in programs.drain(..) {
            if program.log_line_or_end("tillgate is running").await {
                running.push(program);
            } else {
                assert_eq!(program.end().await.0, 1);
            }
        }
        assert_eq!(running.len(), 1);
        assert_eq!(place.start().await.status, 200);
        assert_eq!(place.names(), ["api.sock"]);
        let last = running.remove(0);
        last.signal("TERM");
        assert_eq!(last.end().await.0, 0);
        assert_eq!(place.names(), [""; 0]);
    }
}

#[tokio::test]
async fn an_end_leaves_what_took_the_sockets_place() {
    let place = Place::new();
    let sidecar = place.sidecar(NOBODY, &[]).await;
    fs::remove_file(place.path()).unwrap();
    let successor = UnixListener::bind(place.path()).unwrap();
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    std::os::unix::net::UnixStream::connect(place.path()).unwrap();
    drop(successor);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_told_and_not_made() {
    let place = Place::new();
    let directory = place.directory.path().join("missing");
    let address = format!("unix:{}", directory.join("api.sock").display());
    let variables = [
        ("listen.address", address.as_str()),
        ("admin.address", "127.0.0.1:0"),
        ("gateway.url", NOBODY),
        ("merchant.secret", DEFAULT_SECRET),
    ];
    let (code, _, err) = run(&["run"], &variables).await;
    assert!(
        code == 1 && err.contains("listen.address") && err.contains(directory.to_str().unwrap()),
        "{err}"
    );
    assert!(!directory.exists());
    let (code, _, err) = run(&["check"], &variables).await;
    let missing = format!("listen.address: there is no {}", directory.display());
    assert!(code == 2 && err.contains(&missing), "{err}");
}

#[tokio::test]
async fn who_may_not_give_the_socket_its_group_is_told_and_leaves_nothing() {
    if !has("setpriv") {
        return;
    }
    let Some(place) = Place::of_group(GROUP) else {
        return;
    };
    let under = [
        "setpriv",
        "--inh-caps",
        "-chown",
        "--bounding-set",
        "-chown",
    ];
    let (code, _, err) = place.launch(&under, NOBODY, &[]).end().await;
    assert!(
        code == 1 && err.contains("listen.address") && err.contains(&GROUP.to_string()),
        "{err}"
    );
    assert_eq!(place.names(), [""; 0]);
}

#[tokio::test]
async fn check_tells_who_gets_in_and_what_is_no_way_in() {
    let place = Place::new();
    fs::set_permissions(place.directory.path(), Permissions::from_mode(0o1777)).unwrap();
    let (code, out, err) = place.command(&["check"]).await;
    assert_eq!(code, 0, "{err}");
    let group = fs::metadata(place.directory.path()).unwrap().gid();
    for part in [
        &format!("address = \"{}\"", place.address()),
        &format!("group {group}"),
        "warning: ",
        "mode 0777",
    ] {
        assert!(out.contains(part), "no {part:?} in {out}");
    }
    let long = format!(
        "unix:/{}/api.sock",
        "d".repeat(107 - "//api.sock".len() + 1)
    );
    for address in [
        "unix:",
        "unix:api.sock",
        "unix:/",
        "unix:/run/",
        "unix:/run/..",
        "unix:@name",
        &long,
        "fd:2",
        "fd:x",
    ] {
        for key in ["listen.address", "admin.address"] {
            let variables = [
                (key, address),
                ("gateway.url", NOBODY),
                ("merchant.secret", DEFAULT_SECRET),
            ];
            let (code, _, err) = run(&["check"], &variables).await;
            assert!(
                code == 2 && err.contains(key) && err.matches("error: ").count() == 1,
                "{address}: {err}"
            );
        }
    }
}

#[tokio::test]
async fn the_longest_path_that_the_system_takes_works() {
    let place = Place::new();
    let room = 107 - place.directory.path().as_os_str().len() - "/d/".len();
    let directory = place.directory.path().join("d");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("s".repeat(room));
    assert_eq!(path.as_os_str().len(), 107);
    let address = format!("unix:{}", path.display());
    let mut sidecar = Program::launch(&[], NOBODY, &[("listen.address", &address)]);
    sidecar.log_line("tillgate is running").await;
    assert_eq!(
        call_unix(&path, Method::GET, "/payments", &[], "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn over_a_socket_the_door_is_the_same_and_codes_are_listed() {
    let place = Place::new();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let _sidecar = place.sidecar(&gateway, &[]).await;
    let started = place.start().await;
    assert_eq!(started.status, 200, "{started:?}");
    let watch = format!("/watch/{}", started.text("watch_code"));
    let tag = place.get(&watch).await.header("etag").to_owned();
    // A wait, which ends with the payment.
    let (socket, path) = (place.path(), format!("{watch}?wait=20"));
    let waiting = tokio::spawn(async move {
        call_unix(&socket, Method::GET, &path, &[("if-none-match", &tag)], "").await
    });
    pay_at(&gateway, started.text("code")).await;
    let waited = waiting.await.unwrap();
    assert_eq!((waited.status, waited.text("status")), (200, "completed"));
    let listed = place.get("/payments").await;
    assert!(
        listed.status == 200 && listed.body.contains(started.text("code")),
        "{listed:?}"
    );
    assert_eq!(place.get("/deliveries").await.status, 200);
    for (header, status, error) in [
        (
            ("origin", "https://evil.example"),
            403,
            "browser_not_allowed",
        ),
        (("via", "1.1 proxy"), 403, "forwarded_not_allowed"),
    ] {
        let answer = call_unix(&place.path(), Method::GET, "/payments", &[header], "").await;
        assert_eq!((answer.status, answer.text("error")), (status, error));
    }
    // A stream, and what is no request, byte by byte.
    let mut stream = UnixStream::connect(place.path()).await.unwrap();
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        .await
        .unwrap();
    let next = place.start().await;
    let mut heard = String::new();
    until("the event of the second payment", async || {
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).await.unwrap();
        heard.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        heard.contains(next.text("watch_code")).then_some(())
    })
    .await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    let odd = place
        .exchange("GET * HTTP/1.1\r\n\r\nGET /payments HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    assert!(
        odd.starts_with("HTTP/1.1 400") && odd.matches("HTTP/1.1").count() == 1,
        "{odd}"
    );
}

#[tokio::test]
async fn over_a_socket_any_one_host_is_fine_or_none() {
    let place = Place::new();
    let _sidecar = place.sidecar(NOBODY, &[]).await;
    // None at all (nginx, HTTP/1.0), an empty one (Mojo), Go's and got's, the path (Excon), that of a page.
    for host in [
        "",
        "Host:\r\n",
        "Host: unix\r\n",
        "Host: unix:/run/tillgate/api.sock:\r\n",
        "Host: %2Frun%2Ftillgate%2Fapi.sock\r\n",
        "Host: evil.example\r\n",
        "hOST: \u{e9} @,;[:x\r\n",
    ] {
        for version in ["1.1", "1.0"] {
            let request =
                format!("GET /payments HTTP/{version}\r\n{host}Connection: close\r\n\r\n");
            let answer = place.exchange(&request).await;
            assert!(
                answer.contains(" 200 OK\r\n") && answer.contains("{\"payments\":[]"),
                "{request:?}: {answer}"
            );
        }
    }
    let two = "GET /payments HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n";
    let answer = place.exchange(two).await;
    assert!(answer.contains(" 400 Bad Request\r\n"), "{answer}");
}

#[tokio::test]
async fn each_rule_is_of_the_listener_that_a_request_came_through() {
    let place = Place::new();
    let list = format!(r#"["127.0.0.1:0", "{}"]"#, place.address());
    let mut sidecar = Program::launch(&[], NOBODY, &[("listen.address", &list)]);
    let line = sidecar.log_line("tillgate is running").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let (tcp, unix) = line["listen"].as_str().unwrap().split_once(", ").unwrap();
    assert_eq!(unix, place.address());
    let tcp: SocketAddr = tcp.parse().unwrap();
    let foreign = [("host", "evil.example")];
    for path in ["/payments", "/openapi.json"] {
        let over_tcp = call(tcp, Method::GET, path, &foreign, "").await;
        assert_eq!(over_tcp.text("error"), "host_not_allowed");
        let over_unix = call_unix(&place.path(), Method::GET, path, &foreign, "").await;
        assert_eq!(over_unix.status, 200, "{over_unix:?}");
    }
    let over_tcp = get_at(tcp, "/payments").await;
    assert_eq!(over_tcp.text("error"), "token_required");
    assert!(over_tcp.text("detail").contains("Unix socket"));
    let mut wire = Wire::open(tcp).await;
    wire.send("GET /openapi.json HTTP/1.0\r\n\r\n").await;
    assert_eq!(wire.answer().await.text("error"), "bad_request");

    // The socket is asked for what it alone shows, wherever it stands in the list.
    let settings = [("listen.address", &*list), ("gateway.url", NOBODY)];
    let none = (0, "there are none\n".to_owned(), String::new());
    assert_eq!(run(&["deliveries"], &settings).await, none);
    // Another address is given by name, and no other key has to be right.
    let address = tcp.to_string();
    let (code, _, err) = run(&["deliveries", "--api", &address], &settings).await;
    assert!(code == 1 && err.contains("listen.token_file"), "{err}");
    let bad = [("listen.address", "nowhere"), ("start.rate", "x")];
    let here = place.address();
    for arguments in [
        ["deliveries", "--api", &here, "list"],
        ["deliveries", "list", "--api", &here],
    ] {
        assert_eq!(run(&arguments, &bad).await, none);
    }
    for bad in ["nowhere", "unix:relative", "fd:3"] {
        let (code, _, err) = run(&["deliveries", "--api", bad], &[]).await;
        assert!(
            code == 2 && err.contains(bad.trim_end_matches('3')),
            "{err}"
        );
    }
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    assert_eq!(place.names(), [""; 0]);
}

#[tokio::test]
async fn a_token_and_max_connections_are_for_all_listeners() {
    let place = Place::new();
    let list = format!(r#"["{}", "127.0.0.1:0"]"#, place.address());
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(tokens.path(), "a-token-of-the-app\n").unwrap();
    let mut sidecar = Program::launch(
        &[],
        NOBODY,
        &[
            ("listen.address", &list),
            ("listen.token_file", tokens.path().to_str().unwrap()),
            ("listen.max_connections", "2"),
        ],
    );
    let line = sidecar.log_line("tillgate is running").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let (_, tcp) = line["listen"].as_str().unwrap().split_once(", ").unwrap();
    let tcp: SocketAddr = tcp.parse().unwrap();
    assert_eq!(place.get("/payments").await.text("error"), "unauthorized");
    assert_eq!(get_at(tcp, "/payments").await.text("error"), "unauthorized");
    // One that has said nothing would make way. Those that were refused may still linger.
    let token = "Authorization: Bearer a-token-of-the-app";
    let request = format!("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n{token}\r\n\r\n");
    let mut held = Vec::new();
    for _ in 0..2 {
        let place = until("a place", async || {
            let mut wire = Wire::open(tcp).await;
            wire.send(&request).await;
            (wire.answer().await.status == 404).then_some(wire)
        });
        held.push(place.await);
    }
    until("both places are taken", async || {
        let answer = place
            .exchange("GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            .await;
        answer.contains("\"error\":\"overloaded\"").then_some(())
    })
    .await;
    drop(held);
}

#[tokio::test]
async fn a_list_of_addresses_has_one_of_each_and_is_not_empty() {
    let place = Place::new();
    let unix = place.address();
    for (list, part) in [
        ("[]".to_owned(), "not empty"),
        ("[8700]".to_owned(), "listen.address"),
        (r#"["localhost:8700", "nowhere"]"#.to_owned(), "nowhere"),
        (
            format!(r#"["{unix}", "localhost:1", "{unix}"]"#),
            "same place",
        ),
        (
            r#"["localhost:8700", "127.0.0.1:8700"]"#.to_owned(),
            "same place",
        ),
        (r#"["[::1]:8700", ":8700"]"#.to_owned(), "same place"),
        (
            r#"["unix:/tmp/api.sock", "unix:/tmp/../tmp/api.sock"]"#.to_owned(),
            "same place",
        ),
        (r#"["fd:3", "fd:3"]"#.to_owned(), "same place"),
        (
            r#"["localhost:1", "0.0.0.0:2"]"#.to_owned(),
            "other machines can reach 0.0.0.0:2",
        ),
        (
            r#"["localhost:1", "127.0.0.1:8701"]"#.to_owned(),
            "admin.address",
        ),
        (
            r#"["localhost:1", "unix:/etc/hostname"]"#.to_owned(),
            "no socket",
        ),
        (r#"["localhost:1""#.to_owned(), "is not an address"),
    ] {
        let settings = [
            ("listen.address", &*list),
            ("gateway.url", NOBODY),
            ("merchant.secret", DEFAULT_SECRET),
        ];
        let (code, out, err) = run(&["check"], &settings).await;
        assert!(code == 2 && err.contains(part), "{list}: {out}{err}");
    }
    let bare = "[::1]:8700".to_owned();
    let two = format!(r#"["localhost:8700","{unix}"]"#);
    for (list, shown) in [
        (&bare, "address = \"[::1]:8700\""),
        (&two, &format!("address = {two}")),
        (&unix, &format!("address = \"{unix}\"")),
    ] {
        let settings = [
            ("listen.address", &**list),
            ("gateway.url", NOBODY),
            ("merchant.secret", DEFAULT_SECRET),
        ];
        let (code, out, err) = run(&["check"], &settings).await;
        assert!(code == 0 && out.contains(shown), "{out}{err}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_over_a_socket_too() {
    let place = Place::new();
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(tokens.path(), "a-token-of-the-app\n").unwrap();
    let _sidecar = place
        .sidecar(
            NOBODY,
            &[("listen.token_file", tokens.path().to_str().unwrap())],
        )
        .await;
    assert_eq!(place.get("/payments").await.status, 401);
    let token = [("authorization", "Bearer a-token-of-the-app")];
    assert_eq!(
        call_unix(&place.path(), Method::GET, "/payments", &token, "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn the_command_line_reaches_a_sidecar_over_its_socket() {
    let place = Place::new();
    let nobody = place.command(&["deliveries"]).await;
    assert!(
        nobody.0 == 1
            && nobody.2.contains(&place.address())
            && nobody.2.contains("is tillgate running"),
        "{nobody:?}"
    );
    let sidecar = place.sidecar(NOBODY, &[]).await;
    assert_eq!(
        place.command(&["deliveries"]).await,
        (0, "there are none\n".to_owned(), String::new())
    );
    let (code, _, err) = place
        .command(&["deliveries", "redeliver", "msg_nobody"])
        .await;
    assert!(code == 1 && err.contains("no delivery of that id"), "{err}");
    sidecar.kill().await;
    let nobody = place.command(&["deliveries"]).await;
    assert!(
        nobody.0 == 1 && nobody.2.contains("is tillgate running"),
        "{nobody:?}"
    );
}

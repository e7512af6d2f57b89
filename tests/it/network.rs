//! Networks as they are: names with several addresses, dead name servers, a name that moves, firewalls that drop a large
//! ClientHello, an HTTP proxy as the only way out. None of them is an outage.
//!
//! Names are given by a hosts file and a resolv.conf that are mounted over the machine's, in a mount namespace of the
//! sidecar's own: that takes root. Only addresses of this machine are used.

mod proxy;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use socket2::{Domain, SockRef, Socket, Type};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

use crate::harness::{Answer, ORDER, Program, call, free_port, metric_at, run, skip, start_at};
use crate::scripted::{self, Act, Gateway, STARTED, WATCHED, answer, as_told, good, told};
use crate::server::{Server, next_request};

const FAST: [(&str, &str); 3] = [
    ("start.rate", "100000"),
    ("start.burst", "100000"),
    ("watch.fresh_for", "1ms"),
];

/// What names mean to one sidecar.
struct Names {
    directory: TempDir,
    command: Vec<String>,
}

impl Names {
    /// `None`, after a line that says so, where this machine mounts nothing for us.
    fn new(hosts: &str, servers: &[Ipv4Addr]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let servers: String = servers
            .iter()
            .map(|server| format!("nameserver {server}\n"))
            .collect();
        std::fs::write(path("hosts"), hosts).unwrap();
        std::fs::write(path("resolv.conf"), servers).unwrap();
        std::fs::write(path("nsswitch.conf"), "hosts: files dns\n").unwrap();
        let mounts: Vec<_> = ["hosts", "resolv.conf", "nsswitch.conf"]
            .iter()
            .map(|name| format!("/bin/mount --bind '{}' /etc/{name}", path(name).display()))
            .collect();
        let script = format!("{} && exec \"$@\"", mounts.join(" && "));
        let command: Vec<_> = ["/usr/bin/unshare", "-m", "/bin/sh", "-c", &script, "sh"]
            .map(str::to_owned)
            .into_iter()
            .collect();
        let works = std::process::Command::new(&command[0])
            .args(&command[1..])
            .arg("/bin/true")
            .output();
        if !works.is_ok_and(|output| output.status.success()) {
            skip("no mount namespace can be made here (that takes root, and unshare)");
            return None;
        }
        Some(Self { directory, command })
    }

    fn hosts(&self, hosts: &str) {
        // In place: another file would not be the one that is mounted.
        std::fs::write(self.directory.path().join("hosts"), hosts).unwrap();
    }

    async fn sidecar(
        &self,
        gateway: &str,
        settings: &[(&str, &str)],
    ) -> (Program, SocketAddr, SocketAddr) {
        let mut program = Program::launch(&self.under(), gateway, settings);
        let (api, admin) = program.addresses().await;
        (program, api, admin)
    }

    fn under(&self) -> Vec<&str> {
        self.command.iter().map(String::as_str).collect()
    }

    /// Runs a command among these names to its end.
    async fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
        Program::start_under(&self.under(), self.directory.path(), arguments, variables)
            .end()
            .await
    }
}

/// Neither the hosts file nor a name server knows it, and nobody asks them.
#[tokio::test]
async fn localhost_is_known_without_a_resolver() {
    for hosts in ["", "::1 localhost\n", "192.0.2.1 localhost\n"] {
        let Some(names) = Names::new(hosts, &[]) else {
            return;
        };
        let (_sandbox, sandbox) = Program::sandbox(&[]).await;
        let gateway = sandbox.replace("127.0.0.1", "localhost");
        let port = free_port();
        let admin = format!("localhost:{port}");
        let settings = [
            ("gateway.url", gateway.as_str()),
            ("merchant.secret", tillgate::sandbox::DEFAULT_SECRET),
            ("listen.address", "localhost:0"),
            ("admin.address", &admin),
        ];
        let mut sidecar =
            Program::start_under(&names.under(), names.directory.path(), &["run"], &settings);
        sidecar.log_line("tillgate is running").await;
        let (code, _, err) = names.run(&["health"], &settings).await;
        assert_eq!(code, 0, "{hosts:?}: {err}");
        let checked = names
            .run(&["check", "--online", "--start"], &settings)
            .await;
        assert_eq!(checked.0, 0, "{hosts:?}: {checked:?}");
        let (code, out, err) = names.run(&["dev", "--tour"], &[]).await;
        assert_eq!(code, 0, "{hosts:?}: {out}{err}");
    }
}

/// A name server at an address of this machine's own, that answers only questions for IPv4.
struct NameServer {
    ip: Ipv4Addr,
    /// What it says about every name; silence where there is nothing.
    says: Arc<Mutex<Option<Ipv4Addr>>>,
    _task: AbortOnDropHandle<()>,
}

impl NameServer {
    async fn new(says: Option<Ipv4Addr>) -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = std::process::id().to_le_bytes();
        let number = u8::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap();
        let ip = Ipv4Addr::new(127, 64 + number, id[0], id[1].max(1));
        let Ok(socket) = UdpSocket::bind((ip, 53)).await else {
            skip("port 53 cannot be had here (that takes root)");
            return None;
        };
        let says = Arc::new(Mutex::new(says));
        let answers = says.clone();
        let task = tokio::spawn(async move {
            let mut question = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut question).await.unwrap();
                let answer = *answers.lock().unwrap();
                if let Some(answer) = answer.and_then(|ip| answer_for_ipv4(&question[..length], ip))
                {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        Some(Self {
            ip,
            says,
            _task: AbortOnDropHandle::new(task),
        })
    }

    fn says(&self, ip: Option<Ipv4Addr>) {
        *self.says.lock().unwrap() = ip;
    }
}

/// The answer to a question of DNS for an IPv4 address (RFC 1035, section 4); `None` for any other.
fn answer_for_ipv4(question: &[u8], ip: Ipv4Addr) -> Option<Vec<u8>> {
    let name_ends = 12 + question.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let kind = question.get(name_ends..name_ends + 4)?;
    if kind != [0, 1, 0, 1] {
        return None;
    }
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(&question[12..name_ends + 4]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
    answer.extend(ip.octets());
    Some(answer)
}

/// A listening socket whose backlog is full: a SYN to it gets no answer.
fn black_hole(ip: Ipv4Addr, port: u16) -> Option<(Socket, Vec<std::net::TcpStream>)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let address = SocketAddr::from((ip, port));
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
    {
        queue.push(stream);
        if queue.len() > 64 {
            skip("the queue of a listener never fills up here");
            return None;
        }
    }
    Some((socket, queue))
}

const A: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const B: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

async fn gateway_at(ip: Ipv4Addr, port: u16) -> Gateway {
    Gateway::at(&format!("{ip}:{port}"), None, |_, request| good(request)).await
}

async fn ask(api: SocketAddr) -> Answer {
    call(
        api,
        Method::GET,
        "/watch/watch_1",
        &[("cache-control", "no-cache")],
        "",
    )
    .await
}

#[tokio::test]
async fn of_two_addresses_one_may_be_dead() {
    let Some(names) = Names::new("127.0.0.2 pay.test\n127.0.0.3 pay.test\n", &[]) else {
        return;
    };
    for dead_is_first in [true, false] {
        let port = free_port();
        let (dead, alive) = if dead_is_first { (A, B) } else { (B, A) };
        let Some(_hole) = black_hole(dead, port) else {
            return;
        };
        let gateway = gateway_at(alive, port).await;
        let settings = [
            &FAST[..],
            &[
                ("gateway.allow_plain_http", "true"),
                ("gateway.retries", "0"),
            ],
        ]
        .concat();
        let (_sidecar, api, admin) = names
            .sidecar(&format!("http://pay.test:{port}"), &settings)
            .await;
        for _ in 0..5 {
            assert_eq!(start_at(api, ORDER).await.status, 200);
            assert_eq!(ask(api).await.status, 200);
        }
        assert_eq!(
            gateway
                .requests()
                .iter()
                .filter(|request| request.starts_with("POST"))
                .count(),
            5,
            "sent once each"
        );
        for step in ["dns", "tcp"] {
            let count = format!("tillgate_gateway_connect_seconds_count{{step=\"{step}\"}}");
            assert!(metric_at(admin, &count).await > 0, "{step}");
        }
    }
}

#[tokio::test]
async fn an_address_that_refuses_is_followed_by_the_next_at_once() {
    let Some(names) = Names::new("127.0.0.2 pay.test\n127.0.0.3 pay.test\n", &[]) else {
        return;
    };
    let port = free_port();
    let _gateway = gateway_at(B, port).await;
    let settings = [
        ("gateway.allow_plain_http", "true"),
        ("gateway.retries", "0"),
    ];
    let url = format!("http://pay.test:{port}");
    let (_sidecar, api, _) = names.sidecar(&url, &settings).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    let variables = [
        ("gateway.url", &*url),
        ("gateway.allow_plain_http", "true"),
        ("merchant.secret", tillgate::sandbox::DEFAULT_SECRET),
    ];
    let (code, said, _) = names.run(&["check", "--online"], &variables).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("is 127.0.0.2, 127.0.0.3; 127.0.0.3 answers"),
        "{said}"
    );
    assert!(
        said.contains("(DNS ") && said.contains("ms, TCP "),
        "{said}"
    );
}

#[tokio::test]
async fn where_no_address_answers_the_step_is_named() {
    let Some(names) = Names::new("127.0.0.2 pay.test\n127.0.0.3 pay.test\n", &[]) else {
        return;
    };
    let settings = [
        ("gateway.allow_plain_http", "true"),
        ("gateway.retries", "0"),
    ];
    let (_sidecar, api, _) = names
        .sidecar(&format!("http://pay.test:{}", free_port()), &settings)
        .await;
    let refused = start_at(api, ORDER).await;
    assert_eq!(
        told(&refused),
        as_told(503, "gateway_unreachable", "not_sent")
    );
    assert!(
        refused.text("detail").contains("TCP: 127.0.0."),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_dead_first_name_server_and_a_family_without_answers_are_no_outage() {
    let (Some(dead), Some(alive)) = (NameServer::new(None).await, NameServer::new(Some(A)).await)
    else {
        return;
    };
    let port = free_port();
    let _gateway = gateway_at(A, port).await;
    let url = format!("http://pay.test:{port}");
    let settings = [
        ("gateway.allow_plain_http", "true"),
        ("gateway.retries", "0"),
    ];
    // The questions for IPv6 are never answered.
    let Some(names) = Names::new("", &[alive.ip]) else {
        return;
    };
    let (_sidecar, api, _) = names.sidecar(&url, &settings).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    let Some(names) = Names::new("", &[dead.ip, alive.ip]) else {
        return;
    };
    let (_sidecar, api, _) = names.sidecar(&url, &settings).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    // The name server that lived has gone silent: the last that it said is as good as ever, also when it is in doubt.
    alive.says(None);
    for _ in 0..3 {
        assert_eq!(start_at(api, ORDER).await.status, 200);
    }
}

#[tokio::test]
async fn a_resolver_that_hangs_takes_a_few_threads_however_many_wait() {
    let Some(dead) = NameServer::new(None).await else {
        return;
    };
    let Some(names) = Names::new("", &[dead.ip]) else {
        return;
    };
    let settings = [
        &FAST[..],
        &[
            ("gateway.allow_plain_http", "true"),
            ("gateway.timeout", "2s"),
        ],
    ]
    .concat();
    let (sidecar, api, _) = names.sidecar("http://pay.test:9", &settings).await;
    let threads = || {
        std::fs::read_dir(format!("/proc/{}/task", sidecar.id()))
            .unwrap()
            .count()
    };
    let before = threads();
    let most = AtomicUsize::new(0);
    let starts = (0..500).map(|_| async {
        let refused = start_at(api, ORDER).await;
        assert_eq!(
            told(&refused),
            as_told(503, "gateway_unreachable", "not_sent")
        );
        assert!(refused.text("detail").contains("DNS: "), "{refused:?}");
        most.fetch_max(threads(), Ordering::SeqCst);
    });
    futures_util::future::join_all(starts).await;
    assert!(
        most.load(Ordering::SeqCst) <= before + 4,
        "{before} threads, then {most:?}"
    );
}

#[tokio::test]
async fn a_name_that_moves_is_found_where_it_is() {
    let Some(names) = Names::new("127.0.0.2 pay.test\n", &[]) else {
        return;
    };
    let port = free_port();
    let has_moved = Arc::new(AtomicBool::new(false));
    let moved = has_moved.clone();
    let old = Gateway::at(&format!("{A}:{port}"), None, move |_, request| match moved
        .load(Ordering::SeqCst)
    {
        true => Act::Say(answer(503, "{}")),
        false => good(request),
    })
    .await;
    let new = gateway_at(B, port).await;
    let settings = [&FAST[..], &[("gateway.allow_plain_http", "true")]].concat();
    let (_sidecar, api, _) = names
        .sidecar(&format!("http://pay.test:{port}"), &settings)
        .await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    assert_eq!(ask(api).await.status, 200);
    assert_eq!(new.connections(), 0);
    // What answers at the old place is no gateway any more.
    has_moved.store(true, Ordering::SeqCst);
    names.hosts("127.0.0.3 pay.test\n");
    let told_so = start_at(api, ORDER).await;
    assert_eq!(
        told_so.status, 502,
        "it has to be told by somebody: {told_so:?}"
    );
    // A lookup each second at the most.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..5 {
        assert_eq!(start_at(api, ORDER).await.status, 200);
        assert_eq!(ask(api).await.status, 200);
    }
    let asked = old.requests().len();
    assert_eq!((asked, new.requests().len()), (3, 10));
}

#[tokio::test]
async fn a_name_that_moves_is_found_also_while_the_old_place_answers() {
    if std::env::var_os("TILLGATE_TEST_ALL").is_none() {
        skip(
            "half a minute passes before a name is looked up again: only with TILLGATE_TEST_ALL=1",
        );
        return;
    }
    let Some(names) = Names::new("127.0.0.2 pay.test\n", &[]) else {
        return;
    };
    let port = free_port();
    let _old = gateway_at(A, port).await;
    let new = gateway_at(B, port).await;
    let settings = [&FAST[..], &[("gateway.allow_plain_http", "true")]].concat();
    let (_sidecar, api, _) = names
        .sidecar(&format!("http://pay.test:{port}"), &settings)
        .await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    names.hosts("127.0.0.3 pay.test\n");
    // Twice as long as it takes: a test tells that it happens, not when.
    for _ in 0..60 {
        assert_eq!(start_at(api, ORDER).await.status, 200);
        if !new.requests().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("it stayed at the old place");
}

#[tokio::test]
async fn the_last_known_addresses_serve_while_the_name_cannot_be_looked_up() {
    let Some(dead) = NameServer::new(None).await else {
        return;
    };
    let Some(names) = Names::new("127.0.0.2 pay.test\n", &[dead.ip]) else {
        return;
    };
    let port = free_port();
    let gateway = Gateway::at(
        &format!("{A}:{port}"),
        None,
        |number, request| match number {
            1 => Act::Say(answer(500, "{}")),
            _ => good(request),
        },
    )
    .await;
    let settings = [&FAST[..], &[("gateway.allow_plain_http", "true")]].concat();
    let (_sidecar, api, _) = names
        .sidecar(&format!("http://pay.test:{port}"), &settings)
        .await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    names.hosts("");
    // A failure puts the address in doubt: from here on each start wants to look the name up, and nobody answers.
    assert_eq!(start_at(api, ORDER).await.status, 502);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..3 {
        assert_eq!(start_at(api, ORDER).await.status, 200);
    }
    assert_eq!(gateway.requests().len(), 5);
}

#[tokio::test]
async fn localhost_is_never_looked_up() {
    let Some(dead) = NameServer::new(None).await else {
        return;
    };
    let Some(names) = Names::new("", &[dead.ip]) else {
        return;
    };
    let gateway = Gateway::new(|_, request| good(request)).await;
    let url = format!("http://localhost:{}", gateway.address().port());
    let (_sidecar, api, _) = names.sidecar(&url, &[("gateway.timeout", "2s")]).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
}

#[tokio::test]
async fn a_trailing_dot_is_for_the_resolver_alone() {
    let Some(server) = NameServer::new(Some(A)).await else {
        return;
    };
    for (hosts, servers) in [("", vec![server.ip]), ("127.0.0.2 pay.test\n", vec![])] {
        let Some(names) = Names::new(hosts, &servers) else {
            return;
        };
        let port = free_port();
        let directory = tempfile::tempdir().unwrap();
        let (ca, acceptor) = scripted::tls("pay.test");
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, ca).unwrap();
        let gateway = Gateway::at(&format!("{A}:{port}"), Some(acceptor), |_, request| {
            good(request)
        })
        .await;
        let settings = [("gateway.ca_file", ca_file.to_str().unwrap())];
        let (_sidecar, api, _) = names
            .sidecar(&format!("https://pay.test.:{port}"), &settings)
            .await;
        let started = start_at(api, ORDER).await;
        assert_eq!(started.status, 200, "{started:?}");
        let host = format!("host: pay.test:{port}\r\n");
        assert!(
            gateway.requests()[0].to_lowercase().contains(&host),
            "{:?}",
            gateway.requests()
        );
    }
}

/// What a firewall does with a first segment over 1,400 bytes.
#[derive(Clone, Copy, Debug)]
enum Firewall {
    Resets,
    Drops,
}

/// A firewall between the sidecar and that gateway, and the sizes of the first segments that it saw.
async fn firewall(gateway: SocketAddr, does: Firewall) -> (Server, Arc<Mutex<Vec<usize>>>) {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let server = Server::new(move |mut stream| {
        let seen = seen.clone();
        async move {
            let mut first = vec![0; 4096];
            let size = stream.read(&mut first).await.unwrap_or(0);
            seen.lock().unwrap().push(size);
            if size > 1400 {
                match does {
                    Firewall::Resets => SockRef::from(&stream)
                        .set_linger(Some(Duration::ZERO))
                        .unwrap(),
                    Firewall::Drops => while stream.read(&mut first).await.is_ok_and(|n| n > 0) {},
                }
                return;
            }
            let mut to = TcpStream::connect(gateway).await.unwrap();
            to.write_all(&first[..size]).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut to).await;
        }
    });
    (server.await, sizes)
}

#[tokio::test]
async fn a_firewall_that_wants_the_hello_in_one_packet_gets_it_so() {
    for does in [Firewall::Resets, Firewall::Drops] {
        let directory = tempfile::tempdir().unwrap();
        let (ca, acceptor) = scripted::tls("localhost");
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, ca).unwrap();
        let gateway = Gateway::with_tls(Some(acceptor), |_, request| good(request)).await;
        let (firewall, sizes) = firewall(gateway.address(), does).await;
        let url = format!("https://localhost:{}", firewall.address.port());
        let ca_file = ca_file.to_str().unwrap();
        let settings = [
            ("gateway.ca_file", ca_file),
            ("gateway.retries", "0"),
            ("gateway.connect_timeout", "2s"),
        ];
        let (_sidecar, api, _) = Program::sidecar(&url, &settings).await;
        for _ in 0..3 {
            let started = start_at(api, ORDER).await;
            assert_eq!(started.status, 200, "{does:?}: {started:?}");
        }
        assert_eq!(gateway.requests().len(), 3, "sent once each");
        let large = sizes
            .lock()
            .unwrap()
            .iter()
            .filter(|size| **size > 1400)
            .count();
        assert_eq!(large, 1, "{does:?}: it is remembered");
        let variables = [
            ("gateway.url", &*url),
            ("gateway.ca_file", ca_file),
            ("gateway.connect_timeout", "2s"),
            ("merchant.secret", tillgate::sandbox::DEFAULT_SECRET),
        ];
        let (code, said, _) = run(&["check", "--online"], &variables).await;
        assert_eq!(code, 0, "{said}");
        assert!(
            said.contains("drops a TLS hello that does not fit into one packet"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn starts_resume_the_session_of_those_before_them() {
    let directory = tempfile::tempdir().unwrap();
    let (ca, acceptor) = scripted::tls("localhost");
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, ca).unwrap();
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let seen = kinds.clone();
    let server = Server::new(move |stream| {
        let (seen, acceptor) = (seen.clone(), acceptor.clone());
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            seen.lock()
                .unwrap()
                .push(stream.get_ref().1.handshake_kind());
            next_request(&mut stream, &mut Vec::new()).await.unwrap();
            stream.write_all(&answer(200, STARTED)).await.unwrap();
            // It ends the connection only when the other side has.
            while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
        }
    })
    .await;
    let url = format!("https://localhost:{}", server.address.port());
    let (_sidecar, api, _) =
        Program::sidecar(&url, &[("gateway.ca_file", ca_file.to_str().unwrap())]).await;
    for _ in 0..4 {
        assert_eq!(start_at(api, ORDER).await.status, 200);
    }
    let resumed = Some(rustls::HandshakeKind::Resumed);
    let kinds = kinds.lock().unwrap().clone();
    assert!(
        kinds.len() == 4 && kinds[1..].iter().all(|kind| *kind == resumed),
        "{kinds:?}"
    );
}

/// A gateway whose payments are all completed.
async fn paid_gateway() -> Gateway {
    let completed = WATCHED.replace("created\"", "completed\"");
    Gateway::new(move |_, request| {
        Act::Say(answer(
            200,
            if request.starts_with("POST") {
                STARTED
            } else {
                &completed
            },
        ))
    })
    .await
}

/// What a certificate is for is written by others: a name in it may be anything.
#[tokio::test]
async fn the_names_of_a_certificate_are_shown_without_the_secret_and_without_commands_to_a_terminal()
 {
    const SECRET: &str = "Sk-Live-0123456789abcdef";
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (ca, acceptor) = scripted::tls(&format!("{SECRET}.example"));
    std::fs::write(file("ca.pem"), ca).unwrap();
    std::fs::write(file("keys"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let odd = Gateway::with_tls(Some(acceptor), |_, request| good(request)).await;
    let url = odd.https_url();
    let (ca_file, keys) = (file("ca.pem"), file("keys"));
    let settings = [
        ("merchant.secret", SECRET),
        ("gateway.ca_file", &*ca_file),
        ("gateway.retries", "0"),
    ];
    let (_sidecar, api, _) = Program::sidecar(&url, &settings).await;
    let refused = start_at(api, ORDER).await;
    assert!(
        refused.text("detail").contains("for [redacted].example"),
        "{refused:?}"
    );

    let gateway = paid_gateway().await;
    let settings = [
        ("merchant.secret", SECRET),
        ("webhook.url", &*url),
        ("webhook.secret_file", &*keys),
        ("webhook.ca_file", &*ca_file),
    ];
    let (mut sidecar, api, _) = Program::sidecar(&gateway.url(), &settings).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    let line = sidecar.log_line("webhook not delivered").await;
    assert!(line.contains("[redacted].example"), "{line}");

    let gateway = gateway.url();
    let variables = [
        ("gateway.url", &*gateway),
        ("merchant.secret", SECRET),
        ("webhook.url", &*url),
        ("webhook.secret_file", &*keys),
        ("webhook.ca_file", &*ca_file),
    ];
    let (code, _, said) = run(&["check", "--online"], &variables).await;
    assert!(code == 1 && said.contains("[redacted].example"), "{said}");
    assert!(
        !said.to_lowercase().contains(&SECRET.to_lowercase()),
        "{said}"
    );
}

/// A webhook over https, to a server with a certificate of its own authority.
#[tokio::test]
async fn a_webhook_goes_to_an_app_with_an_authority_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let (ca, acceptor) = scripted::tls("localhost");
    std::fs::write(file("ca.pem"), ca).unwrap();
    std::fs::write(file("keys"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let app = Gateway::with_tls(Some(acceptor), |_, _| Act::Say(answer(200, "{}"))).await;
    let gateway = paid_gateway().await;
    let url = format!("https://localhost:{}/events", app.address().port());
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let (keys, ca_file) = (path("keys"), path("ca.pem"));
    let without = [
        ("webhook.url", &*url),
        ("webhook.secret_file", &keys),
        ("watch.max_poll_interval", "50ms"),
    ];
    let with = [&without[..], &[("webhook.ca_file", &ca_file)]].concat();
    let (mut sidecar, api, _) = Program::sidecar(&gateway.url(), &without).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    let line = sidecar.log_line("webhook not delivered").await;
    assert!(
        line.contains("TLS: ") && line.contains("webhook.ca_file"),
        "{line}"
    );
    drop(sidecar);
    let (mut sidecar, api, _) = Program::sidecar(&gateway.url(), &with).await;
    assert_eq!(start_at(api, ORDER).await.status, 200);
    sidecar.log_line("webhook delivered").await;
    check_webhook_online(&gateway, &url, &keys, &ca_file).await;
}

async fn check_webhook_online(gateway: &Gateway, url: &str, keys: &str, ca_file: &str) {
    let gateway = gateway.url();
    let variables = [
        ("gateway.url", &*gateway),
        ("merchant.secret", tillgate::sandbox::DEFAULT_SECRET),
        ("webhook.url", url),
        ("webhook.secret_file", keys),
        ("webhook.ca_file", ca_file),
    ];
    let (code, said, _) = run(&["check", "--online"], &variables).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("webhook.url takes connections, and TLS with it works"),
        "{said}"
    );
    let without = &variables[..4];
    let (code, said, error) = run(&["check", "--online"], without).await;
    assert_eq!(code, 1, "{said}");
    assert!(
        error.contains("webhook.url") && error.contains("webhook.ca_file"),
        "{error}"
    );
    assert!(Path::new(ca_file).exists());
}

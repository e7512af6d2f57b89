//! Through a proxy.

use super::*;

/// What a proxy does with a CONNECT.
#[derive(Clone)]
enum Does {
    Tunnel,
    Say(&'static str),
    Close,
    Nothing,
}

/// An HTTP proxy; the heads that it was sent, and whether a byte came through it in the clear that has this in it.
struct Proxy {
    server: Server,
    heads: Arc<Mutex<Vec<String>>>,
    through: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    async fn new(gateway: SocketAddr, does: impl Fn(&str) -> Does + Send + Sync + 'static) -> Self {
        let (heads, through) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (seen, bytes, does) = (heads.clone(), through.clone(), Arc::new(does));
        let server = Server::new(move |stream| {
            serve_proxy(stream, gateway, does.clone(), seen.clone(), bytes.clone())
        });
        Self {
            server: server.await,
            heads,
            through,
        }
    }

    fn url(&self) -> String {
        self.server.url()
    }
}

async fn serve_proxy(
    mut stream: TcpStream,
    gateway: SocketAddr,
    does: Arc<impl Fn(&str) -> Does>,
    heads: Arc<Mutex<Vec<String>>>,
    through: Arc<Mutex<Vec<u8>>>,
) {
    let Some(head) = next_request(&mut stream, &mut Vec::new()).await else {
        return;
    };
    heads.lock().unwrap().push(head.clone());
    match does(&head) {
        Does::Tunnel => {}
        Does::Say(answer) => {
            stream.write_all(answer.as_bytes()).await.unwrap();
            while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
            return;
        }
        Does::Close => return,
        Does::Nothing => {
            while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
            return;
        }
    }
    stream
        .write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")
        .await
        .unwrap();
    let (mut up, mut down) = (TcpStream::connect(gateway).await.unwrap(), stream);
    let mut first = vec![0; 65536];
    // Enough of what goes up to find a secret in it.
    for _ in 0..2 {
        let Ok(n) = down.read(&mut first).await else {
            return;
        };
        through.lock().unwrap().extend(&first[..n]);
        up.write_all(&first[..n]).await.unwrap();
        let Ok(n) = up.read(&mut first).await else {
            return;
        };
        down.write_all(&first[..n]).await.unwrap();
    }
    let _ = copy_bidirectional(&mut down, &mut up).await;
}

struct BehindProxy {
    directory: TempDir,
    gateway: Gateway,
}

impl BehindProxy {
    /// A gateway whose name only a proxy knows.
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (ca, acceptor) = scripted::tls("gateway.invalid");
        std::fs::write(directory.path().join("ca.pem"), ca).unwrap();
        let gateway = Gateway::with_tls(Some(acceptor), |_, request| good(request)).await;
        Self { directory, gateway }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn sidecar(
        &self,
        proxy: &str,
        settings: &[(&str, &str)],
    ) -> (Program, SocketAddr, SocketAddr) {
        let ca_file = self.file("ca.pem");
        let own = [
            ("gateway.ca_file", ca_file.to_str().unwrap()),
            ("gateway.proxy", proxy),
            ("gateway.retries", "0"),
            ("gateway.timeout", "3s"),
        ];
        Program::sidecar("https://gateway.invalid", &[&own[..], settings].concat()).await
    }
}

#[tokio::test]
async fn through_a_proxy_tls_goes_end_to_end_and_the_proxy_looks_the_name_up() {
    let behind = BehindProxy::new().await;
    let proxy = Proxy::new(behind.gateway.address(), |_| Does::Tunnel).await;
    let (_sidecar, api, admin) = behind.sidecar(&proxy.url(), &FAST).await;
    for _ in 0..3 {
        let started = start_at(api, ORDER).await;
        assert_eq!(started.status, 200, "{started:?}");
        assert_eq!(ask(api).await.status, 200);
    }
    for head in proxy.heads.lock().unwrap().iter() {
        let agent = concat!("User-Agent: tillgate/", env!("CARGO_PKG_VERSION"));
        let expected = format!(
            "CONNECT gateway.invalid:443 HTTP/1.1\r\nHost: gateway.invalid:443\r\n{agent}\r\n\r\n"
        );
        assert_eq!(*head, expected);
    }
    let through = proxy.through.lock().unwrap().clone();
    let secret = tillgate::sandbox::DEFAULT_SECRET.as_bytes();
    assert!(!through.is_empty() && !through.windows(secret.len()).any(|bytes| bytes == secret));
    assert!(
        behind.gateway.requests()[0].contains("\r\nhost: gateway.invalid\r\n"),
        "{:?}",
        behind.gateway.requests()
    );
    let through = "tillgate_gateway_connect_seconds_count{step=\"proxy\"}";
    assert!(metric_at(admin, through).await > 0);
}

#[tokio::test]
async fn a_proxy_that_asks_for_credentials_gets_those_of_the_file_as_they_are_now() {
    const GOOD: &str = "proxy-authorization: basic dXNlcjpuZXc=";
    let behind = BehindProxy::new().await;
    let proxy = Proxy::new(behind.gateway.address(), |head| {
        let is_good = head.lines().any(|line| line.eq_ignore_ascii_case(GOOD));
        if is_good {
            Does::Tunnel
        } else {
            Does::Say("HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n")
        }
    })
    .await;
    let (_sidecar, api, _) = behind.sidecar(&proxy.url(), &[]).await;
    let refused = start_at(api, ORDER).await;
    assert_eq!(
        told(&refused),
        as_told(503, "gateway_unreachable", "not_sent")
    );
    assert!(
        refused
            .text("detail")
            .contains("set gateway.proxy_authorization_file"),
        "{refused:?}"
    );

    let file = behind.file("authorization");
    std::fs::write(&file, "Basic dXNlcjpvbGQ=\n").unwrap();
    let settings = [("gateway.proxy_authorization_file", file.to_str().unwrap())];
    let (sidecar, api, _) = behind.sidecar(&proxy.url(), &settings).await;
    let refused = start_at(api, ORDER).await;
    assert!(
        refused
            .text("detail")
            .contains("check gateway.proxy_authorization_file"),
        "{refused:?}"
    );
    assert!(!refused.body.contains("dXNlc"), "{refused:?}");
    std::fs::write(&file, "Basic dXNlcjpuZXc=\n").unwrap();
    sidecar.signal("HUP");
    crate::harness::until("the new line is used", async || {
        (start_at(api, ORDER).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(behind.gateway.requests().len(), 1);
}

#[tokio::test]
async fn the_proxys_no_is_told_and_nothing_was_sent() {
    let cases = [
        (
            Does::Say("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            "status 403",
        ),
        (
            Does::Say("HTTP/1.1 503 Busy\r\n\r\n<h1>busy</h1>"),
            "status 503",
        ),
        (
            Does::Say("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
            "bytes of its own",
        ),
        (Does::Say("220 mail.example ESMTP\r\n"), "no HTTP proxy"),
        (Does::Close, "closed the connection"),
        (Does::Nothing, "gateway."),
    ];
    for (does, expected) in cases {
        let behind = BehindProxy::new().await;
        let proxy = Proxy::new(behind.gateway.address(), move |_| does.clone()).await;
        let (_sidecar, api, _) = behind
            .sidecar(&proxy.url(), &[("gateway.connect_timeout", "500ms")])
            .await;
        let refused = start_at(api, ORDER).await;
        assert_eq!(
            told(&refused),
            as_told(503, "gateway_unreachable", "not_sent"),
            "{expected}"
        );
        let detail = refused.text("detail");
        assert!(
            detail.contains("proxy: ") && detail.contains(expected),
            "{refused:?}"
        );
        assert_eq!(behind.gateway.connections(), 0);
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let behind = BehindProxy::new().await;
    let proxy = format!("http://127.0.0.1:{}", free_port());
    let (_sidecar, api, _) = behind.sidecar(&proxy, &[]).await;
    let refused = start_at(api, ORDER).await;
    assert_eq!(
        told(&refused),
        as_told(503, "gateway_unreachable", "not_sent")
    );
    let detail = refused.text("detail");
    assert!(
        detail.contains("TCP: ") && detail.contains("(gateway.proxy)"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_proxy_setting_is_told_and_never_quoted() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, bad) = (
        file("good", "Basic dXNlcjpzM2NyM3Q=\n"),
        file("bad", "dXNlcjpzM2NyM3Q=\n"),
    );
    let missing = directory
        .path()
        .join("missing")
        .to_str()
        .unwrap()
        .to_owned();
    let proxy = "http://proxy.internal:3128";
    let cases = [
        (
            vec![("gateway.proxy", "https://proxy.internal")],
            "gateway.proxy",
            "plain http",
        ),
        (
            vec![("gateway.proxy", "http://user:s3cr3t@proxy.internal")],
            "gateway.proxy",
            "proxy_authorization_file",
        ),
        (
            vec![("gateway.proxy", "proxy.internal:3128")],
            "gateway.proxy",
            "http://HOST:PORT",
        ),
        (
            vec![("gateway.proxy_authorization_file", &*good)],
            "gateway.proxy",
            "is set, and this is not",
        ),
        (
            vec![
                ("gateway.proxy", proxy),
                ("gateway.proxy_authorization_file", &*bad),
            ],
            "gateway.proxy_authorization_file",
            "Basic",
        ),
        (
            vec![
                ("gateway.proxy", proxy),
                ("gateway.proxy_authorization_file", &*missing),
            ],
            "gateway.proxy_authorization_file",
            "missing",
        ),
        (
            vec![
                ("gateway.proxy", proxy),
                ("gateway.url", "http://localhost:1"),
            ],
            "gateway.url",
            "plain http",
        ),
    ];
    for (settings, key, expected) in cases {
        let own = [
            ("gateway.url", "https://pay.example"),
            ("merchant.secret", tillgate::sandbox::DEFAULT_SECRET),
        ];
        let (code, out, said) = run(&["check"], &[&own, &settings[..]].concat()).await;
        assert_eq!(code, 2, "{settings:?}: {out}{said}");
        assert!(
            said.contains(key) && said.contains(expected),
            "{settings:?}: {said}"
        );
        for secret in ["s3cr3t", "zM2Ny"] {
            assert!(
                !said.contains(secret) && !out.contains(secret),
                "{settings:?}: {said}"
            );
        }
    }
}

//! The clients in `tests/clients` that stream, and the lines of the API's page about waiting: they come back by themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::clients::{API_PAGE, JS, Language, PYTHON, SH, START, blocks, file};
use crate::harness::{
    Client, Program, call, free_port, get_at, has, metric_at, pay_at, skip, start_at, until,
};
use crate::server::Server;

const TOKEN: &str = "a-token-of-the-shop-9f2c";

/// Starts one of `tests/clients`.
fn client(language: Language, name: &str, argument: Option<&str>, api: SocketAddr) -> Client {
    let script = file("tests/clients").join(name);
    let arguments: Vec<_> = script.to_str().into_iter().chain(argument).collect();
    Client::start(
        language.program,
        &arguments,
        api,
        &[("TILLGATE_TOKEN", TOKEN)],
    )
}

#[tokio::test]
async fn the_python_client_streams_across_restarts() {
    if PYTHON.is_here() {
        streams_across_restarts(PYTHON, "stream.py").await;
    }
}

#[tokio::test]
async fn the_js_client_streams_across_restarts() {
    let is_installed = || {
        file("tests/clients/node_modules/eventsource").is_dir()
            || skip("the package eventsource is missing: `npm ci --prefix tests/clients`")
    };
    if JS.is_here() && is_installed() {
        streams_across_restarts(JS, "stream.mjs").await;
    }
}

async fn streams_across_restarts(language: Language, name: &str) {
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let port = free_port();
    let (sidecar, api, _) = Program::sidecar_on(port, &gateway).await;
    let mut running = client(language, name, None, api);
    let pay = running.line().await;
    let code = pay
        .strip_prefix(&format!("pay: {gateway}/pay/"))
        .unwrap_or_else(|| panic!("{pay}"));
    assert_eq!(running.line().await, "created");

    // One that ends in order.
    sidecar.signal("TERM");
    assert_eq!(sidecar.end().await.0, 0);
    let (sidecar, ..) = Program::sidecar_on(port, &gateway).await;
    // It has come back: nothing was lost meanwhile, and the state is told once more.
    assert_eq!(running.line().await, "created");

    // One that is gone from one moment to the next, and the payment is completed while none is there.
    sidecar.signal("KILL");
    until("it is gone", async || {
        TcpStream::connect(api).await.is_err().then_some(())
    })
    .await;
    running.says("coming back").await;
    pay_at(&gateway, code).await;
    let (mut sidecar, ..) = Program::sidecar_on(port, &gateway).await;
    assert_eq!(running.line().await, "completed");
    sidecar.log_line("\"status\":204").await;
    assert_eq!(running.end().await, (0, vec![]));

    // The next one knows it by its watch code only.
    let started = start_at(api, r#"{"amount": 1000}"#).await;
    let mut running = client(language, name, Some(started.text("watch_code")), api);
    assert_eq!(running.line().await, "created");
    pay_at(&gateway, started.text("code")).await;
    assert_eq!(running.end().await, (0, vec!["completed".to_owned()]));

    let mut running = client(language, name, Some("nobody-has-this-one"), api);
    running
        .says("The gateway does not know this watch code")
        .await;
    assert_eq!(running.end().await, (1, vec![]));
}

#[tokio::test]
async fn the_python_client_of_all_events_misses_none_of_them() {
    if !PYTHON.is_here() {
        return;
    }
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), TOKEN).unwrap();
    let (_sandbox, gateway) = Program::sandbox(&[]).await;
    let token_file = [("listen.token_file", tokens.path().to_str().unwrap())];
    let (_sidecar, api, admin) = Program::sidecar(&gateway, &token_file).await;
    // Without a token nobody sees anything.
    assert_eq!(get_at(api, "/events").await.text("error"), "unauthorized");

    let wire = Wire::to(api).await;
    let mut readers = [Reader::at(api), Reader::at(wire.server.address)];
    let readers_wait = r#"tillgate_waiters{kind="events"}"#;
    until("both wait", async || {
        (metric_at(admin, readers_wait).await == 2).then_some(())
    })
    .await;

    let first = start(api).await;
    for reader in &mut readers {
        reader.reads(&first, "created").await;
    }
    // The second reader is cut off in the middle of what comes next, and comes back when all is over.
    wire.cut.store(true, Ordering::Relaxed);
    let second = start(api).await;
    pay_at(&gateway, &second).await;
    pay_at(&gateway, &first).await;
    let [whole, cut] = &mut readers;
    whole.reads_both(&first, &second).await;
    cut.client.says("coming back").await;
    wire.mended.add_permits(Semaphore::MAX_PERMITS);
    cut.reads_both(&first, &second).await;

    let third = start(api).await;
    pay_at(&gateway, &third).await;
    for reader in &mut readers {
        reader.reads(&third, "completed").await;
    }
    let [whole, cut] = &readers;
    assert_eq!(
        whole.lines, cut.lines,
        "each of them once, in the same order"
    );
}

/// Starts a payment with the token; gives its code.
async fn start(api: SocketAddr) -> String {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [
        ("content-type", "application/json"),
        ("authorization", bearer.as_str()),
    ];
    let started = call(
        api,
        Method::POST,
        "/api/start_payment",
        &headers,
        r#"{"amount": 1000}"#,
    );
    started.await.text("code").to_owned()
}

/// A client of `/events`, and what it has printed.
struct Reader {
    client: Client,
    lines: Vec<String>,
}

impl Reader {
    fn at(api: SocketAddr) -> Self {
        Self {
            client: client(PYTHON, "events.py", None, api),
            lines: Vec::new(),
        }
    }

    /// Reads on until it has read of this state of the payment.
    async fn reads(&mut self, code: &str, status: &str) {
        let line = format!("{code} {status}");
        while !self.lines.contains(&line) {
            self.lines.push(self.client.line().await);
        }
    }

    async fn reads_both(&mut self, first: &str, second: &str) {
        self.reads(first, "completed").await;
        self.reads(second, "completed").await;
    }
}

/// The way to a sidecar, which can break.
struct Wire {
    server: Server,
    /// From when this is set, what comes next from the sidecar arrives by half, and then nothing more.
    cut: Arc<AtomicBool>,
    /// Only with a permit comes another connection through.
    mended: Arc<Semaphore>,
}

impl Wire {
    async fn to(api: SocketAddr) -> Self {
        let cut = Arc::new(AtomicBool::new(false));
        let mended = Arc::new(Semaphore::new(0));
        let (is_cut, is_mended) = (cut.clone(), mended.clone());
        let mut is_first = true;
        let server = Server::new(move |near| {
            let (cut, mended) = (is_cut.clone(), is_mended.clone());
            let is_first = std::mem::replace(&mut is_first, false);
            async move {
                if is_first {
                    until_cut(near, api, &cut).await;
                    return;
                }
                let _permit = mended.acquire().await.unwrap();
                let (mut near, mut far) = (near, TcpStream::connect(api).await.unwrap());
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
        Self {
            server: server.await,
            cut,
            mended,
        }
    }
}

async fn until_cut(mut near: TcpStream, api: SocketAddr, cut: &AtomicBool) {
    let mut far = TcpStream::connect(api).await.unwrap();
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    while !cut.load(Ordering::Relaxed) {
        tokio::select! {
            length = near.read(&mut up) => far.write_all(&up[..length.unwrap()]).await.unwrap(),
            length = far.read(&mut down) => {
                let length = length.unwrap();
                let length = if cut.load(Ordering::Relaxed) { length / 2 } else { length };
                near.write_all(&down[..length]).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn the_pages_lines_about_waiting_work_when_pasted() {
    if !has("curl") || !has("sh") {
        return;
    }
    let mut dev = Program::start(&["dev"], &[]);
    let mut url_after = async |name: &str| loop {
        let line = dev.stdout_line().await;
        let mut words = line.split_whitespace();
        if words.next() == Some(name) {
            return words.next().unwrap().to_owned();
        }
    };
    let (api, gateway) = (url_after("API").await, url_after("Gateway").await);
    let sandbox = gateway.replace("localhost", "127.0.0.1");
    let before = blocks(API_PAGE, START, SH).swap_remove(0);
    let block = blocks(API_PAGE, "When it changes", SH).swap_remove(0);
    let (watch, lines) = block.split_once('\n').unwrap();
    let lines: Vec<_> = lines.lines().collect();
    let [wait, stream, payments, events] = lines[..] else {
        panic!("{block}")
    };
    let mut order = 0;
    for (line, shown, then) in [
        (wait, None, Some("\"completed\"")),
        (stream, Some("\"created\""), Some("\"completed\"")),
        (payments, Some("{\"payments\":[{"), None),
        (events, Some("\"created\""), Some("\"completed\"")),
    ] {
        let script = format!("{before}{watch}\necho; echo pasted\n{line}\necho; echo over\n");
        // Each line has an order of its own.
        order += 1;
        let script = script.replace("http://localhost:8700", &api).replace(
            "\"reference\": \"7\"",
            &format!("\"reference\": \"{order}\""),
        );
        let unused = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut sh = Client::start("sh", &["-c", &script], unused, &[]);
        let started = sh.line().await;
        let (_, rest) = started
            .split_once("\"code\":\"")
            .unwrap_or_else(|| panic!("{started}"));
        let code = rest.split('"').next().unwrap();
        while sh.line().await != "pasted" {}
        if let Some(shown) = shown {
            while !sh.line().await.contains(shown) {}
        }
        let Some(then) = then else { continue };
        pay_at(&sandbox, code).await;
        while !sh.line().await.contains(then) {}
        // The feed goes on until somebody ends it.
        if line != events {
            while sh.line().await != "over" {}
        }
    }
}

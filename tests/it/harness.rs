//! What the tests drive: the whole program in this process ([`Sidecar`]), or the built one ([`Program`]).

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyDataStream, BodyExt, Full};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tillgate::sandbox::{Fault, Operation, Options};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Lines,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::described::{DOCUMENT, Document};

/// Longest that any condition is waited for: only ever reached by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// The body of a start that is as good as any other.
pub const ORDER: &str = r#"{"amount": 1000}"#;
/// The URL of a gateway for tests that ask none: the discard port, where nothing listens.
pub const NOBODY: &str = "http://127.0.0.1:9";

/// The whole program without a socket. Dropping it checks that nothing is left behind.
pub struct Sidecar {
    inner: tillgate::app::Sidecar,
    /// It polls every open payment and posts to the app of its own accord: that is nothing which a test leaves behind.
    has_webhooks: bool,
}

impl Sidecar {
    /// With the defaults.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// With these settings.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::before(Options::default(), settings)
    }

    /// The same before a gateway of another kind.
    pub fn before(gateway: Options, settings: &[(&str, &str)]) -> Self {
        Self::build(settings, gateway, false)
    }

    /// As `tillgate dev` is: it lists codes.
    pub fn dev(settings: &[(&str, &str)]) -> Self {
        Self::build(settings, Options::default(), true)
    }

    fn build(settings: &[(&str, &str)], gateway: Options, dev: bool) -> Self {
        Self {
            inner: tillgate::app::Sidecar::new(settings, gateway, dev).expect("good settings"),
            has_webhooks: settings.iter().any(|(name, _)| *name == "webhook.url"),
        }
    }

    /// Sets what goes wrong at the gateway from here on, in the sandbox's words.
    pub fn faults(&self, faults: &[&str]) {
        self.inner.sandbox().set_faults(
            faults
                .iter()
                .map(|fault| fault.parse::<Fault>().expect("a fault"))
                .collect(),
        );
    }

    /// How many starts have reached the gateway.
    pub fn gateway_starts(&self) -> u64 {
        self.inner.sandbox().calls(Operation::Start)
    }

    /// How many watches have reached it.
    pub fn gateway_watches(&self) -> u64 {
        self.inner.sandbox().calls(Operation::Watch)
    }

    /// The most of them in any one second.
    pub fn gateway_busiest_second(&self) -> u64 {
        self.inner.sandbox().busiest_second(Operation::Watch)
    }

    /// The payer pays.
    pub fn pay(&self, code: &str) {
        assert!(self.inner.sandbox().complete(code), "no such payment");
    }

    /// `POST /api/start_payment` as a well-behaved caller sends it.
    pub async fn start(&self, body: impl Into<Bytes>) -> Answer {
        self.api(post("/api/start_payment", body)).await
    }

    /// A payment of 1000: its code and watch code.
    pub async fn started(&self) -> (String, String) {
        let answer = self.start(r#"{"amount": 1000}"#).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        (
            answer.text("code").to_owned(),
            answer.text("watch_code").to_owned(),
        )
    }

    /// `GET /watch/{code}`
    pub async fn watch(&self, code: &str) -> Answer {
        self.api(get(&format!("/watch/{code}"))).await
    }

    /// The same with one more header.
    pub async fn watch_with(&self, code: &str, header: &str, value: &str) -> Answer {
        let mut request = get(&format!("/watch/{code}"));
        request.headers_mut().insert(
            header.parse::<hyper::header::HeaderName>().unwrap(),
            value.parse().unwrap(),
        );
        self.api(request).await
    }

    /// A stream of this path, from after the event of that id if there is one.
    pub async fn stream(&self, path: &str, last_event_id: Option<&str>) -> Stream {
        self.stream_of(get_stream(path, last_event_id)).await
    }

    /// The stream that answers any request.
    pub async fn stream_of(&self, request: Request<Full<Bytes>>) -> Stream {
        let target = request.uri().to_string();
        let (head, body) = self.inner.stream(request).await.into_parts();
        if let Err(fault) = DOCUMENT.head(&target, head.status.as_u16(), &head.headers) {
            panic!("openapi.json does not describe this answer to {target}: {fault}");
        }
        Stream {
            target,
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.into_data_stream(),
            read: String::new(),
        }
    }

    /// From here on as after a SIGTERM.
    pub fn drain(&self) {
        self.inner.drain();
    }

    /// How many payments are polled in the background.
    pub fn followed(&self) -> usize {
        self.inner.followed()
    }

    /// Any request to the API; it and its answer must be as `/openapi.json` has them.
    pub async fn api(&self, request: Request<Full<Bytes>>) -> Answer {
        let (method, target, headers) = (
            request.method().clone(),
            request.uri().to_string(),
            request.headers().clone(),
        );
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Answer::of(
            self.inner
                .api(Request::from_parts(head, Full::new(body.clone())))
                .await,
        );
        let body = String::from_utf8_lossy(&body);
        let own = async || {
            let mut request = get("/openapi.json");
            *request.headers_mut() = headers.clone();
            Answer::of(self.inner.api(request).await)
        };
        is_described(&method, &target, &headers, &body, &answer, own).await;
        answer
    }

    /// `GET` on the admin listener.
    pub async fn admin(&self, path: &str) -> Answer {
        Answer::of(self.inner.admin(get(path)).await)
    }

    /// The same with one more header.
    pub async fn admin_with(&self, path: &str, header: &str, value: &str) -> Answer {
        let mut request = get(path);
        request.headers_mut().insert(
            header.parse::<hyper::header::HeaderName>().unwrap(),
            value.parse().unwrap(),
        );
        Answer::of(self.inner.admin(request).await)
    }

    /// Lets this time pass, as in a running program, which remembers its last hour.
    pub async fn runs_for(&self, time: Duration) {
        let end = tokio::time::sleep(time);
        tokio::select! {
            () = self.inner.keep_history() => {}
            () = end => {}
        }
    }

    /// The value of a metric, as [`Answer::metric`] reads it.
    pub async fn metric(&self, name: &str) -> u64 {
        self.admin("/metrics").await.metric(name)
    }

    /// Waits until nothing is under way.
    pub async fn idle(&self) {
        self.inner.idle().await;
    }

    /// What a test must not leave: a start that costs money, and somebody who waits.
    fn left_behind(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.inner.is_starting() && !self.has_webhooks {
            left.push("a start under way".to_owned());
        }
        match self.inner.followed() {
            0 => {}
            _ if self.has_webhooks => {}
            followed => left.push(format!("{followed} payments that are polled")),
        }
        // Without the budget of the task, which may be spent by now.
        let metrics = tokio::task::unconstrained(self.inner.admin(get("/metrics")));
        let metrics = Answer::of(metrics.now_or_never().expect("nothing to wait for"));
        for kind in ["long_poll", "stream", "events"] {
            match metrics.metric(&format!("tillgate_waiters{{kind=\"{kind}\"}}")) {
                0 => {}
                waiters => left.push(format!("{waiters} waiters of the kind {kind}")),
            }
        }
        left
    }
}

impl Drop for Sidecar {
    /// Fails the test that leaves something behind. Nothing can be waited for here: a start whose caller has hung up is
    /// waited for with [`Sidecar::idle`] before. A poll that is under way when the last who waited leaves is nothing
    /// that is left: it ends by itself, and when polls begin is random.
    fn drop(&mut self) {
        // A test that fails already may leave everything as it is, and a second panic would abort the tests beside it.
        if std::thread::panicking() {
            return;
        }
        let left = self.left_behind();
        if left.is_empty() {
            return;
        }
        let message = format!("the test leaves something behind: {}", left.join(", "));
        if tokio::task::try_id().is_some() {
            // The runtime catches the panics of a task, and nobody may ask for its result.
            let _ = writeln!(std::io::stderr(), "{message}");
            std::process::abort();
        }
        panic!("{message}");
    }
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "leaves something behind: 1 payments that are polled, 1 waiters")]
async fn a_test_that_leaves_a_caller_waiting_fails() {
    let sidecar = Sidecar::new();
    let (_, code) = sidecar.started().await;
    let _stream = sidecar.stream(&format!("/watch/{code}"), None).await;
    drop(sidecar);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "leaves something behind: a start under way")]
async fn a_test_that_leaves_a_start_under_way_fails() {
    let sidecar = Sidecar::new();
    sidecar.faults(&["start:delay=3s"]);
    assert!(sidecar.start(ORDER).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the reason of the test")]
async fn a_test_that_fails_and_leaves_something_behind_fails_for_its_own_reason() {
    let sidecar = Sidecar::new();
    sidecar.faults(&["start:delay=3s"]);
    assert!(sidecar.start(ORDER).now_or_never().is_none());
    panic!("the reason of the test");
}

/// Server-sent events, read as a client of theirs reads them.
pub struct Stream {
    target: String,
    pub status: u16,
    pub headers: hyper::HeaderMap,
    body: BodyDataStream<UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>>,
    read: String,
}

/// One block of a stream: the values of its fields, empty where a field is not there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub event: String,
    pub id: String,
    pub data: String,
    pub retry: String,
    pub comment: String,
}

impl Block {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// One block, without the empty line after it.
    pub fn parse(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            let (name, value) = line
                .split_once(':')
                .unwrap_or_else(|| panic!("not a field: {line}"));
            let field = match name {
                "event" => &mut block.event,
                "id" => &mut block.id,
                "data" => &mut block.data,
                "retry" => &mut block.retry,
                "" => &mut block.comment,
                _ => panic!("no field of a stream: {line}"),
            };
            assert!(field.is_empty(), "twice: {text}");
            value.strip_prefix(' ').unwrap_or(value).clone_into(field);
        }
        block
    }
}

impl Stream {
    /// The blocks of a body in chunks, of which none is cut in two.
    pub fn blocks(body: &str) -> Vec<Block> {
        let is_size =
            |line: &&str| !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let lines: Vec<_> = body.split("\r\n").filter(|line| !is_size(line)).collect();
        lines
            .concat()
            .split_terminator("\n\n")
            .map(Block::parse)
            .collect()
    }

    /// The next block, whatever it is; `None` at the end.
    pub async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.read.split_once("\n\n") {
                let block = Block::parse(block);
                self.read = rest.to_owned();
                return Some(block);
            }
            match self.body.next().await {
                Some(bytes) => self
                    .read
                    .push_str(std::str::from_utf8(&bytes.expect("a good body")).expect("UTF-8")),
                None => {
                    assert!(
                        self.read.is_empty(),
                        "half a block at the end: {}",
                        self.read
                    );
                    return None;
                }
            }
        }
    }

    /// The next event with data, as a client is told of it; `None` at the end.
    pub async fn event(&mut self) -> Option<Block> {
        loop {
            let block = self.block().await?;
            if !block.data.is_empty() {
                if let Err(fault) = DOCUMENT.event(&self.target, &block) {
                    panic!("openapi.json does not describe this event: {fault}");
                }
                return Some(block);
            }
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: String,
}

impl Answer {
    fn of(response: Response<Bytes>) -> Self {
        let (head, body) = response.into_parts();
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    /// All of these bytes, as answers one after the other.
    pub fn all(mut bytes: &[u8]) -> Result<Vec<Self>, String> {
        let mut answers = Vec::new();
        while !bytes.is_empty() {
            let first = first_answer(bytes);
            let (answer, length) = first
                .ok_or_else(|| format!("half an answer: {:?}", String::from_utf8_lossy(bytes)))?;
            bytes = &bytes[length..];
            answers.push(answer);
        }
        Ok(answers)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A member of the body that is a text.
    pub fn text(&self, name: &str) -> &str {
        let (_, rest) = self
            .body
            .split_once(&format!("\"{name}\":\""))
            .unwrap_or_else(|| panic!("no {name}: {}", self.body));
        rest.split('"').next().unwrap()
    }

    /// The value of a metric, where this is a page of them: a count, or whole seconds. The name has its labels as they
    /// are printed. A series with labels is 0 until it is there; one without them is always there.
    pub fn metric(&self, name: &str) -> u64 {
        let mut lines = self.body.lines();
        match lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')) {
            Some(value) => {
                let (whole, _) = value.split_once('.').unwrap_or((value, ""));
                whole
                    .parse()
                    .unwrap_or_else(|error| panic!("{error}: {name} {value}"))
            }
            None if name.ends_with('}') => 0,
            None => panic!("no {name} in:\n{}", self.body),
        }
    }

    /// The other listeners give no request an id.
    fn is_of_the_api(&self) -> bool {
        self.headers.contains_key("x-request-id")
    }

    /// A header, the empty text if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// Lets go on what can go on without time passing, until this holds.
pub async fn settles(mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came to that");
}

/// A GET with a good Host.
pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header("host", "localhost")
        .body(Full::default())
        .unwrap()
}

/// A GET that asks for a stream, from after the event of that id if there is one.
pub fn get_stream(path: &str, last_event_id: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = get(path);
    let headers = request.headers_mut();
    headers.insert("accept", "text/event-stream".parse().unwrap());
    if let Some(id) = last_event_id {
        headers.insert("last-event-id", id.parse().unwrap());
    }
    request
}

/// A POST of JSON with a good Host.
pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/json");
    request.body(Full::new(body.into())).unwrap()
}

/// A running `tillgate`, killed when dropped.
pub struct Program {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
    /// What it has said on stderr, as far as it was read.
    pub log: Vec<String>,
}

impl Program {
    /// Starts it with these arguments and settings, and no variables of ours.
    pub fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::start_in(Path::new(env!("CARGO_TARGET_TMPDIR")), arguments, settings)
    }

    /// The same in a directory of its own.
    pub fn start_in(directory: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self::start_under(&[], directory, arguments, settings)
    }

    /// The same, started by another program, which must become it: its id is the one that signals go to.
    pub fn start_under(
        under: &[&str],
        directory: &Path,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> Self {
        let words: Vec<_> = under
            .iter()
            .chain([&env!("CARGO_BIN_EXE_tillgate")])
            .chain(arguments)
            .collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env_clear()
            .envs(variables_of(settings))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self {
            child,
            stdout,
            stderr,
            log: Vec::new(),
        }
    }

    /// A sandbox gateway on a free port, and its URL.
    pub async fn sandbox(arguments: &[&str]) -> (Self, String) {
        let mut program = Self::start(
            &[&["sandbox", "--listen", "127.0.0.1:0"], arguments].concat(),
            &[],
        );
        let line = program.stdout_line().await;
        let url = line
            .strip_prefix("sandbox listening on ")
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned();
        (program, url)
    }

    /// A sidecar on free ports, in front of that gateway, with the sandbox's secret inline and these settings; gives the
    /// addresses of API and admin listener.
    pub async fn sidecar(
        gateway: &str,
        settings: &[(&str, &str)],
    ) -> (Self, SocketAddr, SocketAddr) {
        let mut program = Self::launch(&[], gateway, settings);
        let (api, admin) = program.addresses().await;
        (program, api, admin)
    }

    /// The same on a port that its callers know already.
    pub async fn sidecar_on(port: u16, gateway: &str) -> (Self, SocketAddr, SocketAddr) {
        Self::sidecar(gateway, &[("listen.address", &format!("127.0.0.1:{port}"))]).await
    }

    /// Starts a sidecar likewise, by that program if one is named, and does not wait until it runs.
    pub fn launch(under: &[&str], gateway: &str, settings: &[(&str, &str)]) -> Self {
        let mut all = vec![
            ("gateway.url", gateway),
            ("listen.address", "127.0.0.1:0"),
            ("admin.address", "127.0.0.1:0"),
        ];
        if !settings
            .iter()
            .any(|(name, _)| name.starts_with("merchant."))
        {
            all.push(("merchant.secret", tillgate::sandbox::DEFAULT_SECRET));
        }
        all.extend(settings);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Self::start_under(under, directory, &["run"], &all)
    }

    /// Where it listens, once it says so: API and admin listener.
    pub async fn addresses(&mut self) -> (SocketAddr, SocketAddr) {
        self.log_line("tillgate is running").await;
        self.last_addresses()
    }

    /// Where it listens, as the last line that was read says.
    pub fn last_addresses(&self) -> (SocketAddr, SocketAddr) {
        let line: Value =
            serde_json::from_str(self.log.last().expect("a line")).expect("a JSON line");
        let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
        (address("listen"), address("admin"))
    }

    /// Memory that is really there, in bytes.
    pub fn memory(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number")
            * 1024
    }

    /// How many files and sockets it has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("it runs")
            .count()
    }

    /// The next line of its answer.
    pub async fn stdout_line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.stdout.next_line()).await;
        line.expect("a line in time")
            .unwrap()
            .expect("a line before the end")
    }

    /// Reads its log up to a line that has this in it.
    pub async fn log_line(&mut self, part: &str) -> String {
        assert!(
            self.log_line_or_end(part).await,
            "no {part:?} in {:#?}",
            self.log
        );
        self.log.last().unwrap().clone()
    }

    /// The same; `false` if there is none up to the end.
    pub async fn log_line_or_end(&mut self, part: &str) -> bool {
        let read = async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                self.log.push(line);
                if self.log.last().unwrap().contains(part) {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .unwrap_or_else(|_| panic!("no {part:?} in time"))
    }

    /// Its most memory so far, in KiB (Linux, proc(5)); `None` where nobody may look.
    pub fn peak_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    /// Waits for its end, however it comes to it.
    pub async fn died(mut self) -> std::process::ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("an end in time")
            .unwrap()
    }

    /// Sends a signal by its name, like TERM.
    pub fn signal(&self, name: &str) {
        assert!(self.try_signal(name));
    }

    /// The same to one that may have ended.
    pub fn try_signal(&self, name: &str) -> bool {
        let id = self.id().to_string();
        std::process::Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .expect("kill")
            .success()
    }

    /// Kills it, as nothing can be done against; it must have been running.
    pub async fn kill(mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            let (_, _, log) = self.end().await;
            panic!("it had ended before, with {status}:\n{log}");
        }
        self.child.kill().await.expect("it is killed");
    }

    /// Waits for its end: exit code, and the rest of stdout and stderr.
    pub async fn end(mut self) -> (i32, String, String) {
        let mut rest = [String::new(), String::new()];
        let [out, err] = &mut rest;
        let read = async {
            tokio::join!(
                async {
                    while let Some(line) = self.stdout.next_line().await.unwrap() {
                        out.push_str(&line);
                        out.push('\n');
                    }
                },
                async {
                    while let Some(line) = self.stderr.next_line().await.unwrap() {
                        err.push_str(&line);
                        err.push('\n');
                    }
                }
            );
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, read)
            .await
            .expect("an end in time");
        let [out, err] = rest;
        (status.code().expect("an exit code"), out, err)
    }
}

impl Drop for Program {
    /// Fails the test during which it has panicked unseen. What it does is not looked at from outside: it is killed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let ended = self.child.try_wait().ok().flatten();
        let code = ended.and_then(|status| status.code());
        assert_ne!(code, Some(101), "the program has panicked");
    }
}

/// The variables of these settings. Tests name a setting by its key, `start.rate`, for both kinds of sidecar; what the
/// built program reads is `TILLGATE_START__RATE`. A name without a dot is that of another variable.
pub fn variables_of<'a>(settings: &'a [(&str, &str)]) -> impl Iterator<Item = (String, &'a str)> {
    settings.iter().map(|(name, value)| {
        let variable = match name.contains('.') {
            true => format!("TILLGATE_{}", name.replace('.', "__").to_uppercase()),
            false => (*name).to_owned(),
        };
        (variable, *value)
    })
}

/// Another program, killed when dropped.
pub struct Client {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Client {
    /// Starts it, to talk to a sidecar at this address.
    pub fn start(
        program: &str,
        arguments: &[&str],
        api: SocketAddr,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .env("TILLGATE_URL", format!("http://{api}"))
            .env("no_proxy", "127.0.0.1,localhost")
            .envs(variables.iter().copied())
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the client starts");
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// The next line that it prints.
    pub async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.stdout.next_line())
            .await
            .expect("a line in time")
            .unwrap();
        if let Some(line) = line {
            return line;
        }
        let mut said = String::new();
        while let Some(line) = self.stderr.next_line().await.unwrap() {
            said.push_str(&line);
            said.push('\n');
        }
        panic!("it ended: {said}")
    }

    /// Reads what it says on stderr up to a line that has this in it.
    pub async fn says(&mut self, part: &str) {
        let read = async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                if line.contains(part) {
                    return;
                }
            }
            panic!("it ended before {part:?}")
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .unwrap_or_else(|_| panic!("no {part:?} in time"));
    }

    /// Waits for its end: exit code, and what it had still to print.
    pub async fn end(mut self) -> (i32, Vec<String>) {
        let read = async {
            let mut rest = Vec::new();
            while let Some(line) = self.stdout.next_line().await.unwrap() {
                rest.push(line);
            }
            (self.child.wait().await.unwrap(), rest)
        };
        let (status, rest) = tokio::time::timeout(PATIENCE, read)
            .await
            .expect("an end in time");
        (status.code().expect("an exit code"), rest)
    }
}

/// A port that nobody has, for who must have the same twice. Not from the range that the system gives out: another
/// test would have it in between.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests of another run take theirs elsewhere.
    let first = u16::try_from(std::process::id() % 1000).unwrap() * 10;
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A port that nobody can listen on as long as the socket lives, and nobody does.
pub fn closed_port() -> (socket2::Socket, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let url = format!(
        "http://{}",
        socket.local_addr().unwrap().as_socket().unwrap()
    );
    (socket, url)
}

/// The payer pays at that sandbox.
pub async fn pay_at(sandbox: &str, code: &str) {
    let path = format!("/_sandbox/payments/{code}/complete");
    let paid = call(address_of(sandbox), Method::POST, &path, &[], "").await;
    assert!(paid.status < 300, "{paid:?}");
}

/// Runs it to its end.
pub async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (i32, String, String) {
    Program::start(arguments, settings).end().await
}

/// One request over a connection of its own.
pub async fn call(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let own = async || Box::pin(call(address, Method::GET, "/openapi.json", headers, "")).await;
    call_over(
        TcpStream::connect(address).await.expect("it listens"),
        method,
        path,
        headers,
        body,
        own,
    )
    .await
}

/// The same over the socket of this file.
pub async fn call_unix(
    socket: &Path,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let own = async || Box::pin(call_unix(socket, Method::GET, "/openapi.json", headers, "")).await;
    call_over(
        UnixStream::connect(socket).await.expect("it listens"),
        method,
        path,
        headers,
        body,
        own,
    )
    .await
}

/// `own` asks the same sidecar for its description.
async fn call_over<S>(
    stream: S,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    own: impl AsyncFnOnce() -> Answer,
) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let asked = method.clone();
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap();
    let sent = request.headers().clone();
    let (head, bytes) = sender
        .send_request(request)
        .await
        .expect("an answer")
        .into_parts();
    let answer = Answer::of(Response::from_parts(
        head,
        bytes.collect().await.expect("a whole body").to_bytes(),
    ));
    if answer.is_of_the_api() {
        is_described(&asked, path, &sent, body, &answer, own).await;
    }
    answer
}

/// Fails the test if `/openapi.json` does not know this answer to this request. What it says of a start depends on how
/// the sidecar is configured: where the usual one does not fit, its own is asked for.
async fn is_described(
    method: &Method,
    target: &str,
    headers: &hyper::HeaderMap,
    body: &str,
    answer: &Answer,
    own: impl AsyncFnOnce() -> Answer,
) {
    if let Err(fault) = DOCUMENT.answer(method, target, answer) {
        panic!("openapi.json does not describe this answer to {method} {target}: {fault}");
    }
    if answer.status < 400
        && DOCUMENT.request(method, target, headers, body).is_err()
        && let Err(fault) = Document::new(own().await.json()).request(method, target, headers, body)
    {
        panic!(
            "openapi.json does not describe this request, and it was granted: {method} {target}: {fault}"
        );
    }
}

/// One request over a connection of its own, and the bytes that come back until its end, or until nobody waits any
/// longer: whoever is at the other end may be killed at any moment.
pub async fn exchange(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    patience: Duration,
) -> Vec<u8> {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let mut read = Vec::new();
    let talk = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        while stream.read_buf(&mut read).await.ok()? > 0 {}
        Some(())
    };
    let _ = tokio::time::timeout(patience, talk).await;
    read
}

/// A start over a connection of its own.
pub async fn start_at(address: SocketAddr, body: &str) -> Answer {
    let json = [("content-type", "application/json")];
    call(address, Method::POST, "/api/start_payment", &json, body).await
}

/// A GET over a connection of its own.
pub async fn get_at(address: SocketAddr, path: &str) -> Answer {
    call(address, Method::GET, path, &[], "").await
}

/// The value of a metric, as [`Answer::metric`] reads it.
pub async fn metric_at(admin: SocketAddr, name: &str) -> u64 {
    get_at(admin, "/metrics").await.metric(name)
}

/// The status of a payment, asked of the gateway whatever is in memory.
pub async fn watch_anew(address: SocketAddr, code: &str) -> Answer {
    let anew = [("cache-control", "no-cache")];
    call(address, Method::GET, &format!("/watch/{code}"), &anew, "").await
}

/// One HTTP/1.1 connection, byte by byte.
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.expect("it listens"),
            read: Vec::new(),
        }
    }

    /// Writes these bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .await
            .expect("it reads");
    }

    /// The next whole answer.
    pub async fn answer(&mut self) -> Answer {
        let read = async {
            loop {
                if let Some((answer, length)) = first_answer(&self.read) {
                    self.read.drain(..length);
                    return answer;
                }
                let n = self
                    .stream
                    .read_buf(&mut self.read)
                    .await
                    .expect("an answer before a reset");
                assert!(
                    n > 0,
                    "closed before a whole answer: {:?}",
                    String::from_utf8_lossy(&self.read)
                );
            }
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("an answer in time")
    }

    /// Everything up to an orderly end, as answers.
    pub async fn answers(mut self) -> Vec<Answer> {
        let end = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await;
        end.expect("an end in time").expect("an orderly end");
        Answer::all(&self.read).unwrap()
    }

    /// The other side closes, and says nothing more.
    pub async fn closed(self) {
        let rest = self.answers().await;
        assert!(rest.is_empty(), "{rest:?}");
    }

    /// The stream, for what is not one request after the other.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.read.is_empty());
        self.stream
    }
}

/// The answer at the start of these bytes and its length; `None` while it is not whole.
fn first_answer(bytes: &[u8]) -> Option<(Answer, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let start = match head
        .parse(bytes)
        .unwrap_or_else(|error| panic!("no answer: {error}: {}", shown()))
    {
        httparse::Status::Complete(start) => start,
        httparse::Status::Partial => return None,
    };
    let status = head.code.unwrap();
    let mut response = Response::builder().status(status);
    for field in head.headers.iter() {
        response = response.header(field.name, field.value);
    }
    let length = match response.headers_ref().unwrap().get("content-length") {
        Some(length) => length.to_str().unwrap().parse().unwrap(),
        None if matches!(status, 100..200 | 204 | 304) => 0,
        None => panic!("an answer without a length: {}", shown()),
    };
    let body = bytes.get(start..start + length)?;
    let answer = Answer::of(response.body(Bytes::copy_from_slice(body)).unwrap());
    // What was asked is not known here.
    if answer.is_of_the_api()
        && let Err(fault) = DOCUMENT.some_answer(&answer)
    {
        panic!("openapi.json does not describe this answer to anything: {fault}");
    }
    Some((answer, start + length))
}

/// Waits until this gives something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// The address in the URL of a sandbox.
pub fn address_of(url: &str) -> SocketAddr {
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// How many starts and watches have reached that sandbox.
pub async fn calls(sandbox: &str) -> (u64, u64) {
    let calls = get_at(address_of(sandbox), "/_sandbox/calls").await.json();
    (
        calls["start"].as_u64().unwrap(),
        calls["watch"].as_u64().unwrap(),
    )
}

/// Sets what goes wrong at that sandbox from here on.
pub async fn set_faults(sandbox: &str, faults: &[&str]) {
    let body = serde_json::json!({ "faults": faults }).to_string();
    let answer = call(
        address_of(sandbox),
        Method::POST,
        "/_sandbox/faults",
        &[],
        &body,
    )
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Whether a program that a test needs is there; if not, the test says so and is left out, unless everything must run.
pub fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    });
    found || skip(&format!("{program} is not installed"))
}

/// Says why a test is left out, and gives `false`; fails instead where everything must run.
pub fn skip(why: &str) -> bool {
    let all = std::env::var_os("TILLGATE_TEST_ALL").is_some_and(|all| all == "1");
    assert!(!all, "{why}, and TILLGATE_TEST_ALL=1");
    // Not by `eprintln`, which is only shown when a test fails.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    false
}

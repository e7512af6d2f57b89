//! One sidecar of a fleet: the built program in a process of its own.

mod orders;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

pub use self::orders::{assert_away, codes, order, order_of};
use super::proxy::Proxy;
use super::{in_time, show_end, until};
use crate::described::DOCUMENT;
use crate::harness::{
    Answer, Stream, call, exchange, free_port, get_at, metric_at, try_stream_at, variables_of,
};

pub const TOKEN: &str = "a-token-of-these-tests";

/// It runs or does not; all of its processes have the same addresses and the same log.
pub struct Replica {
    pub name: String,
    pub api: SocketAddr,
    pub admin: SocketAddr,
    /// Its way to the database.
    pub proxy: Proxy,
    settings: Vec<(String, String)>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Replica {
    /// One that does not run yet, and keeps its log in this directory.
    pub fn new(number: usize, directory: &Path, proxy: Proxy) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let name = format!("replica-{number}");
        Self {
            api: address(),
            admin: address(),
            proxy,
            settings: Vec::new(),
            log: directory.join(format!("{name}.log")),
            child: Mutex::default(),
            name,
        }
    }

    /// Sets this for the processes that are started from here on.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.settings.retain(|(name, _)| name != key);
        self.settings.push((key.to_owned(), value.into()));
    }

    /// Starts it.
    pub fn launch(&self) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log);
        *child = Some(
            self.command(&["run"])
                .stderr(log.expect("a file"))
                .spawn()
                .expect("it starts"),
        );
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let settings: Vec<_> = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tillgate"));
        command
            .args(arguments)
            .env_clear()
            .envs(variables_of(&settings))
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs another command with the same settings: its exit code, and all that it said.
    pub async fn command_output(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = in_time("the command ends", command.output()).await;
        let output = output.expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        let code = output.status.code().expect("an exit code");
        (code, String::from_utf8(said).expect("UTF-8"))
    }

    /// Waits until it says that it is ready.
    pub async fn is_ready(&self) {
        until(&format!("{} is ready", self.name), async || {
            (self.probe("/readyz").await? == 200).then_some(())
        })
        .await;
    }

    /// Waits until it listens.
    pub async fn is_up(&self) {
        until(&format!("{} listens", self.name), async || {
            (self.probe("/livez").await? == 200).then_some(())
        })
        .await;
    }

    /// Waits until its store is there, or away.
    pub async fn has_store(&self, is_there: bool) {
        let status = if is_there { 200 } else { 503 };
        until(
            &format!("{}: /readyz/store is {status}", self.name),
            async || (self.probe("/readyz/store").await? == status).then_some(()),
        )
        .await;
    }

    /// The status of this probe, if there is an answer.
    pub async fn probe(&self, path: &str) -> Option<u16> {
        let patience = Duration::from_secs(5);
        let bytes = exchange(self.admin, Method::GET, path, &[], "", patience).await;
        Some(Answer::all(&bytes).ok()?.pop()?.status)
    }

    pub async fn admin(&self, path: &str) -> Answer {
        in_time("an answer", get_at(self.admin, path)).await
    }

    pub async fn metric(&self, name: &str) -> u64 {
        in_time("metrics", metric_at(self.admin, name)).await
    }

    pub fn id(&self) -> Option<u32> {
        self.child.lock().unwrap().as_ref()?.id()
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.id().expect("it runs");
        let id = Pid::from_raw(id.try_into().expect("a process")).expect("a process");
        kill_process(id, signal).expect("it is there");
    }

    /// Stops it where it is.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.id().expect("it runs"));
        // The signal is not yet the stop.
        while !std::fs::read_to_string(&stat)
            .expect("it is there")
            .contains(") T ")
        {
            std::thread::yield_now();
        }
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it, without a word.
    pub async fn kill(&self) {
        let child = self.child.lock().unwrap().take();
        let mut child = child.expect("it runs");
        child.kill().await.expect("it is killed");
    }

    /// Ends it as a platform does that moves it.
    pub async fn stop(&self) {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "{}: {status}\n{}", self.name, self.log());
    }

    /// Waits for its end.
    pub async fn ended(&self) -> ExitStatus {
        let child = self.child.lock().unwrap().take();
        let mut child = child.expect("it runs");
        let ended = in_time(&format!("{} ends", self.name), child.wait()).await;
        ended.expect("it is waited for")
    }

    /// Starts it again, and waits until it is ready and takes part.
    pub async fn restart(&self) {
        self.launch();
        self.is_ready().await;
        self.knows(1).await;
    }

    /// Waits until it knows so many replicas that are alive, itself among them.
    pub async fn knows(&self, number: usize) {
        until(&format!("{} knows {number}", self.name), async || {
            (self.members().await.len() >= number).then_some(())
        })
        .await;
    }

    /// The replicas that are alive, as its status page has them.
    pub async fn members(&self) -> Vec<Value> {
        let status = self.admin("/status").await.json();
        status["fleet"]["replicas"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of its log that has all of this in it.
    pub async fn logs(&self, parts: &[&str]) {
        until(&format!("{} logs {parts:?}", self.name), async || {
            let log = self.log();
            let has_all = |line: &str| parts.iter().all(|part| line.contains(part));
            log.lines().any(has_all).then_some(())
        })
        .await;
    }

    /// Any request, with the token; it and its answer are held against the OpenAPI document.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let mut all = vec![("authorization", &*bearer)];
        if method == Method::POST && !body.is_empty() {
            all.push(("content-type", "application/json"));
        }
        all.extend(headers);
        let what = format!("{}: {method} {path}", self.name);
        in_time(&what, call(self.api, method, path, &all, body)).await
    }

    /// The same where there may be no answer, because it is killed or nobody waits any longer.
    pub async fn try_call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        patience: Duration,
    ) -> Option<Answer> {
        let bearer = format!("Bearer {TOKEN}");
        let mut all = vec![
            ("Authorization", &*bearer),
            ("Content-Type", "application/json"),
        ];
        all.extend(headers);
        let bytes = exchange(self.api, method.clone(), path, &all, body, patience).await;
        let answer = Answer::all(&bytes).ok()?.pop()?;
        if let Err(fault) = DOCUMENT.answer(&method, path, &answer) {
            panic!("openapi.json does not describe this answer to {method} {path}: {fault}");
        }
        Some(answer)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], "").await
    }

    /// `POST /api/start_payment` with this body, and a key if there is one.
    pub async fn start(&self, key: Option<&str>, body: &str) -> Answer {
        let header = key.map(|key| ("idempotency-key", key));
        let headers: Vec<_> = header.into_iter().collect();
        self.call(Method::POST, "/api/start_payment", &headers, body)
            .await
    }

    /// The same for as long as it is answered otherwise than with a 200, by nobody, or not at all.
    pub async fn start_at_last(&self, key: &str, body: &str) -> Answer {
        let header = [("idempotency-key", key)];
        until(&format!("{} starts a payment", self.name), async || {
            let patience = Duration::from_secs(20);
            let answer = self
                .try_call(Method::POST, "/api/start_payment", &header, body, patience)
                .await?;
            assert!(matches!(answer.status, 200 | 429 | 502..=504), "{answer:?}");
            (answer.status == 200).then_some(answer)
        })
        .await
    }

    /// A payment of that amount without a key: its code and its watch code.
    pub async fn started(&self, amount: u64) -> (String, String) {
        codes(&self.start(None, &order(amount)).await)
    }

    pub async fn watch(&self, watch_code: &str) -> Answer {
        self.get(&format!("/watch/{watch_code}")).await
    }

    /// Asks the gateway, whatever is in memory.
    pub async fn watch_anew(&self, watch_code: &str) -> Answer {
        let anew = [("cache-control", "no-cache")];
        self.call(Method::GET, &format!("/watch/{watch_code}"), &anew, "")
            .await
    }

    /// Waits for a status that differs from `created`, as long as it takes.
    pub async fn waits_for_completion(&self, watch_code: &str) -> Answer {
        let path = format!("/watch/{watch_code}?wait=20");
        until(
            &format!("{}: {watch_code} is paid", self.name),
            async || {
                let mut answer = self.get(&path).await;
                if answer.status == 200 && answer.text("status") == "created" {
                    let tag = answer.header("etag").to_owned();
                    let known = [("if-none-match", tag.as_str())];
                    answer = self.call(Method::GET, &path, &known, "").await;
                }
                (answer.status == 200 && answer.text("status") == "completed").then_some(answer)
            },
        )
        .await
    }

    /// A page of JSON, which must be a good one.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{}: {path}: {answer:?}", self.name);
        answer.json()
    }

    /// All payments that it lists, the newest first.
    pub async fn payments(&self) -> Vec<Value> {
        self.pages("/payments", "payments").await
    }

    /// All deliveries, the newest first.
    pub async fn deliveries(&self) -> Vec<Value> {
        self.pages("/deliveries", "deliveries").await
    }

    async fn pages(&self, path: &str, member: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("{path}?limit=1000{after}");
            // A connection may be made anew in this moment.
            let page = until(&format!("{}: {path}", self.name), async || {
                let answer = self.get(&path).await;
                assert!(matches!(answer.status, 200 | 503), "{path}: {answer:?}");
                (answer.status == 200).then(|| answer.json())
            })
            .await;
            all.extend(page[member].as_array().expect("a list").iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    /// A stream of this path, from after the event of that id if there is one.
    pub async fn stream(&self, path: &str, last_event_id: Option<&str>) -> Stream {
        let what = format!("{}: {path}", self.name);
        let stream = in_time(&what, self.try_stream(path, last_event_id)).await;
        stream.unwrap_or_else(|| panic!("no answer: {what}"))
    }

    /// The same, if there is an answer.
    pub async fn try_stream(&self, path: &str, last_event_id: Option<&str>) -> Option<Stream> {
        let bearer = format!("Bearer {TOKEN}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(last_event_id.map(|id| ("last-event-id", id)));
        try_stream_at(self.api, path, &headers).await
    }
}

impl Drop for Replica {
    /// Where the test fails, the log is shown; where it does not, nothing in it may have panicked.
    fn drop(&mut self) {
        let log = self.log();
        if std::thread::panicking() {
            show_end(&self.name, &log);
        } else {
            assert!(!log.contains("panicked at"), "{}:\n{log}", self.name);
        }
    }
}

//! The built program, and others that run beside it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::PATIENCE;

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

/// Runs it to its end.
pub async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> (i32, String, String) {
    Program::start(arguments, settings).end().await
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

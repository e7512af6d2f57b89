//! The app that `tillgate dev -- CMD` runs. Its output is passed on line by line, signals reach it before the sidecar, and
//! its processes are ended with it.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Signal as Kill, kill_process, kill_process_group, test_kill_process_group,
};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, stderr, stdout,
};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::exit::Exit;
use super::orphans;
use crate::clock;
use crate::config::Environment;
use crate::signals::{Signal, Signals};

/// How long processes have to end by themselves before they are killed.
const GRACE: Duration = Duration::from_secs(2);
/// How long output is still passed on after the app has ended: a process out of reach may hold the pipe open for ever.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// The longest piece of a line that is passed on at once, in bytes.
const MAX_LINE: u64 = 64 * 1024;

/// A running app. Dropping it kills its process.
pub(super) struct Child {
    process: tokio::process::Child,
    /// Its process group. `None` where it is in ours: on a terminal only the foreground group may read, and Ctrl-C
    /// reaches every process in it.
    group: Option<Pid>,
    output: Option<(ChildStdout, ChildStderr)>,
    color: bool,
}

impl Child {
    /// Starts it with these variables in its environment, and without the settings of this process.
    ///
    /// # Errors
    /// Fails if there is no such program, or it cannot be run.
    pub(super) fn start(
        command: &[OsString],
        variables: &[(&str, &str)],
        environment: &Environment,
    ) -> io::Result<Self> {
        let [program, arguments @ ..] = command else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        orphans::adopt();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(variables.iter().copied())
            .kill_on_drop(true);
        for name in environment.names_of_settings() {
            command.env_remove(name);
        }
        let apart = !io::stdin().is_terminal();
        if apart {
            command.process_group(0);
        }
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().zip(process.stderr.take());
        let group = process.id().filter(|_| apart).and_then(pid);
        Ok(Self {
            process,
            group,
            output,
            color: environment.wants_color(),
        })
    }

    /// Passes its output on until it and the processes that it started have ended. Returns its exit code as a shell
    /// does, or [`Exit::Failed`] if a second signal killed it. It gets each signal first.
    pub(super) async fn attend(&mut self, signals: &mut Signals) -> Exit {
        let output = self.output.take();
        let color = |terminal: bool, code| if terminal && self.color { code } else { "" };
        let (out, err) = (
            color(io::stdout().is_terminal(), "36"),
            color(io::stderr().is_terminal(), "33"),
        );
        let over = Notify::new();
        let passed_on = async {
            let Some((of_stdout, of_stderr)) = output else {
                return;
            };
            tokio::join!(
                pass_on(of_stdout, stdout(), out),
                pass_on(of_stderr, stderr(), err)
            );
        };
        let passed_on = async {
            tokio::select! {
                () = passed_on => {}
                () = async { over.notified().await; clock::sleep(LAST_OUTPUT).await } => {}
            }
        };
        let ended = async {
            let exit = self.ended(signals).await;
            over.notify_one();
            exit
        };
        tokio::join!(ended, passed_on).0
    }

    async fn ended(&mut self, signals: &mut Signals) -> Exit {
        let (mut asked, mut deaths) = (false, signal(SignalKind::child()).ok());
        let code = loop {
            let own = self.process.id();
            let death = async {
                match &mut deaths {
                    Some(deaths) => deaths.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = self.process.wait() => break status.map_or(1, code_of),
                _ = death => orphans::reap(own),
                signal = signals.next() => match signal {
                    _ if asked => return self.kill().await,
                    // The terminal has sent it to the app already. Many apps end at once when they get a second one.
                    Signal::Interrupt if self.group.is_none() => asked = true,
                    Signal::Terminate | Signal::Interrupt | Signal::Reload => {
                        asked = true;
                        self.send(Kill::TERM);
                    }
                },
            }
        };
        let again = async {
            signals.next().await;
            if !asked {
                signals.next().await;
            }
        };
        tokio::select! {
            () = self.end_the_rest() => Exit::AsApp(code),
            () = again => self.kill().await,
        }
    }

    /// Returns how its process ended, once it has.
    pub(super) fn how_it_ended(&mut self) -> Option<String> {
        let status = self.process.try_wait().ok().flatten()?;
        Some(match status.code() {
            Some(code) => format!("the app has ended with exit code {code}"),
            // As std names signals: "signal: 9 (SIGKILL)".
            None => format!(
                "the app was ended by {}",
                status.to_string().replace(':', "")
            ),
        })
    }

    /// Ends it and the processes that it started.
    pub(super) async fn end(&mut self) {
        self.send(Kill::TERM);
        if clock::timeout(GRACE, self.process.wait()).await.is_err() {
            self.kill().await;
        }
        self.end_the_rest().await;
    }

    /// Kills it and the processes that it started.
    async fn kill(&mut self) -> Exit {
        self.send(Kill::KILL);
        let gone = async {
            let _ = self.process.wait().await;
            self.until_alone(Kill::KILL).await;
        };
        // A process in an uninterruptible system call does not even end by SIGKILL.
        let _ = clock::timeout(GRACE, gone).await;
        Exit::Failed
    }

    /// Terminates the processes that are left, and kills those that do not end in time.
    async fn end_the_rest(&self) {
        if clock::timeout(GRACE, self.until_alone(Kill::TERM))
            .await
            .is_err()
        {
            let _ = clock::timeout(GRACE, self.until_alone(Kill::KILL)).await;
        }
    }

    /// Sends this signal to each process that is left behind, until none is. One that loses its parent in the meantime
    /// becomes an orphan, and gets it then.
    async fn until_alone(&self, kill: Kill) {
        let mut signalled = Vec::new();
        if let Some(group) = self.group {
            let _ = kill_process_group(group, kill);
        }
        loop {
            let own = self.process.id();
            orphans::reap(own);
            let left = orphans::all(own);
            for orphan in left.iter().filter(|orphan| !signalled.contains(*orphan)) {
                let _ = kill_process(*orphan, kill);
            }
            if left.is_empty()
                && self
                    .group
                    .is_none_or(|group| test_kill_process_group(group).is_err())
            {
                return;
            }
            signalled = left;
            clock::sleep(Duration::from_millis(20)).await;
        }
    }

    fn send(&self, kill: Kill) {
        // It fails if the process has ended in the meantime.
        let _ = match (self.group, self.process.id().and_then(pid)) {
            (Some(group), _) => kill_process_group(group, kill),
            (None, Some(own)) => kill_process(own, kill),
            (None, None) => Ok(()),
        };
    }
}

fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(id.cast_signed())
}

/// Returns the exit code as a shell does: 128 plus the number of the signal if one ended the process.
fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Copies the output of the app line by line, each with a prefix that names its origin. Returns at the end of the output,
/// or when it can no longer be written: the app then finds its pipe closed, as it would without `dev`.
async fn pass_on(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, color: &str) {
    let prefix = match color {
        "" => "app | ".to_owned(),
        color => format!("\x1b[{color}mapp |\x1b[0m "),
    };
    let (mut from, mut line) = (pin!(BufReader::new(from)), Vec::new());
    loop {
        line.clear();
        line.extend_from_slice(prefix.as_bytes());
        let mut rest = from.as_mut().take(MAX_LINE);
        if !matches!(rest.read_until(b'\n', &mut line).await, Ok(1..)) {
            return;
        }
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        // One write for each line, so that lines from elsewhere do not come into the middle of it.
        if to.write_all(&line).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

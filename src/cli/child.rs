//! The app that `tillgate dev -- CMD` runs: its output is passed on line by line, signals reach it first, and nothing of it
//! is left behind.

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

use super::{Exit, orphans};
use crate::clock;
use crate::config::Environment;
use crate::signals::{Pass, Signal, Signals};

/// How long what an app left behind has to end by itself.
const GRACE: Duration = Duration::from_secs(2);
/// How long the last words of the app may take: whoever has left our reach may hold its end of the pipe for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A longer line is passed on in pieces.
const MAX_LINE: u64 = 64 * 1024;

/// A running app. Its process is killed when this is dropped before its end.
pub(super) struct Child {
    process: tokio::process::Child,
    /// Its process group. None where it shares ours: on a terminal only the foreground may read, and Ctrl-C reaches all
    /// of it without our help.
    group: Option<Pid>,
    words: Option<(ChildStdout, ChildStderr)>,
    color: bool,
}

impl Child {
    /// Starts it, with the sidecar's URL and none of our settings in its environment.
    ///
    /// # Errors
    /// There is no such program, or it cannot be run.
    pub(super) fn start(
        command: &[OsString],
        api: &str,
        environment: &Environment,
    ) -> io::Result<Self> {
        let [program, arguments @ ..] = command else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        orphans::adopt();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("TILLGATE_URL", api)
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
        let words = process.stdout.take().zip(process.stderr.take());
        let group = process.id().filter(|_| apart).and_then(pid);
        Ok(Self {
            process,
            group,
            words,
            color: environment.wants_color(),
        })
    }

    /// Passes its output on until it has ended, and with it what it had started; gives its exit code, as a shell does.
    /// Signals reach it first; a reload is passed on.
    pub(super) async fn attend(&mut self, signals: &mut Signals, sidecar: &Pass) -> Exit {
        let words = self.words.take();
        let color = |terminal: bool, code| if terminal && self.color { code } else { "" };
        let (out, err) = (
            color(io::stdout().is_terminal(), "36"),
            color(io::stderr().is_terminal(), "33"),
        );
        let over = Notify::new();
        let told = async {
            let Some((said, complained)) = words else {
                return;
            };
            tokio::join!(tell(said, stdout(), out), tell(complained, stderr(), err));
        };
        let told = async {
            tokio::select! {
                () = told => {}
                () = async { over.notified().await; clock::sleep(LAST_WORDS).await } => {}
            }
        };
        let ended = async {
            let exit = self.ended(signals, sidecar).await;
            over.notify_one();
            exit
        };
        tokio::join!(ended, told).0
    }

    async fn ended(&mut self, signals: &mut Signals, sidecar: &Pass) -> Exit {
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
                    Signal::Reload => sidecar.on(Signal::Reload),
                    Signal::Terminate | Signal::Interrupt if asked => return self.kill().await,
                    // The terminal has sent it to the app already, and many an app takes a second one for impatience.
                    Signal::Interrupt if self.group.is_none() => asked = true,
                    Signal::Terminate | Signal::Interrupt => {
                        asked = true;
                        self.send(Kill::TERM);
                    }
                },
            }
        };
        let again = async {
            while signals.next().await == Signal::Reload {}
            while !asked && signals.next().await == Signal::Reload {}
        };
        tokio::select! {
            () = self.end_the_rest() => Exit::AsApp(code),
            () = again => self.kill().await,
        }
    }

    /// Ends it, and what it has started.
    pub(super) async fn end(&mut self) {
        self.send(Kill::TERM);
        if clock::timeout(GRACE, self.process.wait()).await.is_err() {
            self.kill().await;
        }
        self.end_the_rest().await;
    }

    /// The same at once.
    async fn kill(&mut self) -> Exit {
        self.send(Kill::KILL);
        let gone = async {
            let _ = self.process.wait().await;
            self.until_alone(Kill::KILL).await;
        };
        // Not for ever: a process in the depths of the system does not end by that either.
        let _ = clock::timeout(GRACE, gone).await;
        Exit::Failed
    }

    /// What is left of it is asked to end, and then ended.
    async fn end_the_rest(&self) {
        if clock::timeout(GRACE, self.until_alone(Kill::TERM))
            .await
            .is_err()
        {
            let _ = clock::timeout(GRACE, self.until_alone(Kill::KILL)).await;
        }
    }

    /// Sends this to everything that is left behind, as it comes to light: what had a parent until now, too.
    async fn until_alone(&self, kill: Kill) {
        let mut told = Vec::new();
        if let Some(group) = self.group {
            let _ = kill_process_group(group, kill);
        }
        loop {
            let own = self.process.id();
            orphans::reap(own);
            let left = orphans::all(own);
            for orphan in left.iter().filter(|orphan| !told.contains(*orphan)) {
                let _ = kill_process(*orphan, kill);
            }
            if left.is_empty()
                && self
                    .group
                    .is_none_or(|group| test_kill_process_group(group).is_err())
            {
                return;
            }
            told = left;
            clock::sleep(Duration::from_millis(20)).await;
        }
    }

    fn send(&self, kill: Kill) {
        // One that has ended meanwhile needs it no more.
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

/// As in a shell: 128 and the number of the signal that ended it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Passes on what the app says, each line with its origin before it. Ends with the app's end, or with the reader's: then
/// the app finds its pipe closed, as without us.
async fn tell(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, color: &str) {
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
        // One write a line, so that others' lines come between and not into it.
        if to.write_all(&line).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

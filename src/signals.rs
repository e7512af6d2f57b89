//! The signals that the program answers.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::mpsc;

/// A signal, by what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM: finish what is under way, and end.
    Terminate,
    /// SIGINT: the same. A terminal sends it to every process in the foreground.
    Interrupt,
    /// SIGHUP, where it asks to reload the files.
    Reload,
}

/// A stream of signals, from the system or from a [`Pass`].
pub(crate) struct Signals(Source);

enum Source {
    System {
        term: Stream,
        int: Stream,
        /// What it asks for; `None` where it is ignored.
        hup: Option<(Stream, Signal)>,
    },
    Forwarded(mpsc::UnboundedReceiver<Signal>),
}

/// Forwards signals to a stream. Dropping it asks the stream to end.
pub(crate) struct Pass(mpsc::UnboundedSender<Signal>);

impl Pass {
    /// Forwards this signal.
    pub(crate) fn on(&self, signal: Signal) {
        // It fails if the receiver has ended.
        let _ = self.0.send(signal);
    }
}

impl Signals {
    /// Listens to the signals of the system, which no longer end the process from now on. SIGHUP asks for `hangup`: to
    /// reload, or to end, as the closed terminal of a command does. Under nohup(1) it does not end a command.
    ///
    /// # Errors
    /// Returns the error of the system.
    pub(crate) fn listen(hangup: Signal) -> io::Result<Self> {
        let hup = if hangup == Signal::Reload || !is_hangup_ignored() {
            Some((signal(SignalKind::hangup())?, hangup))
        } else {
            None
        };
        Ok(Self(Source::System {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup,
        }))
    }

    /// Returns a stream that gets its signals from the [`Pass`] alone.
    pub(crate) fn forwarded() -> (Pass, Self) {
        let (pass, forwarded) = mpsc::unbounded_channel();
        (Pass(pass), Self(Source::Forwarded(forwarded)))
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        match &mut self.0 {
            Source::System { term, int, hup } => {
                let hangup = async {
                    match hup {
                        Some((hup, hangup)) => {
                            hup.recv().await;
                            *hangup
                        }
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = term.recv() => Signal::Terminate,
                    _ = int.recv() => Signal::Interrupt,
                    hangup = hangup => hangup,
                }
            }
            Source::Forwarded(forwarded) => forwarded.recv().await.unwrap_or(Signal::Terminate),
        }
    }
}

/// Returns whether this process was started with SIGHUP ignored (proc(5)).
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Its number is 1, and the first bit is of signal 1.
    mask.is_some_and(|mask| mask & 1 == 1)
}

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
    /// SIGHUP: reload the files.
    Reload,
}

/// A stream of signals, from the system or from a [`Pass`].
pub(crate) struct Signals(Source);

enum Source {
    System {
        term: Stream,
        int: Stream,
        hup: Stream,
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
    /// Listens to the signals of the system, which no longer end the process from now on.
    ///
    /// # Errors
    /// Returns the error of the system.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self(Source::System {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
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
            Source::System { term, int, hup } => tokio::select! {
                _ = term.recv() => Signal::Terminate,
                _ = int.recv() => Signal::Interrupt,
                _ = hup.recv() => Signal::Reload,
            },
            Source::Forwarded(forwarded) => forwarded.recv().await.unwrap_or(Signal::Terminate),
        }
    }
}

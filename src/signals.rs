//! What the operating system asks of us.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::mpsc;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGTERM: finish.
    Terminate,
    /// SIGINT: the same; from a terminal it reaches all of its foreground.
    Interrupt,
    /// SIGHUP: read the files again.
    Reload,
}

/// The signals that this process answers.
pub(crate) struct Signals(Source);

enum Source {
    System {
        term: Stream,
        int: Stream,
        hup: Stream,
    },
    Forwarded(mpsc::UnboundedReceiver<Signal>),
}

/// The one who decides which signals get through; when it is dropped, the wish is to end.
pub(crate) struct Pass(mpsc::UnboundedSender<Signal>);

impl Pass {
    /// Lets this one through.
    pub(crate) fn on(&self, signal: Signal) {
        // Who has ended needs none.
        let _ = self.0.send(signal);
    }
}

impl Signals {
    /// From here on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self(Source::System {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        }))
    }

    /// Those that somebody else lets through.
    pub(crate) fn forwarded() -> (Pass, Self) {
        let (pass, forwarded) = mpsc::unbounded_channel();
        (Pass(pass), Self(Source::Forwarded(forwarded)))
    }

    /// The next one.
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

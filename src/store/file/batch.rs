//! What is written at once: much becomes durable by one fsync.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::{self, Reading};
use crate::store::intent::{Effect, Intent};
use crate::store::model::RecordError;

/// Intents that are written at once.
const MOST: usize = 256;
/// While other payments are being started, the writer waits at most this long for them: a fast disk would get a write for
/// each otherwise.
const WINDOW: Duration = Duration::from_millis(3);

/// To the one who waits for what comes of an intent.
pub(super) type Reply = oneshot::Sender<Result<Effect, RecordError>>;

/// An intent whose turn has not come yet.
pub(super) struct Waiting {
    pub(super) intent: Intent,
    /// What the clocks showed when it was handed over.
    pub(super) reading: Reading,
    pub(super) reply: Reply,
}

/// What is sent to the writer.
pub(super) enum Message {
    /// To write this down.
    Keep(Waiting),
    /// To end, and who waits for that.
    Close(oneshot::Sender<()>),
}

/// A start that is under way, for as long as it is held.
pub(crate) struct Starting(#[expect(dead_code, reason = "it is counted")] Arc<()>);

/// Counts the starts that are under way.
#[derive(Clone, Default)]
pub(super) struct Starts(Arc<()>);

impl Starts {
    pub(super) fn one_more(&self) -> Starting {
        Starting(self.0.clone())
    }

    /// How many there are; `self` and one clone are held besides.
    fn count(&self) -> usize {
        Arc::strong_count(&self.0).saturating_sub(2)
    }
}

/// What is written at once.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) intents: Vec<Waiting>,
    /// Who waits for the end, if this is all.
    pub(super) closing: Option<oneshot::Sender<()>>,
}

impl Batch {
    /// What has come in, at least after `wait`; `None` when nobody is there any more. One who starts alone never waits
    /// for others, and nobody waits for them longer than the window.
    pub(super) fn next(
        messages: &Receiver<Message>,
        wait: Duration,
        under_way: &Starts,
    ) -> Option<Self> {
        let (mut batch, mut starts) = (Self::default(), 0);
        let mut message = match messages.recv_timeout(wait) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        let deadline = clock::now() + WINDOW;
        while let Some(next) = message.take() {
            match next {
                Message::Keep(waiting) => {
                    starts += usize::from(matches!(waiting.intent, Intent::Start { .. }));
                    batch.intents.push(waiting);
                }
                Message::Close(done) => {
                    batch.closing = Some(done);
                    return Some(batch);
                }
            }
            if batch.intents.len() < MOST {
                let patience = if under_way.count() > starts {
                    deadline - clock::now()
                } else {
                    Duration::ZERO
                };
                message = messages.recv_timeout(patience).ok();
            }
        }
        Some(batch)
    }
}

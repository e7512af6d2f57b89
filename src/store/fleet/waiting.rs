//! Intents whose turn has not come yet.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::store::intent::{Effect, Intent};
use crate::store::model::RecordError;

/// To the one who waits for what comes of an intent.
pub(super) type Reply = oneshot::Sender<Result<Effect, RecordError>>;

/// An intent whose turn has not come yet.
pub(super) struct Waiting {
    pub(super) intent: Arc<Intent>,
    /// `None`: nobody waits, and it is to be written all the same.
    pub(super) reply: Option<Reply>,
}

impl Waiting {
    /// Returns whether nobody waits any more for something that is untrue without. A payment that has a key or a reference
    /// is kept all the same: who starts it again is to get this one.
    pub(super) fn is_abandoned(&self) -> bool {
        let is_named = match &*self.intent {
            Intent::Start {
                payment, answer, ..
            } => answer.is_some() || payment.reference().is_some(),
            _ => false,
        };
        let is_abandoned = self.reply.as_ref().is_some_and(Reply::is_closed);
        self.intent.is_refusable() && is_abandoned && !is_named
    }
}

/// Answers one who waits.
pub(super) fn reply(to: Option<Reply>, result: Result<Effect, RecordError>) {
    if let Some(to) = to {
        // Nobody may be waiting any more.
        let _ = to.send(result);
    }
}

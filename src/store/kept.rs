//! Whether an event has been written.

use tokio::sync::oneshot;

/// It could not be written down: nobody may hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has no room, or could not be written")]
pub(crate) struct WriteFailed;

/// An event on its way; `None`: it is kept already.
pub(super) struct Kept(pub(super) Option<oneshot::Receiver<Result<(), WriteFailed>>>);

impl Kept {
    pub(super) async fn done(self) -> Result<(), WriteFailed> {
        match self.0 {
            // Without an answer nothing is known: the process is about to end.
            Some(kept) => kept.await.unwrap_or(Err(WriteFailed)),
            None => Ok(()),
        }
    }
}

//! One question to the gateway, within the budget.

use super::budget::Turn;
use super::{Error, Inner};
use crate::clock::{self, Instant};
use crate::payment::{Report, WatchCode};

/// What the gateway said, and when the try that it answered left.
pub(super) struct Polled {
    pub(super) report: Report,
    pub(super) asked: Instant,
}

impl Inner {
    /// Asks, again where a second try is worth it: asking changes nothing, so it may be repeated. Each try takes a
    /// turn; the first may be given. `has_answer`: who asks has an old one to fall back on.
    pub(super) async fn poll(&self, code: &WatchCode, turn: Option<Turn>, has_answer: bool) -> Result<Polled, Error> {
        let mut tries = self.gateway.tries()?;
        // Half of the time for the turn, so that the other half is left for the call.
        let half = (tries.deadline - clock::now()) / 2;
        let mut turn = match turn {
            Some(turn) => turn,
            None => self.turn(has_answer, tries.deadline - half).await.ok_or(Error::NoTurn)?,
        };
        loop {
            let asked = clock::now();
            let result = self.gateway.status(code, tries.deadline).await;
            drop(turn);
            let error = match result {
                Ok(report) => return Ok(Polled { report, asked }),
                Err(error) if error.is_worth_another_try() => error,
                Err(error) => return Err(error.into()),
            };
            tries.again_after(error.clone()).await?;
            // No turn for a repeat: then the failure that made it necessary is what there is to tell.
            turn = self.turn(has_answer, tries.deadline).await.ok_or(error)?;
        }
    }

    async fn turn(&self, has_answer: bool, deadline: Instant) -> Option<Turn> {
        let turn = self.plan().agenda.add_caller(has_answer);
        self.bell.notify_one();
        clock::timeout_at(deadline, turn).await.ok()?.ok()
    }
}

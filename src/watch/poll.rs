//! One question to the gateway, within the budget.

use super::Error;
use super::budget::Budget;
use crate::clock::{self, Instant};
use crate::gateway::Gateway;
use crate::payment::{Report, WatchCode};

/// What the gateway said, and when the try that it answered left.
pub(super) struct Polled {
    pub(super) report: Report,
    pub(super) asked: Instant,
}

/// Asks, again where a second try is worth it: asking changes nothing, so it may be repeated. Each try takes a turn.
pub(super) async fn poll(
    gateway: &Gateway,
    budget: &Budget,
    code: &WatchCode,
    deadline: Instant,
) -> Result<Polled, Error> {
    let Some(mut turn) = budget.turn(deadline).await else { return Err(Error::NoTurn) };
    // The time of the call itself starts with its turn.
    let mut tries = gateway.tries();
    loop {
        let asked = clock::now();
        let result = gateway.status(code, tries.deadline).await;
        drop(turn);
        let error = match result {
            Ok(report) => return Ok(Polled { report, asked }),
            Err(error) if error.is_worth_another_try() => error,
            Err(error) => return Err(error.into()),
        };
        tries.again_after(error.clone()).await?;
        // No turn for a repeat: then the failure that made it necessary is what there is to tell.
        turn = budget.turn(tries.deadline).await.ok_or(error)?;
    }
}

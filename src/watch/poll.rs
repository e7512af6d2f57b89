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
pub(super) async fn poll(gateway: &Gateway, budget: &Budget, code: &WatchCode) -> Result<Polled, Error> {
    let mut tries = gateway.tries();
    // Half of the time for the turn, so that the other half is left for the call.
    let half = (tries.deadline - clock::now()) / 2;
    let Some(mut turn) = budget.turn(tries.deadline - half).await else { return Err(Error::NoTurn) };
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

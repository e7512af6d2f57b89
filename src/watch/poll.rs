//! One question to the gateway, within the rate window.

use std::sync::Arc;
use std::time::Duration;

use super::answer::Error;
use super::queue::Rank;
use super::shared::{Inner, Permit};
use crate::clock::{self, Instant};
use crate::gateway::Sharing;
use crate::payment::{Report, WatchCode};
use crate::telemetry::RequestId;

/// What the gateway said, and when the try that it answered left.
pub(super) struct Polled {
    pub(super) report: Report,
    pub(super) asked: Instant,
}

/// Longest that a second question waits for its permit, which is ahead of all others: a second after the end of the first
/// there is one.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

impl Inner {
    /// Asks for the status of a payment. A final one counts only when it came on a connection of its own: on a shared one
    /// it may have been the answer to another question, and nothing that is final is ever asked again. So it is asked for
    /// a second time at once, and what the second answer says is what counts.
    ///
    /// The first permit may be given. `has_answer`: the caller has an old one to fall back on.
    pub(super) async fn poll(
        self: &Arc<Self>,
        code: &WatchCode,
        permit: Option<Permit>,
        has_answer: bool,
    ) -> Result<Polled, Error> {
        let rank = if has_answer {
            Rank::HasAnswer
        } else {
            Rank::HasNothing
        };
        let (first, came_on) = self.poll_on(code, Sharing::Shared, permit, rank).await?;
        if came_on == Sharing::Own || !first.report.status.is_final() {
            return Ok(first);
        }
        let permit = self
            .permit(Rank::Confirms, clock::now() + CONFIRMED_WITHIN)
            .await
            .ok_or(Error::NoPermit)?;
        let (second, _) = self
            .poll_on(code, Sharing::Own, Some(permit), Rank::Confirms)
            .await?;
        if second.report.fingerprint != first.report.fingerprint {
            self.unconfirmed.inc();
            let (first, second) = (first.report.status.label(), second.report.status.label());
            tracing::error!(
                first,
                second,
                request_id = RequestId::current().as_deref(),
                "the gateway gave two answers about one payment: what came on a connection of its own counts (is there a proxy before it that mixes answers up?)"
            );
        }
        Ok(second)
    }

    /// Asks over such a connection, again where a second try is worth it: asking changes nothing, so it may be repeated.
    /// Each try takes a permit.
    async fn poll_on(
        self: &Arc<Self>,
        code: &WatchCode,
        connection: Sharing,
        permit: Option<Permit>,
        rank: Rank,
    ) -> Result<(Polled, Sharing), Error> {
        let mut tries = self.gateway.tries()?;
        // Half of the time for the permit, so that the other half is left for the call.
        let half = (tries.deadline - clock::now()) / 2;
        let mut permit = match permit {
            Some(permit) => permit,
            None => self
                .permit(rank, tries.deadline - half)
                .await
                .ok_or(Error::NoPermit)?,
        };
        loop {
            let asked = clock::now();
            let result = self.gateway.status(code, tries.deadline, connection).await;
            drop(permit);
            let error = match result {
                Ok((report, came_on)) => return Ok((Polled { report, asked }, came_on)),
                Err(error) if error.is_worth_another_try() => error,
                Err(error) => return Err(error.into()),
            };
            tries.again_after(error.clone()).await?;
            // No permit for a repeat: then the failure that made it necessary is the result.
            permit = self.permit(rank, tries.deadline).await.ok_or(error)?;
        }
    }
}

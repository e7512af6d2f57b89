//! One question to the gateway, within the rate window.

use std::sync::Arc;
use std::time::Duration;

use super::answer::Error;
use super::queue::Rank;
use super::shared::{Inner, Permit};
use crate::clock::{self, Instant};
use crate::gateway::Sharing;
use crate::payment::{Report, WatchCode};
use crate::store::{MayAsk, Pass, Why};
use crate::telemetry::RequestId;

/// What the gateway said, and when the try that it answered left.
pub(super) struct Polled {
    pub(super) report: Report,
    pub(super) asked: Instant,
    /// Until this is given back, no other replica asks for the payment.
    pub(super) pass: Pass,
}

/// Who asks for a payment, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) rank: Rank,
    /// Somebody waits for the answer, or for what it may say next.
    pub(super) is_waited_for: bool,
    /// An answer that another replica got will do if it is younger.
    pub(super) younger_than: Duration,
}

impl Question {
    /// The same for the second time, where nobody else's answer will do.
    fn anew(self) -> Self {
        Self {
            rank: Rank::Confirms,
            younger_than: Duration::ZERO,
            ..self
        }
    }
}

/// How a question goes on.
enum Allowed {
    /// The gateway is asked.
    Pass(Pass),
    /// Another replica has asked it.
    Known(Polled),
}

/// Longest that a second question waits for its permit, which is ahead of all others: a second after the end of the first
/// there is one.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

impl Inner {
    /// Asks for the status of a payment. A final one counts only when it came on a connection of its own: on a shared one
    /// it may have been the answer to another question, and nothing that is final is ever asked again. So it is asked for
    /// a second time at once, and what the second answer says is what counts.
    ///
    /// The first permit may be given.
    pub(super) async fn poll(
        self: &Arc<Self>,
        code: &WatchCode,
        permit: Option<Permit>,
        question: Question,
    ) -> Result<Polled, Error> {
        let (first, came_on) = self
            .poll_on(code, Sharing::Shared, permit, question)
            .await?;
        if came_on == Sharing::Own || !first.report.status.is_final() {
            return Ok(first);
        }
        // It counts for nobody yet.
        first.pass.done(false);
        let within = clock::now() + CONFIRMED_WITHIN;
        let permit = self.permit(code, Rank::Confirms, within).await?;
        let anew = question.anew();
        let (second, _) = self.poll_on(code, Sharing::Own, Some(permit), anew).await?;
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
        question: Question,
    ) -> Result<(Polled, Sharing), Error> {
        let rank = question.rank;
        let mut tries = self.gateway.tries()?;
        // Half of the time for the permit, so that the other half is left for the call.
        let half = (tries.deadline - clock::now()) / 2;
        let until = tries.deadline - half;
        let mut permit = match permit {
            Some(permit) => permit,
            None => self.permit(code, rank, until).await?,
        };
        let mut pass = match self.may_ask(code, question, until).await {
            Some(Allowed::Pass(pass)) => pass,
            Some(Allowed::Known(polled)) => {
                permit.unused();
                return Ok((polled, Sharing::Own));
            }
            None => {
                permit.unused();
                return Err(Error::NoPermit);
            }
        };
        loop {
            let asked = clock::now();
            let result = self.gateway.status(code, tries.deadline, connection).await;
            drop(permit);
            let error = match result {
                Ok((report, came_on)) => {
                    let polled = Polled {
                        report,
                        asked,
                        pass,
                    };
                    return Ok((polled, came_on));
                }
                Err(error) if error.is_worth_another_try() => error,
                Err(error) => return Err(error.into()),
            };
            drop(pass);
            tries.again_after(error.clone()).await?;
            // No permit for a repeat: then the failure that made it necessary is the result.
            permit = self
                .permit(code, rank, tries.deadline)
                .await
                .map_err(|_| error.clone())?;
            pass = match self.may_ask(code, question, tries.deadline).await {
                Some(Allowed::Pass(pass)) => pass,
                Some(Allowed::Known(polled)) => return Ok((polled, Sharing::Own)),
                None => return Err(error.into()),
            };
        }
    }

    /// Waits until this replica may ask for the payment, or another one has. `None`: not before the deadline.
    async fn may_ask(
        &self,
        code: &WatchCode,
        question: Question,
        deadline: Instant,
    ) -> Option<Allowed> {
        let known = |asked: Option<Instant>| {
            let observation = self.store.get(code)?.observation?;
            let is_final = observation.report.status.is_final();
            (is_final || asked.is_some()).then(|| Polled {
                report: Report::clone(&observation.report),
                asked: asked
                    .max(Some(observation.asked))
                    .unwrap_or(observation.asked),
                pass: Pass::default(),
            })
        };
        let why = Why {
            is_waited_for: question.is_waited_for,
            younger_than: question.younger_than,
            deadline,
        };
        match self.store.may_ask(code, why).await {
            // What another replica has found out meanwhile may be final.
            MayAsk::Go(pass) => Some(match known(None) {
                Some(polled) => Allowed::Known(polled),
                None => Allowed::Pass(pass),
            }),
            MayAsk::Known(asked) => match known(Some(asked)) {
                Some(polled) => Some(Allowed::Known(polled)),
                // What was said there is not kept: of a code that was not started here, or of a failure.
                None => {
                    let younger_than = Duration::ZERO;
                    match self
                        .store
                        .may_ask(
                            code,
                            Why {
                                younger_than,
                                ..why
                            },
                        )
                        .await
                    {
                        MayAsk::Go(pass) => Some(Allowed::Pass(pass)),
                        MayAsk::Known(_) | MayAsk::NoPlace => None,
                    }
                }
            },
            MayAsk::NoPlace => None,
        }
    }
}

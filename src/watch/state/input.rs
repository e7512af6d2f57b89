//! What comes into the state, and what comes out of it.

use super::super::queue::{CallerId, Rank};
use super::breaker::Pause;
use crate::clock::Instant;
use crate::gateway;
use crate::payment::WatchCode;

/// What has happened.
pub(in super::super) enum Input {
    /// Somebody waits for a payment that nobody waited for before.
    Subscribed { code: WatchCode, known: Known },
    /// Nobody waits for this payment any more.
    Unsubscribed { code: WatchCode, known: Known },
    /// A reader of all payments has come.
    FeedOpened,
    /// A reader of all payments has gone.
    FeedClosed,
    /// An open payment, the one that comes next after [`super::PollState::adopts_after`].
    Adopted {
        number: u64,
        code: WatchCode,
        known: Known,
    },
    /// A caller's call begins. There is none under way for this code.
    Asked { code: WatchCode },
    /// A caller waits for a permit.
    PermitWanted { caller: CallerId, rank: Rank },
    /// It does not any more.
    PermitUnwanted { caller: CallerId },
    /// A call to the gateway is over, and its place in the rate window rests.
    PermitReturned,
    /// A permit was not used: its place does not rest.
    PermitUnused,
    /// What was begun with [`Input::Asked`] or [`Action::Poll`] is over, with all its repeats.
    PollFinished {
        code: WatchCode,
        began: Instant,
        outcome: Outcome,
        known: Known,
    },
    /// An [`Action::Poll`] was not carried out, because the store does not have the payment any more.
    Forgotten { code: WatchCode },
    /// An [`Action::Poll`] was not carried out: another replica polls the payment, or it is final by what another one found
    /// out.
    Left { code: WatchCode, known: Known },
    /// It is this replica that polls the payment from now on.
    TakenOver { code: WatchCode, known: Known },
    /// Permits may be handed out now. The only input that leads to calls.
    Tick { has_secret: bool },
}

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Action {
    /// Poll this payment, with a permit.
    Poll(WatchCode),
    /// Give this caller its permit.
    GivePermit(CallerId),
    /// Tell this caller that there is no room for it in the queue.
    RefusePermit(CallerId),
    /// Note that this payment is not polled in the background any more.
    NotePollingEnded(WatchCode),
    /// Log that the background makes no calls for now, because of this failure.
    LogPause(Pause, gateway::Error),
    /// Log that the gateway answers again.
    LogRecovery,
    /// Nothing is due before that moment, unless there is another input.
    SleepUntil(Instant),
}

/// What the store knows of a payment, as far as it matters here.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Known {
    /// When it was started, if it was started here, or a later payment of its reference.
    pub(in super::super) started: Option<Instant>,
    /// When the last answer was asked for.
    pub(in super::super) asked: Option<Instant>,
    /// The last answer is final.
    pub(in super::super) is_final: bool,
    /// It is noted that it is not polled in the background any more.
    pub(in super::super) polling_ended: bool,
}

/// What came of a poll.
pub(in super::super) enum Outcome {
    /// An answer, asked for at that moment.
    Answered(Instant),
    /// The gateway, or the way to it, failed.
    Failed(gateway::Error),
    /// The gateway was not asked, or that is not known.
    NotAsked,
}

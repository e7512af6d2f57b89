//! A replica, as all that it does sees it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::types::Type;
use tokio_util::sync::CancellationToken;

use super::engine_clock::EngineClock;
use super::following::{self, Look};
use super::left::Left;
use super::line::{Line, Parameter, Takes};
use super::link::{Database, Link};
use super::members::Members;
use super::metrics::FleetMetrics;
use super::standing::Standing;
use super::statements::Statements;
use super::trouble::Trouble;
use crate::store::model::{Compose, Limits};
use crate::store::shared::Shared;
use crate::tasks::SharedTasks;

const END_EARLIER: &str = "select pg_terminate_backend(pid) from pg_stat_activity
where usename = current_user and state = 'active' and starts_with(query, $1) and pid <> pg_backend_pid()";

/// What the polls of all replicas have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Calls a second, of all replicas together.
    pub(super) rate: NonZeroU32,
    /// A call takes this long at most.
    pub(super) call: Duration,
}

/// What the tasks of a replica share.
pub(super) struct Replica {
    pub(super) database: Database,
    pub(super) shared: Arc<Shared>,
    pub(super) limits: Limits,
    pub(super) compose: Option<Compose>,
    /// `gateway.url`
    pub(super) gateway: String,
    pub(super) terms: Terms,
    /// The connection for everything that waits for no commit.
    pub(super) look: Line,
    pub(super) standing: Arc<Standing>,
    pub(super) clock: EngineClock,
    pub(super) members: Members,
    pub(super) metrics: FleetMetrics,
    pub(super) tasks: SharedTasks,
    pub(super) statements: Statements,
    pub(super) left: Left,
    pub(super) is_loaded: AtomicBool,
    /// Rings when the last write that was seen is not in the log any more.
    pub(super) look_again: Notify,
    /// Cancelled when this process can never use the store.
    pub(super) broken: CancellationToken,
}

impl Replica {
    /// The last write that was seen.
    pub(super) fn position(&self) -> i64 {
        let position = self.shared.lock().followed.position;
        i64::try_from(position).unwrap_or(i64::MAX)
    }

    /// Returns when everything up to this write is in the state, or the store is away.
    pub(super) async fn up_to(&self, position: u64) {
        if self.shared.lock().followed.position < position {
            let _ = self.follow().await;
        }
    }

    pub(super) fn loaded(&self) {
        self.is_loaded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Relaxed)
    }

    /// Whether this replica takes its part in the background polls.
    pub(super) fn reads(&self) -> bool {
        self.standing.is_up() && (self.compose.is_some() || self.shared.has_readers())
    }

    pub(super) fn posts(&self) -> bool {
        self.standing.is_up() && self.compose.is_some() && self.left.posts()
    }

    /// Whether somebody waits here for what others write.
    pub(super) fn is_watched(&self) -> bool {
        self.shared.has_readers() || self.shared.lock().state.payments.is_waited_for()
    }

    /// Takes in what others have written.
    pub(super) async fn follow(&self) -> Result<(), Trouble> {
        loop {
            let position = self.position();
            let parameters: [Parameter<'_>; 1] = [(&position, Type::INT8)];
            let tail = &self.statements.tail;
            let rows = self.look.query("news", tail, &parameters).await?;
            match following::follow(&self.shared, &rows, &self.clock, &self.metrics)? {
                Look::More => {}
                Look::UpToDate => return Ok(()),
                Look::Gone { .. } => {
                    // The keeper looks too, and loads everything anew.
                    self.look_again.notify_one();
                    return Ok(());
                }
            }
        }
    }

    /// Ends the statements of connections that this replica has given up: they may wait for locks or for a standby, and
    /// would become more and more. What they have committed stays.
    pub(super) async fn end_earlier_writes(&self, link: &Link) {
        let parameters: [Parameter<'_>; 1] = [(&self.statements.tag, Type::TEXT)];
        let ends = link.query(END_EARLIER, &parameters);
        // Where that is not allowed, they end by themselves.
        let _ = self.look.beside(ends, Takes::Short).await;
    }

    /// Returns a statement with the name of the schema in it.
    pub(super) fn named(&self, sql: &str) -> String {
        sql.replace("{s}", &self.database.quoted_schema())
    }
}

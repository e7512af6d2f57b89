//! A store in a PostgreSQL database, which replicas share.
//!
//! Each replica has all of it in memory, and the database has one log of writes. A write is decided by what the replica has
//! seen of the log, and is added after the last write that it has seen: the unique index of the log lets nobody else add
//! one there. A replica that is overtaken takes in what it has not seen, and decides anew. That is all that safety rests
//! on. Limits, leases and who is alive stand in tables that are not logged, and may be lost.

mod asks;
mod batch;
mod beat;
mod check;
mod dial;
mod engine_clock;
mod following;
mod keeper;
mod leases;
mod left;
mod line;
pub(super) mod link;
mod load;
mod lost;
mod members;
mod metrics;
mod replica;
mod schema;
mod standing;
mod statements;
mod tls;
mod trouble;
mod turns;
mod url;
mod usable;
mod waiting;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::asks::Asks;
pub(crate) use self::asks::{MayAsk, Pass, Why};
pub(crate) use self::check::{Findings, check};
use self::engine_clock::EngineClock;
use self::keeper::{Keeper, Message};
pub(crate) use self::leases::Lease;
use self::leases::{Leases, Taken};
use self::left::Left;
use self::line::Line;
use self::link::Database;
pub(crate) use self::link::parse_password;
pub(crate) use self::members::Member;
use self::members::{Members, Work};
use self::metrics::FleetMetrics;
use self::replica::{Replica, Terms};
pub(crate) use self::schema::schema_sql;
use self::standing::Standing;
use self::statements::Statements;
pub(crate) use self::turns::{NoTurn, Turns};
pub(super) use self::url::FORM;
pub(crate) use self::url::{DatabaseUrl, SCHEMA};
use self::waiting::Waiting;
use super::config::Config;
use super::intent::{Effect, Intent};
use super::model::{Compose, Delivery, Limits, RecordError, WriteFailed};
use super::shared::Shared;
use crate::payment::WatchCode;
use crate::readiness::Readiness;
use crate::tasks::{self, SharedTasks};
use crate::{clock, telemetry};

/// What all replicas of a fleet have in common, beside the store's own settings.
#[derive(Clone, Debug)]
pub(crate) struct Fleetwide {
    /// `gateway.url`: a store belongs to one gateway.
    pub(crate) gateway: String,
    /// `gateway.timeout`: a call takes this long at most.
    pub(crate) call: Duration,
    /// `watch.poll_rate`
    pub(crate) poll_rate: NonZeroU32,
    /// A fingerprint of the settings that all replicas should have in common.
    pub(crate) config: String,
}

/// A replica's way to the store.
pub(super) struct Fleet {
    replica: Arc<Replica>,
    asks: Arc<Asks>,
    leases: Arc<Leases>,
    keeper: mpsc::UnboundedSender<Message>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// How long it is waited for the write of a start.
const PATIENCE: Duration = Duration::from_secs(5);

impl Fleet {
    /// Begins to open it; that is done when the database can be reached.
    pub(super) fn open(
        url: &DatabaseUrl,
        config: &Config,
        fleetwide: Fleetwide,
        shared: Arc<Shared>,
        (limits, compose): (Limits, Option<Compose>),
        readiness: &Readiness,
    ) -> Self {
        let database = Database::new(url, config);
        let schema = database.quoted_schema();
        let standing = Arc::new(Standing::new(database.place(), readiness));
        let me = members::me(env!("CARGO_PKG_VERSION"), fleetwide.config);
        let replica = Arc::new(Replica {
            look: Line::new(database.clone(), standing.clone()),
            database,
            shared,
            limits,
            compose,
            gateway: fleetwide.gateway,
            terms: Terms {
                rate: fleetwide.poll_rate,
                call: fleetwide.call,
            },
            standing,
            clock: EngineClock::default(),
            statements: Statements::new(&schema, &me.id),
            members: Members::new(me, &schema),
            metrics: FleetMetrics::default(),
            tasks: SharedTasks::default(),
            is_loaded: AtomicBool::new(false),
            left: Left::default(),
            look_again: Notify::new(),
            broken: CancellationToken::new(),
        });
        let asks = Asks::new(replica.clone());
        let leases = Leases::new(replica.clone());
        let (keeper, messages) = mpsc::unbounded_channel();
        let writer = Keeper::new(replica.clone(), messages);
        let writes = async move {
            let _ends = EndsOnPanic(writer.replica.broken.clone());
            writer.run().await;
        };
        let (looking, asking, leasing) = (replica.clone(), asks.clone(), leases.clone());
        let looks = async move {
            let _ends = EndsOnPanic(looking.broken.clone());
            tokio::join!(looking.look.keep(), beat::run(&looking, &asking, &leasing));
        };
        let tasks = [tasks::spawn(writes), tasks::spawn(looks)];
        Self {
            replica,
            asks,
            leases,
            keeper,
            _tasks: tasks.map(AbortOnDropHandle::new),
        }
    }

    /// Writes what comes of an intent, after all before it. Also returns for how long it is worth waiting for that.
    pub(super) fn append(
        &self,
        intent: &Arc<Intent>,
    ) -> (oneshot::Receiver<Result<Effect, RecordError>>, Duration) {
        let (reply, done) = oneshot::channel();
        let patience = match **intent {
            // The gateway has started it.
            Intent::Start { .. } => PATIENCE,
            _ if !self.is_up() => Duration::ZERO,
            Intent::Answer(_) | Intent::Nothing => PATIENCE,
            _ => self.replica.database.timeout(),
        };
        let (intent, reply) = (intent.clone(), Some(reply));
        // Without a keeper the reply is dropped, which says so.
        let _ = self.keeper.send(Message::Keep(Waiting { intent, reply }));
        (done, patience)
    }

    /// Puts the common clock in the place of the one by which it was made.
    pub(super) fn set_clock(&self, intent: &mut Intent) {
        intent.set_wall(self.replica.clock.reading());
    }

    /// Whether the database can be written, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.replica.standing.is_up()
    }

    /// Returns when everything is known that was written by now.
    ///
    /// # Errors
    /// If the store is away.
    pub(super) async fn up_to_date(&self) -> Result<(), WriteFailed> {
        if !self.is_up() {
            return Err(WriteFailed);
        }
        self.replica.follow().await.map_err(|_| WriteFailed)
    }

    /// What is the matter with the store, and for how long; `None` while it is up.
    pub(super) fn trouble(&self) -> Option<(Duration, String)> {
        self.replica.standing.trouble()
    }

    pub(super) async fn broken(&self) {
        self.replica.broken.cancelled().await;
    }

    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.keeper.send(Message::Close(done)).is_ok() {
            let _ = closed.await;
        }
        self.replica.tasks.idle().await;
        self.replica.members.leave(&self.replica.look).await;
    }

    /// The database, and whether it waits for a standby before it says that something is written, as far as that is known.
    pub(super) fn database(&self) -> (&str, Option<bool>) {
        let standing = &self.replica.standing;
        let waits = standing.waits_for_standby.load_full();
        (standing.place(), waits.map(|waits| *waits))
    }

    /// The replicas that are alive, each with whether it has the settings of this one.
    pub(super) fn members(&self) -> Vec<(Member, bool)> {
        let members = &self.replica.members;
        let alive = members.alive().into_iter();
        let with_same = |member: Member| {
            let is_same = member.config == members.me.config;
            (member, is_same)
        };
        alive.map(with_same).collect()
    }

    /// Turns to start, of all replicas together.
    pub(super) fn turns(&self, rate: f64, burst: NonZeroU32, queue_for: Duration) -> Turns {
        Turns::new(self.replica.clone(), rate, burst, queue_for)
    }

    /// Waits until this replica holds these names for at most this time, and knows all that was written under them; or until
    /// that is settled without. `has_key`: the first one is a key, under which nothing else may be asked for.
    ///
    /// # Errors
    /// If the store is away.
    pub(super) async fn lease(
        &self,
        names: &[String],
        has_key: bool,
        note: &[u8],
        at_most: Duration,
        is_settled: impl Fn() -> bool,
    ) -> Result<Leased, WriteFailed> {
        const AGAIN: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(500)];
        let replica = &self.replica;
        let (mut again, longest) = (AGAIN[0], AGAIN[1]);
        let until = clock::now() + at_most;
        loop {
            let taken = self.leases.take(names.to_vec(), note, at_most).await;
            let taken = taken.map_err(|_| WriteFailed)?;
            replica.follow().await.map_err(|_| WriteFailed)?;
            match taken {
                Taken::Ours(lease) => return Ok(Leased::Ours(lease)),
                Taken::Theirs(held) => {
                    if again == AGAIN[0] {
                        replica.metrics.starts_joined_elsewhere.inc();
                    }
                    let key = names.first().filter(|_| has_key);
                    let is_other = |(name, other): &(String, Vec<u8>)| {
                        Some(name) == key && !other.is_empty() && other != note
                    };
                    if held.iter().any(is_other) {
                        return Ok(Leased::Other);
                    }
                }
            }
            if is_settled() {
                return Ok(Leased::Settled);
            }
            if clock::now() >= until {
                return Err(WriteFailed);
            }
            clock::sleep(again).await;
            again = (again * 2).min(longest);
        }
    }

    /// Returns the right to post this message, unless another replica has it or should have it. All that was written about
    /// the message is known then.
    pub(super) async fn may_post(&self, delivery: &Delivery, at_most: Duration) -> Option<Lease> {
        let replica = &self.replica;
        if !self.is_up() {
            return None;
        }
        let is_mine = replica.members.is_mine(Work::Post, &delivery.id);
        if !is_mine && replica.left.leave(delivery.number) {
            return None;
        }
        let name = vec![format!("post {}", delivery.id)];
        let lasts = at_most + Duration::from_secs(15);
        let taken = self.leases.take(name, &[], lasts).await.ok()?;
        replica.follow().await.ok()?;
        match taken {
            Taken::Ours(lease) => Some(lease),
            Taken::Theirs(_) => None,
        }
    }

    /// Says whether the app of this replica took a message: where it did not, others are to post them for a while.
    pub(super) fn app_answered(&self, is_well: bool) {
        self.replica.left.app_answered(is_well);
    }

    /// Waits until the gateway may be asked about this payment, or need not be.
    pub(super) async fn may_ask(&self, code: &WatchCode, why: Why) -> MayAsk {
        asks::may_ask(&self.asks, code, why).await
    }

    /// Whether this replica polls this payment in the background. While the store is away only those are polled that
    /// somebody waits for.
    pub(super) fn is_mine(&self, code: &WatchCode) -> bool {
        self.is_up() && self.replica.members.is_mine(Work::Poll, code.as_str())
    }

    /// What this replica does for all, as it is from now on.
    pub(super) fn roles(&self) -> Roles {
        let replica = &self.replica;
        Roles {
            members: replica.members.changed(),
            is_up: replica.standing.changed(),
        }
    }

    /// Counts a payment that is this replica's to poll by now, if it was not before the last change.
    pub(super) fn taken_over(&self, code: &WatchCode) {
        if !self.replica.members.was_mine(Work::Poll, code.as_str()) {
            self.replica.metrics.payments_adopted.inc();
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let replica = &self.replica;
        replica.database.register(registry);
        replica.metrics.register(registry);
        registry.register(
            "store_errors",
            "Statements of the database that failed, by why",
            replica.standing.errors.clone(),
        );
        registry.register_with_unit(
            "store_request_duration",
            "How long statements of the database took, by what they were for",
            telemetry::SECONDS,
            replica.look.durations(),
        );
    }
}

/// Changes when what a replica does for all may have changed: replicas have come or gone, or the store is back.
pub(crate) struct Roles {
    members: watch::Receiver<u64>,
    is_up: watch::Receiver<bool>,
}

impl Roles {
    pub(super) async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.members.changed() => changed,
            changed = self.is_up.changed() => changed,
        };
        if changed.is_err() {
            // The store is about to go.
            std::future::pending::<()>().await;
        }
    }
}

/// What came of waiting for names.
pub(super) enum Leased {
    Ours(Lease),
    /// Somebody else holds the first name for something else.
    Other,
    /// It is settled what comes of them.
    Settled,
}

/// A crash of a task of the fleet is the end of the process: nobody would do its work any more, and nobody would know.
struct EndsOnPanic(CancellationToken);

impl Drop for EndsOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

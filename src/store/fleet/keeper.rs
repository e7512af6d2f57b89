//! The one that writes for a replica: what has come in meanwhile at once, after the last write that it has seen.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::batch::Batch;
use super::following::{self, Look};
use super::line::{self, Takes};
use super::link::Link;
use super::load;
use super::lost::Lately;
use super::replica::Replica;
use super::schema::{self, Stop};
use super::trouble::{Reason, Trouble};
use super::waiting::Waiting;
use crate::{clock, random};

/// While the database does not take a write, it is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A connection that ends sooner was never good, unless something was written over it.
const BRIEF: Duration = Duration::from_millis(100);

/// What is sent to the keeper.
pub(super) enum Message {
    /// To write what comes of this.
    Keep(Waiting),
    /// To end, and who waits for that.
    Close(oneshot::Sender<()>),
}

/// Writes for as long as the replica runs.
pub(super) struct Keeper {
    pub(super) replica: Arc<Replica>,
    pub(super) messages: mpsc::UnboundedReceiver<Message>,
    /// Not written yet, in the order in which it came.
    queue: VecDeque<Waiting>,
    /// It was sent, and whether it was carried out is not known.
    pending: Option<Batch>,
    /// What was acknowledged lately, for a database that goes back.
    lately: Lately,
    is_loaded: bool,
    /// A write is to be made though there is nothing to be written: to find out whether one can be made, and to confirm what
    /// others have written.
    wants_write: bool,
    /// Something was written over the present connection.
    has_written: bool,
    /// Who waits for the end.
    closing: Option<oneshot::Sender<()>>,
}

impl Keeper {
    pub(super) fn new(replica: Arc<Replica>, messages: mpsc::UnboundedReceiver<Message>) -> Self {
        Self {
            replica,
            messages,
            queue: VecDeque::new(),
            pending: None,
            lately: Lately::default(),
            is_loaded: false,
            wants_write: true,
            has_written: false,
            closing: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let Some(link) = self.connected().await else {
                break;
            };
            let began = clock::now();
            self.has_written = false;
            match self.session(&link).await {
                Ok(()) => break,
                // A connection that was good and is cut is made anew at once: only where that fails the store is away.
                Err(Stop::Trouble(trouble))
                    if trouble.reason == Reason::Unreachable
                        && (self.has_written || clock::now() - began > BRIEF) =>
                {
                    self.replica.standing.count(&trouble);
                }
                Err(Stop::Trouble(trouble)) => {
                    self.replica.standing.away(&trouble);
                    clock::sleep(random::jitter(BRIEF)).await;
                }
                Err(Stop::Never(why)) => {
                    tracing::error!(why, "this store can never be used by this process");
                    self.replica.broken.cancel();
                    break;
                }
            }
            self.wants_write = true;
        }
        if let Some(done) = self.closing {
            let _ = done.send(());
        }
    }

    /// Connects; takes in what comes meanwhile. `None`: it is to end, and what is not written cannot be.
    async fn connected(&mut self) -> Option<Link> {
        let replica = self.replica.clone();
        let mut connecting = pin!(line::connect(&replica.database, &replica.standing));
        loop {
            tokio::select! {
                link = &mut connecting => return Some(link),
                message = self.messages.recv() => self.take(message)?,
            }
        }
    }

    /// `None`: it is to end now.
    fn take(&mut self, message: Option<Message>) -> Option<()> {
        match message? {
            Message::Keep(waiting) => self.queue.push_back(waiting),
            Message::Close(done) => {
                self.closing = Some(done);
                if !self.replica.standing.is_up() {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Writes over this connection until it is of no use any more, or all is done.
    async fn session(&mut self, link: &Link) -> Result<(), Stop> {
        schema::open(&self.replica, link).await?;
        loop {
            self.write_all(link).await?;
            if self.closing.is_some() {
                return Ok(());
            }
            let mut standing = self.replica.standing.changed();
            let is_up = *standing.borrow_and_update();
            let look = &self.replica.look;
            let again = async {
                if is_up {
                    // Somebody else may find out that it is away.
                    let _ = standing.wait_for(|is_up| !is_up).await;
                }
                if look.is_connected() {
                    clock::sleep(TRY_AGAIN).await;
                } else {
                    look.connected().await;
                }
            };
            tokio::select! {
                message = self.messages.recv() => {
                    if self.take(message).is_none() {
                        return Ok(());
                    }
                    while let Ok(message) = self.messages.try_recv() {
                        if self.take(Some(message)).is_none() {
                            return Ok(());
                        }
                    }
                }
                () = link.closed() => return Err(Trouble::lost().into()),
                () = self.replica.look_again.notified() => self.follow(link).await?,
                () = again => self.wants_write = true,
            }
        }
    }

    /// Writes until nothing is left.
    async fn write_all(&mut self, link: &Link) -> Result<(), Trouble> {
        loop {
            let batch = match self.pending.take() {
                Some(pending) => {
                    self.replica.end_earlier_writes(link).await;
                    pending
                }
                None => {
                    if !self.is_loaded {
                        let replica = self.replica.clone();
                        let load = load::load(&replica, link, &mut self.queue, &mut self.lately);
                        let takes = Takes::Load(&replica.statements.tag);
                        replica.look.beside(load, takes).await?;
                        self.is_loaded = true;
                        self.wants_write = true;
                    }
                    let next = Batch::next(&self.replica, &mut self.queue, self.wants_write);
                    let Some(next) = next else {
                        return Ok(());
                    };
                    next
                }
            };
            match self.send(link, batch).await? {
                Sent::Written(batch) => {
                    self.wants_write = false;
                    self.has_written = true;
                    batch.written(&self.replica, &mut self.lately);
                    // Starts need both connections.
                    if self.replica.look.is_connected() {
                        self.replica.standing.up();
                    }
                }
                Sent::Overtaken(batch) => {
                    batch.back(&self.replica, &mut self.queue);
                    if self.is_loaded {
                        self.follow(link).await?;
                    }
                }
            }
        }
    }

    async fn send(&mut self, link: &Link, mut batch: Batch) -> Result<Sent, Trouble> {
        let replica = self.replica.clone();
        if let Err(trouble) = replica
            .look
            .beside(batch.complete(&replica, link), Takes::Short)
            .await
        {
            batch.back(&replica, &mut self.queue);
            return Err(trouble);
        }
        let began = clock::now();
        // It may wait for its standby: a second try would only wait beside it.
        let takes = Takes::Write(&replica.statements.tag);
        let send = batch.send(&replica, link);
        let result = replica.look.beside(send, takes).await;
        line::observe(&replica.look.durations(), "write", clock::now() - began);
        match result {
            Ok(true) => Ok(Sent::Written(batch)),
            Ok(false) => Ok(Sent::Overtaken(batch)),
            Err(trouble) if trouble.is_undone() => {
                replica.standing.count(&trouble);
                Ok(Sent::Overtaken(batch))
            }
            Err(trouble) => {
                if trouble.is_unknown() {
                    self.pending = Some(batch);
                } else {
                    batch.back(&replica, &mut self.queue);
                }
                Err(trouble)
            }
        }
    }

    /// Takes in what others have written.
    async fn follow(&mut self, link: &Link) -> Result<(), Trouble> {
        let replica = &self.replica;
        loop {
            let position = replica.position();
            let parameters: [line::Parameter<'_>; 1] =
                [(&position, tokio_postgres::types::Type::INT8)];
            let tail = link.ask(&replica.statements.tail, &parameters);
            let rows = replica.look.beside(tail, Takes::Short).await?;
            match following::follow(&replica.shared, &rows, &replica.clock, &replica.metrics)? {
                Look::More => {}
                Look::UpToDate => return Ok(()),
                Look::Gone { went_back } => {
                    self.is_loaded = false;
                    if went_back {
                        self.lately.is_lost = true;
                    }
                    return Ok(());
                }
            }
        }
    }
}

/// What came of a write.
enum Sent {
    /// It is durable.
    Written(Batch),
    /// Somebody else has written before.
    Overtaken(Batch),
}

//! The one that writes the store's file: all that has come in meanwhile at once.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Message, Reply, Starting, Starts, Waiting};
use super::opened::{CannotOpen, Opened};
use super::tables::{Gone, Noted};
use crate::clock::Reading;
use crate::readiness::{Latch, Readiness};
use crate::store::decide::{Decision, Touched};
use crate::store::event::Removal;
use crate::store::intent::{Effect, Intent};
use crate::store::model::{RecordError, WriteFailed};
use crate::store::shared::Shared;
use crate::store::state::State;

/// How often a file that could not be written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The way to the writer.
pub(in crate::store) struct File {
    writer: Sender<Message>,
    has_room: Arc<AtomicBool>,
    broken: CancellationToken,
    starts: Starts,
}

impl File {
    /// Whether the last try to write went well.
    pub(in crate::store) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    /// To be held until what was started is kept, or nothing was.
    pub(in crate::store) fn starting(&self) -> Starting {
        self.starts.one_more()
    }

    /// Writes what comes of an intent after all before it.
    pub(in crate::store) fn append(
        &self,
        intent: Intent,
    ) -> oneshot::Receiver<Result<Effect, RecordError>> {
        let (reply, done) = oneshot::channel();
        // Without a writer the answer is dropped, which says so.
        let _ = self.writer.send(Message::Keep(Waiting {
            intent,
            reading: Reading::take(),
            reply,
        }));
        done
    }

    pub(in crate::store) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    pub(in crate::store) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.writer.send(Message::Close(done)).is_ok() {
            let _ = closed.await;
        }
    }
}

impl Opened {
    /// Starts the writer: a thread of its own, because writing blocks. Not ready while it cannot write.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(in crate::store) fn serve(
        self,
        shared: Arc<Shared>,
        readiness: Readiness,
    ) -> Result<File, CannotOpen> {
        let (writer, messages) = mpsc::channel();
        let (has_room, broken) = (Arc::new(AtomicBool::new(true)), self.broken.clone());
        let starts = Starts::default();
        let mut running = Writer {
            file: self,
            shared,
            readiness,
            has_room: has_room.clone(),
            unwritable: None,
            deferred: Vec::new(),
            postponed: Vec::new(),
        };
        let under_way = starts.clone();
        let work = move || {
            // A crash in here is an end too: nobody would write any more, and nobody would know.
            let end = running.file.broken.clone();
            if catch_unwind(AssertUnwindSafe(move || running.run(&messages, &under_way))).is_err() {
                end.cancel();
            }
        };
        let thread = std::thread::Builder::new().name("store".to_owned());
        thread.spawn(work).map_err(CannotOpen::NoThread)?;
        Ok(File {
            writer,
            has_room,
            broken,
            starts,
        })
    }
}

/// The one that writes.
struct Writer {
    file: Opened,
    shared: Arc<Shared>,
    readiness: Readiness,
    has_room: Arc<AtomicBool>,
    /// Held while the file cannot be written.
    unwritable: Option<Latch>,
    /// True, and not written yet.
    deferred: Vec<Noted>,
    /// They depend on others of the last write.
    postponed: Vec<Waiting>,
}

/// An event that is to be written, what has come of its intent then, and who waits for it.
struct Decided {
    noted: Noted,
    effect: Effect,
    reply: Reply,
}

/// Whether there is more to write.
enum Next {
    Go,
    End,
}

impl Writer {
    fn run(&mut self, messages: &Receiver<Message>, under_way: &Starts) {
        loop {
            let is_settled = self.deferred.is_empty() && self.file.database.is_some();
            let wait = match is_settled {
                _ if !self.postponed.is_empty() => Duration::ZERO,
                true => Duration::MAX,
                false => TRY_AGAIN,
            };
            let Some(batch) = Batch::next(messages, wait, under_way) else {
                return;
            };
            self.postponed.extend(batch.intents);
            let is_closing = batch.closing.is_some();
            loop {
                if let Next::End = self.write() {
                    return;
                }
                if !is_closing || self.postponed.is_empty() {
                    break;
                }
            }
            if let Some(done) = batch.closing {
                drop(self.file.database.take());
                let _ = done.send(());
                return;
            }
        }
    }

    /// Writes all that has come in, but for what depends on something else of it.
    fn write(&mut self) -> Next {
        let (gone, events) = {
            let mut guarded = self.shared.lock();
            let gone = Gone {
                rows: guarded.take_removals(),
                complete_since: guarded.state.payments.complete_since(),
            };
            let intents = mem::take(&mut self.postponed);
            let decided = decided(&mut guarded.state, intents, &mut self.postponed);
            (gone, decided)
        };
        let new = events.iter().map(|decided| &decided.noted);
        match self.file.write(self.deferred.iter().chain(new), &gone) {
            Ok(()) => self.written(events),
            Err(error) if self.file.broken.is_cancelled() => {
                tracing::error!(%error, "the store could not be made durable (fsync): what it holds is not known any more");
                // Closing it would write again.
                mem::forget(self.file.database.take());
                return Next::End;
            }
            Err(error) => self.failed(&error, events, gone.rows),
        }
        Next::Go
    }

    /// All of it is durable.
    fn written(&mut self, events: Vec<Decided>) {
        if self.unwritable.take().is_some() {
            self.has_room.store(true, Ordering::Relaxed);
            tracing::info!("the store can be written again");
        }
        let mut guarded = self.shared.lock();
        for Noted { event, .. } in self.deferred.drain(..) {
            guarded.wrote(&event);
            let removals = guarded.state.apply_deferred(&event);
            guarded.remove(removals);
            self.shared.wake(&event);
        }
        for Decided {
            noted: Noted { event, .. },
            effect,
            reply,
        } in events
        {
            guarded.wrote(&event);
            let removals = guarded.state.apply(&event);
            guarded.remove(removals);
            self.shared.wake(&event);
            // Nobody may be waiting any more.
            let _ = reply.send(Ok(effect));
        }
    }

    /// None of it is. What may be true without stays true, and is written later.
    fn failed(&mut self, error: &redb::Error, events: Vec<Decided>, removals: Vec<Removal>) {
        if self.unwritable.is_none() {
            self.has_room.store(false, Ordering::Relaxed);
            tracing::error!(%error, "the store cannot be written: starts are refused until it can");
            self.unwritable = Some(self.readiness.latch("store"));
        }
        self.file.database = None;
        let mut guarded = self.shared.lock();
        guarded.remove(removals);
        for Decided {
            noted,
            effect,
            reply,
        } in events
        {
            let kept = if noted.event.is_refusable() {
                Err(WriteFailed.into())
            } else {
                let removals = guarded.state.apply_unwritten(&noted.event);
                guarded.remove(removals);
                self.shared.wake(&noted.event);
                self.deferred.push(noted);
                Ok(effect)
            };
            let _ = reply.send(kept);
        }
    }
}

/// Returns the events that are to be written, and answers who waits for no event. What depends on another one of them
/// comes into `postponed`.
fn decided(state: &mut State, intents: Vec<Waiting>, postponed: &mut Vec<Waiting>) -> Vec<Decided> {
    let mut touched = Touched::default();
    let mut all = Vec::with_capacity(intents.len());
    for waiting in intents {
        if !touched.add(state, &waiting.intent) {
            postponed.push(waiting);
            continue;
        }
        match state.decide(&waiting.intent) {
            Decision::Write(event, effect) => {
                let reading = waiting.reading;
                all.push(Decided {
                    noted: Noted { event, reading },
                    effect,
                    reply: waiting.reply,
                });
            }
            Decision::Nothing(effect) => drop(waiting.reply.send(Ok(effect))),
            Decision::Refused(why) => drop(waiting.reply.send(Err(why))),
        }
    }
    all
}

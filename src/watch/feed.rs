//! All payments that were started here, as one stream of changes.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::shared::Inner;
use super::state::Input;
use crate::store::{Change, Known, OutOfReach};
use crate::telemetry::RequestId;

/// Events that are taken out of the store at once.
const PAGE: usize = 64;

/// A reader of all changes: while it lives all open payments are polled.
pub(crate) struct ChangeFeed {
    inner: Arc<Inner>,
    /// The name of the journal.
    run: Arc<String>,
    /// The journal's position up to which everything was sent, or is part of the present state that is sent.
    position: u64,
    /// While the present state is being sent: the last payment sent, and how many were.
    present: Option<(u64, u64)>,
    waiting: VecDeque<Event>,
    changed: watch::Receiver<u64>,
}

/// One payment's present state.
pub(crate) struct Event {
    /// To resume after it.
    pub(crate) id: String,
    /// `None`: a mark, which has an id and no payment.
    pub(crate) payment: Option<Change>,
}

impl ChangeFeed {
    /// Resumes after the event of that id; without one, or where the journal does not reach back so far, the present
    /// state of all open payments comes first.
    pub(super) fn new(inner: Arc<Inner>, after: Option<&str>) -> Self {
        inner.input(Input::FeedOpened);
        let changed = inner.changes.changed();
        let run = inner.changes.run();
        let resumed = after.and_then(|id| {
            let id = id.strip_prefix(&**run)?.strip_prefix('-')?;
            let (position, within) = id
                .split_once('.')
                .map_or((id, false), |(position, _)| (position, true));
            Some((position.parse().ok()?, within))
        });
        let (position, present) = match resumed {
            Some((position, within)) if inner.changes.changes_after(position, 0).is_ok() => {
                // Cut off within the present state: once more, and then what has happened since it was sent.
                (position, within.then_some((0, 0)))
            }
            _ => (inner.changes.position(), Some((0, 0))),
        };
        Self {
            inner,
            run,
            position,
            present,
            waiting: VecDeque::new(),
            changed,
        }
    }

    /// The next event. `None`: this reader was so slow that the journal has left it behind, or the journal is another one
    /// since the database of the store went back.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            // Before the look into the store: what is written after that look is seen here again.
            self.changed.mark_unchanged();
            if self.fetch().is_err() {
                tracing::warn!(
                    request_id = RequestId::current().as_deref(),
                    "a reader of /events was too slow for the changes that are kept, or the database went back; it has to resume"
                );
                return None;
            }
            if self.waiting.is_empty() {
                // The store lives as long as the poller.
                self.changed.changed().await.ok()?;
            }
        }
    }

    fn fetch(&mut self) -> Result<(), OutOfReach> {
        let (run, position) = (self.run.clone(), self.position);
        if run != self.inner.changes.run() {
            return Err(OutOfReach);
        }
        let Some((mut last, mut count)) = self.present else {
            for change in self.inner.changes.changes_after(position, PAGE)? {
                let position = change.position;
                self.position = position;
                let id = format!("{run}-{position}");
                self.waiting.push_back(Event {
                    id,
                    payment: Some(change),
                });
            }
            return Ok(());
        };
        for known in self.inner.store.open_after(last, PAGE) {
            let paid_twice_with = known.paid_twice_with().cloned();
            let Known {
                stored,
                observation,
                ..
            } = known;
            (last, count) = (stored.number, count + 1);
            // Not a position: who resumes in the middle gets the present state once more.
            let id = format!("{run}-{position}.{count}");
            self.waiting.push_back(Event {
                id,
                payment: Some(Change {
                    position,
                    stored,
                    report: observation.map(|observation| observation.report),
                    paid_twice_with,
                }),
            });
        }
        self.present = Some((last, count));
        if self.waiting.is_empty() {
            self.present = None;
            self.waiting.push_back(Event {
                id: format!("{run}-{position}"),
                payment: None,
            });
        }
        Ok(())
    }
}

impl Drop for ChangeFeed {
    fn drop(&mut self) {
        self.inner.input(Input::FeedClosed);
    }
}

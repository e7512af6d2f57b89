//! Webhooks that are left to other replicas.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{self, Instant};

/// A message that is another replica's to post is left to it for this time.
const LEFT_FOR: Duration = Duration::from_secs(2);
/// A replica whose app does not take messages leaves all of them to others for this time.
const APP_AWAY_FOR: Duration = Duration::from_secs(30);
/// Messages that are remembered before the old ones are forgotten.
const ROOM: usize = 1000;

/// What is left to others, and since when.
#[derive(Default)]
pub(super) struct Left(Mutex<State>);

#[derive(Default)]
struct State {
    /// By the number of the message.
    since: HashMap<u64, Instant>,
    /// The app is left alone until then.
    app_away_until: Option<Instant>,
}

impl Left {
    /// Whether this message, which another replica is to post, is still left to it.
    pub(super) fn leave(&self, number: u64) -> bool {
        let now = clock::now();
        let since = &mut self.lock().since;
        if since.len() >= ROOM {
            since.retain(|_, since| now - *since < LEFT_FOR * 2);
        }
        let is_left = now - *since.entry(number).or_insert(now) < LEFT_FOR;
        if !is_left {
            since.remove(&number);
        }
        is_left
    }

    /// The app of this replica took a message, or did not.
    pub(super) fn app_answered(&self, is_well: bool) {
        self.lock().app_away_until = (!is_well).then(|| clock::now() + APP_AWAY_FOR);
    }

    /// Whether this replica is one to post messages.
    pub(super) fn posts(&self) -> bool {
        let until = self.lock().app_away_until;
        until.is_none_or(|until| clock::now() >= until)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

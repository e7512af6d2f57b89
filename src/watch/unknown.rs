//! Watch codes that the gateway does not know.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::gateway;
use crate::payment::WatchCode;

/// How long a code that the gateway does not know is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// What the gateway said of such codes, and when. Each entry took a call, so there are never more of them than the rate
/// window admits in that time.
#[derive(Debug, Default)]
pub(super) struct UnknownCodes(HashMap<WatchCode, (Instant, gateway::Error)>);

impl UnknownCodes {
    pub(super) fn get(&self, now: Instant, code: &WatchCode) -> Option<&gateway::Error> {
        let (since, error) = self.0.get(code)?;
        (now - *since < UNKNOWN_FOR).then_some(error)
    }

    pub(super) fn insert(&mut self, now: Instant, code: &WatchCode, error: gateway::Error) {
        self.0.retain(|_, (since, _)| now - *since < UNKNOWN_FOR);
        self.0.insert(code.clone(), (now, error));
    }

    pub(super) fn remove(&mut self, code: &WatchCode) {
        self.0.remove(code);
    }
}

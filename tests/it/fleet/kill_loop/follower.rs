//! One who reads the events of the fleet, from replica to replica, while these come and go.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::shop::Told;
use crate::dice::Dice;
use crate::fleet::{Fleet, in_time};
use crate::harness::Stream;

/// What the events have said.
pub struct Follower {
    last_id: Mutex<String>,
    /// Codes of which there was an event, and those that one said were completed.
    seen: Mutex<HashSet<String>>,
    completed: Mutex<HashSet<String>>,
}

impl Follower {
    /// One who knows nothing, of a fleet that has no payments yet.
    pub async fn new(fleet: &Fleet) -> Self {
        let mut stream = fleet[0].stream("/events", None).await;
        let last_id = loop {
            let block = in_time("an id", stream.block()).await;
            let id = block.expect("it does not end").id;
            if !id.is_empty() {
                break id;
            }
        };
        Self {
            last_id: Mutex::new(last_id),
            seen: Mutex::default(),
            completed: Mutex::default(),
        }
    }

    /// Reads here for a while, then there, until it is over.
    pub async fn follow(&self, fleet: &Fleet, mut dice: Dice, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            let last_id = self.last_id.lock().unwrap().clone();
            let opens = fleet[dice.index(3)].try_stream("/events", Some(&last_id));
            let opened = tokio::time::timeout(Duration::from_secs(3), opens).await;
            match opened.ok().flatten() {
                Some(mut stream) if stream.status == 200 => {
                    let stay = dice.milliseconds(50, 3000);
                    let _ = tokio::time::timeout(stay, self.read(&mut stream)).await;
                }
                _ => tokio::time::sleep(dice.milliseconds(10, 100)).await,
            }
        }
    }

    async fn read(&self, stream: &mut Stream) {
        while let Some(event) = stream.event_before_the_end().await {
            self.take(&event.json());
            if !event.id.is_empty() {
                *self.last_id.lock().unwrap() = event.id;
            }
        }
    }

    fn take(&self, event: &serde_json::Value) {
        let code = event["code"].as_str().expect("a code").to_owned();
        if event["status"] == "completed" {
            self.completed.lock().unwrap().insert(code.clone());
        }
        self.seen.lock().unwrap().insert(code);
    }

    /// Reads on in peace until everything that was told has come.
    pub async fn has_seen_all(&self, fleet: &Fleet, told: &Told) {
        let last_id = self.last_id.lock().unwrap().clone();
        let mut stream = fleet[1].stream("/events", Some(&last_id)).await;
        assert_eq!(stream.status, 200);
        let missing = || {
            let (seen, completed) = (self.seen.lock().unwrap(), self.completed.lock().unwrap());
            let unseen = told.codes.keys().find(|code| !seen.contains(*code));
            unseen
                .or_else(|| told.paid.difference(&completed).next())
                .cloned()
        };
        let mut last_missing = missing();
        while let Some(code) = &last_missing {
            let event = in_time(&format!("an event of {code}"), stream.event()).await;
            self.take(&event.expect("it does not end").json());
            last_missing = missing();
        }
    }
}

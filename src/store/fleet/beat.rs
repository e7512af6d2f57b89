//! What a replica does all the time: it says that it is alive, hears what others have written, and clears up.

use std::sync::Arc;
use std::time::Duration;

use super::asks::{self, Asks};
use super::leases::Leases;
use super::replica::Replica;
use super::trouble::Trouble;
use crate::{clock, random};

/// From one sign of life to the next.
const BEAT: Duration = Duration::from_secs(1);
/// From one look at the log to the next while somebody waits here, and at most, while looks are slow.
const LOOKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// A look that takes longer is a slow one.
const SLOW: Duration = Duration::from_millis(50);
/// From one look whether everything is loaded to the next.
const LOADED: Duration = Duration::from_millis(25);
const SWEEP: Duration = Duration::from_secs(60);

/// What nobody needs any more. Each replica does this now and then; one would be enough.
const SWEEPS: [&str; 4] = [
    // A replica that has not seen these loads everything anew.
    "delete from {s}.log where position < (select max(position) from {s}.log) - 10000",
    "delete from {s}.leases where until < clock_timestamp() - interval '1 minute'",
    "delete from {s}.members where seen_at < clock_timestamp() - interval '1 hour'",
    "delete from {s}.asks where greatest(claimed_at, asked_at) < clock_timestamp() - interval '1 hour'",
];

/// Never returns.
pub(super) async fn run(replica: &Replica, asks: &Asks, leases: &Leases) {
    let now = clock::now();
    let (mut beat_at, mut look_at) = (now, now);
    let mut sweep_at = now + SWEEP.mul_f64(random::fraction());
    let mut apart = LOOKS[0];
    let mut known = None;
    loop {
        let link = replica.look.connected().await;
        // Before that there may be no tables.
        if !replica.is_loaded() {
            clock::sleep(LOADED).await;
            continue;
        }
        let is_new = known
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &link));
        if is_new && make_places(asks, replica).await.is_ok() {
            known = Some(link);
        }
        let began = clock::now();
        let mut looks = began >= look_at && replica.is_watched();
        if began >= beat_at {
            let reads = replica.reads();
            let posts = replica.posts();
            // Should it fail, the next one may not.
            let (look, clock) = (&replica.look, &replica.clock);
            let _ = replica.members.beat(look, clock, reads, posts).await;
            leases.clear().await;
            beat_at = began + BEAT.mul_f64(0.9 + random::fraction() / 5.0);
            looks = true;
        }
        if looks {
            let began = clock::now();
            let _ = replica.follow().await;
            let is_slow = clock::now() - began > SLOW;
            apart = if is_slow {
                (apart * 2).min(LOOKS[1])
            } else {
                LOOKS[0]
            };
            look_at = began + apart.mul_f64(0.9 + random::fraction() / 5.0);
        }
        if began >= sweep_at {
            sweep(replica).await;
            sweep_at = began + SWEEP;
        }
        let next = if replica.is_watched() {
            look_at.min(beat_at)
        } else {
            beat_at
        };
        // Somebody may begin to wait.
        clock::sleep_until(next.min(clock::now() + LOOKS[0])).await;
    }
}

/// Where `watch.poll_rate` was raised there are too few.
async fn make_places(asks: &Asks, replica: &Replica) -> Result<(), Trouble> {
    asks::begin(asks, replica.terms.call + Duration::from_secs(1)).await
}

async fn sweep(replica: &Replica) {
    for sql in SWEEPS {
        let sql = replica.named(sql);
        let _ = replica.look.tell("sweep", &sql, &[]).await;
    }
}

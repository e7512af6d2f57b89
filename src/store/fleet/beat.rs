//! What a replica does all the time: it says that it is alive, hears what others have written, and clears up.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::Inner;
use super::following::{self, Look};
use super::line::Parameter;
use super::trouble::Trouble;
use super::{asks, members};
use crate::{clock, random};

/// From one sign of life to the next.
const BEAT: Duration = Duration::from_secs(1);
/// From one look at the log to the next while somebody waits here, and at most, while looks are slow.
const LOOKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// A look that takes longer is a slow one.
const SLOW: Duration = Duration::from_millis(50);
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
pub(super) async fn run(inner: &Arc<Inner>) {
    let now = clock::now();
    let (mut beat_at, mut look_at) = (now, now);
    let mut sweep_at = now + SWEEP.mul_f64(random::fraction());
    let mut apart = LOOKS[0];
    let mut known = None;
    loop {
        let link = inner.look.connected().await;
        let is_new = known
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &link));
        if is_new && inner.is_loaded() && make_places(inner).await.is_ok() {
            known = Some(link);
        }
        let began = clock::now();
        // Before that there may be no tables.
        if began >= beat_at && inner.is_loaded() {
            let reads = inner.reads();
            let posts = inner.posts();
            // Should it fail, the next one may not.
            let _ = inner.members.beat(inner, reads, posts).await;
            beat_at = began + BEAT.mul_f64(0.9 + random::fraction() / 5.0);
            look_at = began;
        }
        if began >= look_at && inner.is_loaded() {
            let began = clock::now();
            let _ = look(inner).await;
            let is_slow = clock::now() - began > SLOW;
            apart = if is_slow {
                (apart * 2).min(LOOKS[1])
            } else {
                LOOKS[0]
            };
            look_at = began + apart.mul_f64(0.9 + random::fraction() / 5.0);
        }
        if began >= sweep_at {
            sweep(inner).await;
            sweep_at = began + SWEEP;
        }
        let next = if inner.is_watched() {
            look_at.min(beat_at)
        } else {
            beat_at
        };
        // Somebody may begin to wait.
        clock::sleep_until(next.min(clock::now() + LOOKS[0])).await;
        if !inner.is_watched() {
            look_at = look_at.max(beat_at);
        }
    }
}

/// Takes in what others have written.
pub(super) async fn look(inner: &Inner) -> Result<(), Trouble> {
    loop {
        let position = inner.position();
        let parameters: [Parameter<'_>; 1] = [(&position, Type::INT8)];
        let tail = &inner.statements.tail;
        let rows = inner.look.query("news", tail, &parameters).await?;
        match following::follow(&inner.shared, &rows, &inner.clock, &inner.metrics)? {
            Look::More => {}
            Look::UpToDate => return Ok(()),
            Look::Gone { .. } => {
                // The keeper looks too, and loads everything anew.
                inner.look_again.notify_one();
                return Ok(());
            }
        }
    }
}

/// Where `watch.poll_rate` was raised there are too few.
async fn make_places(inner: &Inner) -> Result<(), Trouble> {
    asks::begin(inner, inner.terms.call + Duration::from_secs(1)).await
}

async fn sweep(inner: &Inner) {
    for sql in SWEEPS {
        let sql = sql.replace("{s}", &format!("\"{}\"", inner.database.schema()));
        let _ = inner.look.query("sweep", &sql, &[]).await;
    }
}

/// Returns the id of this process, which no other has, and the name of its host.
pub(super) fn me(version: &str, config: String) -> members::Member {
    // For people.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    members::Member {
        id: random::token(16),
        name: name.trim().to_owned(),
        version: version.to_owned(),
        config,
        reads: false,
        posts: false,
    }
}

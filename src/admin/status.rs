//! The status of the sidecar: gathered at one moment, and served as JSON or as a page.

use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::fleet::Fleet;
use super::history::{self, Hour};
use super::snapshot::{self, Snapshot};
use super::sources::Sources;
use crate::clock::{self, Instant};
use crate::gateway;
use crate::hardening::Hardening;
use crate::store::Store;
use crate::telemetry;

/// Open payments are counted in groups: of less than each of these ages, and older ones.
const AGES: [u64; 5] = [60, 600, 3600, 6 * 3600, 24 * 3600];

/// `/status`: fields are added here, never renamed. `null` is what is not known.
#[derive(Serialize)]
pub(super) struct Status {
    pub(super) version: &'static str,
    pub(super) started_at: String,
    pub(super) uptime_seconds: u64,
    pub(super) ready: bool,
    pub(super) checks: Vec<Check>,
    pub(super) payments: Payments,
    pub(super) waiters: Counts,
    pub(super) polls: Polls,
    pub(super) starts: Starts,
    pub(super) store: Kept,
    pub(super) refused: Counts,
    /// `null` where no webhook is configured.
    pub(super) webhooks: Option<Webhooks>,
    pub(super) gateway: Gateway,
    /// `null` where no replicas share the store.
    pub(super) fleet: Option<Fleet>,
    pub(super) secret: Secret,
    pub(super) hardening: Hardening,
    /// Lines of the log that its reader was too slow for.
    pub(super) log_lines_lost: u64,
    pub(super) memory: Memory,
    pub(super) last_hour: LastHour,
    metrics: Map<String, Value>,
}

#[derive(Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) ok: bool,
}

#[derive(Serialize)]
pub(super) struct Payments {
    pub(super) open: u64,
    /// The youngest first.
    pub(super) open_by_age: Vec<AgeGroup>,
    pub(super) oldest_open_seconds: Option<f64>,
    /// Every watch code in memory, also those only asked for here.
    pub(super) tracked_by_status: Counts,
    /// References of which a second payment was completed.
    pub(super) references_paid_twice: u64,
}

/// Open payments older than the group before, and younger than this.
#[derive(Serialize)]
pub(super) struct AgeGroup {
    pub(super) under_seconds: Option<u64>,
    pub(super) count: u64,
}

#[derive(Serialize)]
pub(super) struct Polls {
    /// Calls to the gateway, repeats included.
    pub(super) made: u64,
    /// Answers that took none.
    pub(super) saved: u64,
    /// Of both together.
    pub(super) saved_share: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct Starts {
    pub(super) by_outcome: Counts,
    pub(super) rate_limited: u64,
    /// Answers of the gateway with the code of another payment.
    pub(super) codes_reused: u64,
}

/// What the store keeps in memory, by an upper estimate.
#[derive(Serialize)]
pub(super) struct Kept {
    pub(super) bytes: u64,
    /// `store.max_bytes`.
    pub(super) bytes_limit: u64,
}

#[derive(Serialize)]
pub(super) struct Webhooks {
    /// Messages that the app has not taken yet.
    pub(super) pending: u64,
    pub(super) oldest_pending_seconds: Option<f64>,
    /// Tries, by how they ended.
    pub(super) tries: Counts,
}

#[derive(Serialize)]
pub(super) struct Gateway {
    pub(super) last_good_answer_at: Option<String>,
    pub(super) last_good_answer_age_seconds: Option<f64>,
    /// The word of the last call without a good answer.
    pub(super) last_error: Option<&'static str>,
    pub(super) last_error_at: Option<String>,
    pub(super) last_error_age_seconds: Option<f64>,
    pub(super) start: Calls,
    pub(super) watch: Calls,
}

/// The calls of one operation, repeats included. The quantiles are estimates.
#[derive(Serialize)]
pub(super) struct Calls {
    pub(super) by_outcome: Counts,
    pub(super) mean_seconds: Option<f64>,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p95_seconds: Option<f64>,
}

#[derive(Serialize)]
pub(super) struct Secret {
    pub(super) loaded_at: Option<String>,
    pub(super) age_seconds: Option<u64>,
    pub(super) reload_failures: u64,
    pub(super) echoes: u64,
}

/// The memory of the process.
#[derive(Serialize)]
pub(super) struct Memory {
    /// How much it takes at most, as `tillgate check` prints it.
    pub(super) bound_bytes: u64,
    /// How much is really there now.
    pub(super) resident_bytes: Option<u64>,
}

/// The present minute and the 59 before it, as far as the program ran then.
#[derive(Serialize)]
pub(super) struct LastHour {
    pub(super) starts: u64,
    pub(super) polls_made: u64,
    pub(super) polls_saved: u64,
    pub(super) refused: u64,
    pub(super) gateway_calls: u64,
    pub(super) gateway_mean_seconds: Option<f64>,
}

/// A number for each word of a closed set, in the order that people read them in.
pub(super) struct Counts(pub(super) telemetry::Counts);

impl Status {
    /// As it is now.
    pub(super) fn new(of: &Sources, now: Snapshot, hour: &Hour) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            started_at: of.started_at.to_string(),
            uptime_seconds: (clock::now() - of.since).as_secs(),
            ready: of.readiness.is_ready(),
            checks: of
                .readiness
                .checks()
                .into_iter()
                .map(|(name, ok)| Check { name, ok })
                .collect(),
            payments: Payments::new(&of.rooms.store, &now),
            polls: Polls::new(&now),
            webhooks: now.store.webhooks_pending.map(|pending| Webhooks {
                pending: pending as u64,
                oldest_pending_seconds: now.store.oldest_webhook.map(|age| age.as_secs_f64()),
                tries: Counts(now.tries),
            }),
            gateway: Gateway::new(&now.gateway),
            fleet: Fleet::new(&of.rooms.store),
            secret: Secret::new(&now.gateway),
            waiters: Counts(now.waiters),
            starts: Starts {
                by_outcome: Counts(now.start.by_outcome),
                rate_limited: now.start.rate_limited,
                codes_reused: now.start.codes_reused,
            },
            store: Kept {
                bytes: now.store.bytes,
                bytes_limit: now.store.bytes_limit,
            },
            refused: Counts(now.refused),
            hardening: Hardening::now(),
            log_lines_lost: telemetry::lines_lost(),
            memory: Memory {
                bound_bytes: of.rooms.memory_bound,
                resident_bytes: resident(),
            },
            last_hour: LastHour::new(hour),
            metrics: metrics(&of.registry),
        }
    }
}

impl Payments {
    fn new(store: &Store, now: &Snapshot) -> Self {
        let (groups, older) = store.payments().open_by_age(AGES.map(Duration::from_secs));
        let limits = AGES.into_iter().map(Some).chain([None]);
        let open_by_age: Vec<_> = limits
            .zip(groups.into_iter().chain([older]))
            .map(|(under_seconds, count)| AgeGroup {
                under_seconds,
                count: count as u64,
            })
            .collect();
        let open = open_by_age.iter().map(|group| group.count).sum();
        let oldest = now.store.oldest_open.unwrap_or_default().as_secs_f64();
        Self {
            open,
            open_by_age,
            oldest_open_seconds: (open > 0).then_some(oldest),
            tracked_by_status: Counts(now.store.tracked.clone()),
            references_paid_twice: now.watch.references_paid_twice,
        }
    }
}

impl Polls {
    fn new(now: &Snapshot) -> Self {
        let made = snapshot::sum(&now.gateway.watch.by_outcome);
        let saved = now.watch.polls_saved;
        let all = made + saved;
        Self {
            made,
            saved,
            saved_share: (all > 0).then(|| saved as f64 / all as f64),
        }
    }
}

impl Gateway {
    fn new(of: &gateway::Snapshot) -> Self {
        let now = clock::now();
        let at = |moment: Instant| clock::wall_at(moment).to_string();
        let age = |moment: Instant| (now - moment).as_secs_f64();
        Self {
            last_good_answer_at: of.good.map(at),
            last_good_answer_age_seconds: of.good.map(age),
            last_error: of.error.map(|(word, _)| word),
            last_error_at: of.error.map(|(_, moment)| at(moment)),
            last_error_age_seconds: of.error.map(|(_, moment)| age(moment)),
            start: Calls::new(&of.start),
            watch: Calls::new(&of.watch),
        }
    }
}

impl Calls {
    fn new(calls: &gateway::Calls) -> Self {
        Self {
            by_outcome: Counts(calls.by_outcome.clone()),
            mean_seconds: calls.took.mean(),
            p50_seconds: calls.took.quantile(0.5),
            p95_seconds: calls.took.quantile(0.95),
        }
    }
}

impl Secret {
    fn new(of: &gateway::Snapshot) -> Self {
        let loaded = of.secret.loaded_at;
        Self {
            loaded_at: loaded
                .and_then(|second| Timestamp::from_second(second).ok())
                .map(|at| at.to_string()),
            age_seconds: loaded
                .map(|second| u64::try_from(clock::unix_seconds() - second).unwrap_or(0)),
            reload_failures: of.secret.reload_failures,
            echoes: of.echoes,
        }
    }
}

impl LastHour {
    fn new(hour: &Hour) -> Self {
        let grown = |of| history::sum(&hour.growth(of));
        let calls = grown(|point| point.calls);
        Self {
            starts: whole(grown(|point| point.starts)),
            polls_made: whole(grown(|point| point.polls)),
            polls_saved: whole(grown(|point| point.polls_saved)),
            refused: whole(grown(|point| point.refused)),
            gateway_calls: whole(calls),
            gateway_mean_seconds: (calls > 0.0).then(|| grown(|point| point.call_seconds) / calls),
        }
    }
}

impl Counts {
    /// That of this word; 0 where it is not among them.
    pub(super) fn get(&self, word: &str) -> u64 {
        self.0
            .iter()
            .find(|(known, _)| *known == word)
            .map_or(0, |(_, count)| *count)
    }

    /// All of them together.
    pub(super) fn sum(&self) -> u64 {
        snapshot::sum(&self.0)
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(word, count)| (word, count)))
    }
}

/// Every sample of `/metrics` by its name and labels, but for the buckets of histograms.
fn metrics(registry: &Registry) -> Map<String, Value> {
    let is_bucket = |series: &str| {
        let name = series.split('{').next().unwrap_or_default();
        name.ends_with("_bucket")
    };
    let text = telemetry::openmetrics(registry).unwrap_or_default();
    telemetry::samples(&text)
        .filter(|(series, _)| !is_bucket(series))
        .filter_map(|(series, number)| {
            Some((series.to_owned(), serde_json::from_str(number).ok()?))
        })
        .collect()
}

/// The memory that is really there (proc(5)).
fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// A count is a whole number, though it is printed like any other.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and no count is negative"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

//! What is counted about starts.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::error::{Error, Started};
use crate::gateway::Outcome;
use crate::telemetry::{self, Counts, Tally};

/// The outcome of a start that has a payment.
const ACCEPTED: &str = "accepted";

/// What has become of the starts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) by_outcome: Counts,
    /// Refused by `start.rate`.
    pub(crate) rate_limited: u64,
    /// Answers of the gateway with the code of another payment.
    pub(crate) codes_reused: u64,
}

pub(super) struct Metrics {
    outcomes: Tally,
    duration: Histogram,
    rate_limited: Counter,
    pub(super) code_reuse: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let [rejected, not_sent, unknown] =
            [Outcome::Rejected, Outcome::NotSent, Outcome::Unknown].map(Outcome::label);
        Self {
            outcomes: Tally::new("outcome", &[ACCEPTED, rejected, not_sent, unknown]),
            duration: Histogram::new(telemetry::LATENCY_BUCKETS),
            rate_limited: Counter::default(),
            code_reuse: Counter::default(),
        }
    }
}

impl Metrics {
    /// A start has ended.
    pub(super) fn observe(&self, took: Duration, result: &Started) {
        let outcome = match result {
            // It begins anew.
            Err(Error::Again) => return,
            Ok(_) => ACCEPTED,
            Err(error) => error.outcome().label(),
        };
        if let Err(Error::RateLimited { .. }) = result {
            self.rate_limited.inc();
        }
        self.outcomes.of(outcome).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            by_outcome: self.outcomes.counts(),
            rate_limited: self.rate_limited.get(),
            codes_reused: self.code_reuse.get(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "starts",
            "Starts that were well-formed, by how they ended",
            self.outcomes.metrics(),
        );
        registry.register_with_unit(
            "start_duration",
            "How long they took, waiting included",
            telemetry::SECONDS,
            self.duration.clone(),
        );
        registry.register(
            "rate_limited",
            "Starts refused by start.rate",
            self.rate_limited.clone(),
        );
        registry.register(
            "code_reuse",
            "Starts that the gateway answered with the codes of another payment",
            self.code_reuse.clone(),
        );
    }
}

//! What is counted about a fleet.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::store::intent::Intent;

/// From a commit to the moment when another replica has it, in seconds.
const DELAYS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Shared by all that count.
pub(super) struct FleetMetrics {
    pub(super) news_delay: Histogram,
    pub(super) polls_elsewhere: Counter,
    pub(super) starts_joined_elsewhere: Counter,
    pub(super) payments_adopted: Counter,
    pub(super) unrevealed: Counter,
    pub(super) went_back: Counter,
}

impl Default for FleetMetrics {
    fn default() -> Self {
        Self {
            news_delay: Histogram::new(DELAYS),
            polls_elsewhere: Counter::default(),
            starts_joined_elsewhere: Counter::default(),
            payments_adopted: Counter::default(),
            unrevealed: Counter::default(),
            went_back: Counter::default(),
        }
    }
}

impl FleetMetrics {
    /// Nobody hears of what this was to keep.
    pub(super) fn unrevealed(&self, intent: &Intent) {
        if let Intent::Start { payment, .. } = intent {
            tracing::warn!(
                watch_code = payment.watch_code.shortened(),
                "a payment was started that nobody gets: another replica was faster, or it could not be kept"
            );
            self.unrevealed.inc();
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "news_delay",
            "From the commit of another replica's write to the moment when it is known here",
            Unit::Seconds,
            self.news_delay.clone(),
        );
        let counters = [
            (
                "polls_elsewhere",
                "Questions that another replica had just asked the gateway",
                &self.polls_elsewhere,
            ),
            (
                "starts_joined_elsewhere",
                "Starts that waited for the same start on another replica",
                &self.starts_joined_elsewhere,
            ),
            (
                "payments_adopted",
                "Open payments that were another replica's to poll before",
                &self.payments_adopted,
            ),
            (
                "unrevealed",
                "Payments that were started and that nobody got",
                &self.unrevealed,
            ),
            (
                "store_went_back",
                "Times that the database was found at an earlier state",
                &self.went_back,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
    }
}

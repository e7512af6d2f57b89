//! How long something takes: a histogram that can also be read. That of prometheus-client keeps its buckets to itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Buckets of every latency histogram, in seconds: from a cache hit to a gateway's timeout.
pub(crate) const LATENCY_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// A histogram of times. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency(Arc<Mutex<Distribution>>);

/// What was observed, as far as the buckets show it; in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distribution {
    /// Upper bounds, the last one infinite, and how many were in each.
    buckets: [(f64, u64); LATENCY_BUCKETS.len() + 1],
    pub(crate) sum: f64,
    pub(crate) count: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        let mut buckets = [(f64::INFINITY, 0); LATENCY_BUCKETS.len() + 1];
        for ((bound, _), finite) in buckets.iter_mut().zip(LATENCY_BUCKETS) {
            *bound = finite;
        }
        Self {
            buckets,
            sum: 0.0,
            count: 0,
        }
    }
}

impl Latency {
    pub(crate) fn observe(&self, took: Duration) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(took.as_secs_f64());
    }

    /// All up to now.
    pub(crate) fn distribution(&self) -> Distribution {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Latency {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let Distribution {
            buckets,
            sum,
            count,
        } = self.distribution();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl Distribution {
    fn add(&mut self, seconds: f64) {
        self.sum += seconds;
        self.count += 1;
        if let Some((_, count)) = self.buckets.iter_mut().find(|(bound, _)| *bound >= seconds) {
            *count += 1;
        }
    }

    /// The mean; `None` when there were none.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The value that this share of them does not exceed, taking those of one bucket as evenly spread; at most the last
    /// finite bound. `None` when there were none.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count as f64;
        let (mut low, mut below) = (0.0, 0.0);
        for (high, count) in self.buckets {
            let count = count as f64;
            if count > 0.0 && below + count >= rank {
                return Some(if high.is_finite() {
                    low + (high - low) * (rank - below) / count
                } else {
                    low
                });
            }
            (low, below) = (high, below + count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::histogram::Histogram;

    use super::*;
    use crate::telemetry::{openmetrics, registry};

    #[test]
    fn quantiles_are_estimated_within_their_bucket() {
        let took = Latency::default();
        let none = took.distribution();
        assert_eq!((none.mean(), none.quantile(0.5)), (None, None));
        for millis in [500, 750, 2000, 20_000] {
            took.observe(Duration::from_millis(millis));
        }
        let took = took.distribution();
        assert_eq!(took.mean(), Some(23.25 / 4.0));
        assert_eq!(took.quantile(0.25), Some(0.5));
        assert_eq!(took.quantile(0.5), Some(1.0));
        assert_eq!(took.quantile(0.75), Some(2.5));
        assert_eq!(took.quantile(0.99), Some(10.0));
    }

    #[test]
    fn it_is_printed_as_any_histogram_is() {
        let (took, other) = (Latency::default(), Histogram::new(LATENCY_BUCKETS));
        for seconds in [0.0, 0.001, 0.3, 10.0, 11.0] {
            took.observe(Duration::from_secs_f64(seconds));
            other.observe(seconds);
        }
        let (mut one, mut another) = (registry(), registry());
        one.register("took", "How long", took);
        another.register("took", "How long", other);
        assert_eq!(openmetrics(&one), openmetrics(&another));
    }
}

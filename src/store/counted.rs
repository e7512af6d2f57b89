//! Metrics that are counted when somebody asks for them.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::Store;
use crate::clock;

/// What is counted when somebody asks for it.
pub(super) struct Counted(pub(super) Arc<Store>);

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (count, since, pending) = {
            let state = self.0.state();
            let since = state.open.values().next().map(|stored| stored.since);
            (state.open.len(), since, state.outbox.pending())
        };
        let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        let help = "Payments started here that are neither completed nor let go.";
        count.encode(encoder.encode_descriptor(
            "payments_open",
            help,
            None,
            count.metric_type(),
        )?)?;
        let age = ConstGauge::new(since.map_or(0.0, |since| (clock::now() - since).as_secs_f64()));
        let help = "Age of the oldest payment that is neither completed nor let go; 0 where there is none.";
        let unit = Some(&Unit::Seconds);
        age.encode(encoder.encode_descriptor(
            "oldest_open_payment",
            help,
            unit,
            age.metric_type(),
        )?)?;
        if self.0.compose.is_none() {
            return Ok(());
        }
        let pending = ConstGauge::new(i64::try_from(pending).unwrap_or(i64::MAX));
        let help = "Messages that the app has not taken yet.";
        pending.encode(encoder.encode_descriptor(
            "webhooks_pending",
            help,
            None,
            pending.metric_type(),
        )?)
    }
}

//! Metrics that are counted when somebody asks for them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::log::Log;
use super::snapshot::Snapshot;

/// Reads the state of the store for each scrape.
pub(super) struct StoreMetrics {
    pub(super) log: Arc<Log>,
    pub(super) has_webhook: bool,
}

impl fmt::Debug for StoreMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreMetrics")
    }
}

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = Snapshot::take(&self.log, self.has_webhook);
        let help = "Watch codes in memory, by their last known status.";
        let kind = prometheus_client::metrics::MetricType::Gauge;
        let mut tracked = encoder.encode_descriptor("payments_tracked", help, None, kind)?;
        for (status, count) in now.tracked {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(tracked.encode_family(&[("status", status)])?)?;
        }
        let let_go = ConstCounter::new(now.let_go);
        let help = "Watch codes forgotten because of watch.max_tracked.";
        let_go.encode(encoder.encode_descriptor(
            "payments_let_go",
            help,
            None,
            let_go.metric_type(),
        )?)?;
        let help = "Payments started here that are neither completed nor let go.";
        gauge(&mut encoder, "payments_open", help, now.open)?;
        let help = "Age of the oldest payment that is neither completed nor let go; 0 where there is none.";
        age(&mut encoder, "oldest_open_payment", help, now.oldest_open)?;
        let help = "Memory that everything takes that the store keeps, by an upper estimate.";
        gauge(&mut encoder, "store_bytes", help, now.bytes)?;
        let help = "How much it may take (store.max_bytes).";
        gauge(&mut encoder, "store_bytes_limit", help, now.bytes_limit)?;
        if let Some(fleet) = self.log.fleet() {
            let help = "Whether the database can be written, as far as is known: 1 or 0.";
            gauge(&mut encoder, "store_up", help, u8::from(fleet.is_up()))?;
            let help = "Replicas that share the database and are alive, this one included.";
            gauge(
                &mut encoder,
                "fleet_members",
                help,
                fleet.members().len().max(1),
            )?;
        }
        if let Some(pending) = now.webhooks_pending {
            let help = "Messages that the app has not taken yet.";
            gauge(&mut encoder, "webhooks_pending", help, pending)?;
            let help = "Age of the oldest of these; 0 where there is none.";
            age(
                &mut encoder,
                "webhook_oldest_pending",
                help,
                now.oldest_webhook,
            )?;
        }
        Ok(())
    }
}

fn age(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    age: Option<Duration>,
) -> fmt::Result {
    let age = ConstGauge::new(age.unwrap_or_default().as_secs_f64());
    let unit = Some(&Unit::Seconds);
    age.encode(encoder.encode_descriptor(name, help, unit, age.metric_type())?)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl TryInto<i64>,
) -> fmt::Result {
    let value = ConstGauge::new(value.try_into().unwrap_or(i64::MAX));
    value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
}

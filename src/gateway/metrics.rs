//! What comes of the calls, counted; and how the gateway was when it was last asked.

use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::error::Error;
use crate::clock::{self, Instant};
use crate::secret::{self, Secret};
use crate::telemetry::{self, Counts, Distribution, Latency};

/// What has come of the calls up to one moment: nothing of what the gateway said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) start: Calls,
    pub(crate) watch: Calls,
    /// The last whole answer, be it a no to one payment.
    pub(crate) good: Option<Instant>,
    /// The last call without one, and the word for it.
    pub(crate) error: Option<(&'static str, Instant)>,
    /// Answers that had the secret in them.
    pub(crate) echoes: u64,
    pub(crate) secret: secret::Snapshot,
}

/// The calls of one operation, repeats included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) by_outcome: Counts,
    pub(crate) took: Distribution,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Default)]
pub(super) struct Metrics {
    requests: Family<Call, Counter>,
    durations: Family<Operation, Latency>,
    pub(super) echoes: Counter,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    good: Option<Instant>,
    error: Option<(&'static str, Instant)>,
    /// Every pair of labels that there is, in the order in which they came up.
    seen: Vec<Call>,
}

impl Metrics {
    pub(super) fn observe(&self, operation: &'static str, began: Instant, error: Option<&Error>) {
        let outcome = error.map_or("ok", Error::label);
        let now = clock::now();
        let call = Call { operation, outcome };
        self.requests.get_or_create(&call).inc();
        self.durations
            .get_or_create(&Operation { operation })
            .observe(now - began);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            // A no to one payment is an answer: the gateway works.
            None | Some(Error::Rejected(_) | Error::UnknownCode(_)) => last.good = Some(now),
            Some(_) => last.error = Some((outcome, now)),
        }
        if !last.seen.contains(&call) {
            last.seen.push(call);
        }
    }

    pub(super) fn snapshot(&self, secret: &Secret) -> Snapshot {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = |operation| Calls {
            by_outcome: self.by_outcome(operation, &last.seen),
            took: self
                .durations
                .get(&Operation { operation })
                .map_or_else(Distribution::default, |took| took.distribution()),
        };
        Snapshot {
            start: calls("start"),
            watch: calls("watch"),
            good: last.good,
            error: last.error,
            echoes: self.echoes.get(),
            secret: secret.snapshot(),
        }
    }

    /// The whole answers first, also where there was none.
    fn by_outcome(&self, operation: &'static str, seen: &[Call]) -> Counts {
        let others = seen
            .iter()
            .filter(|call| call.operation == operation && call.outcome != "ok")
            .map(|call| call.outcome);
        let count = |outcome| {
            let calls = self.requests.get(&Call { operation, outcome });
            (outcome, calls.map_or(0, |calls| calls.get()))
        };
        ["ok"].into_iter().chain(others).map(count).collect()
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "gateway_requests",
            "Calls to the gateway and how they ended",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "gateway_request_duration",
            "How long calls to the gateway took",
            telemetry::SECONDS,
            self.durations.clone(),
        );
        registry.register(
            "secret_echo",
            "Answers of the gateway that had the merchant secret in them",
            self.echoes.clone(),
        );
    }
}

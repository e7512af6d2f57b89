//! The steps to a connection: their names, their failures, and how long they take.

use std::fmt::{self, Display};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// In seconds: from a hosts file to a name server that times out.
const STEP_BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0,
];

/// The steps to a connection, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Dns,
    Tcp,
    Proxy,
    Tls,
}

impl Step {
    fn label(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
        }
    }

    /// The name that operators read.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dns => "DNS",
            Self::Tcp => "TCP",
            Self::Proxy => "proxy",
            Self::Tls => "TLS",
        }
    }
}

/// Why a connection could not be made.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) why: String,
    /// Whether the other side did not answer the ClientHello, so that a smaller one may get through.
    pub(super) is_unheard: bool,
}

impl Failure {
    pub(super) fn new(step: Step, why: impl Into<String>) -> Self {
        Self {
            step,
            why: why.into(),
            is_unheard: false,
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step.name(), self.why)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

/// A histogram of how long each step took, however it ended.
pub(super) struct Durations(Family<StepLabel, Histogram, fn() -> Histogram>);

impl Durations {
    /// Empty histograms, one for each step.
    pub(super) fn new() -> Self {
        let durations = Self(Family::new_with_constructor(|| {
            Histogram::new(STEP_BUCKETS)
        }));
        for step in [Step::Dns, Step::Tcp, Step::Proxy, Step::Tls] {
            drop(durations.0.get_or_create(&StepLabel { step: step.label() }));
        }
        durations
    }

    pub(super) fn observe(&self, step: Step, took: Duration) {
        let label = StepLabel { step: step.label() };
        self.0.get_or_create(&label).observe(took.as_secs_f64());
    }

    /// Registers them under this name, to which the unit is added.
    pub(super) fn register(&self, name: &str, registry: &mut Registry) {
        let help = "How long the steps to a connection took";
        registry.register_with_unit(name, help, Unit::Seconds, self.0.clone());
    }
}

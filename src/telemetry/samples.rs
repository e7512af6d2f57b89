//! What the registry holds at one moment, as numbers: for pages of our own, which show nothing that a scraper could not
//! know too.

use prometheus_client::registry::Registry;

/// Every sample of a registry at one moment.
pub(crate) struct Samples(String);

/// One line: `name{label="value",…} number`.
pub(crate) struct Sample<'a> {
    /// Name and labels, as they are printed.
    pub(crate) series: &'a str,
    /// The number, as it is printed.
    pub(crate) number: &'a str,
}

/// A distribution, as far as its buckets show it.
#[derive(Default)]
pub(crate) struct Histogram {
    /// Upper bounds, the last one infinite, and how many were at most so large.
    buckets: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

impl Samples {
    /// Those of now.
    pub(crate) fn of(registry: &Registry) -> Self {
        Self(super::openmetrics(registry).unwrap_or_default())
    }

    /// Those where this label has this value.
    pub(crate) fn only(&self, label: &str, value: &str) -> Self {
        let lines = self
            .iter()
            .filter(|sample| sample.label(label) == Some(value));
        Self(
            lines
                .map(|Sample { series, number }| format!("{series} {number}\n"))
                .collect(),
        )
    }

    /// One by one, in the order of the registry.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Sample<'_>> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, number)| Sample { series, number })
    }

    /// The sum over all labels; 0 where there is none yet.
    pub(crate) fn total(&self, name: &str) -> f64 {
        self.iter()
            .filter(|sample| sample.name() == name)
            .map(|sample| sample.value())
            .sum()
    }

    /// The sum for each value of this label: first these values, zeros included, then any others.
    pub(crate) fn by(&self, name: &str, label: &str, known: &[&str]) -> Vec<(String, f64)> {
        let mut sums: Vec<_> = known
            .iter()
            .map(|value| ((*value).to_owned(), 0.0))
            .collect();
        for sample in self.iter().filter(|sample| sample.name() == name) {
            let Some(value) = sample.label(label) else {
                continue;
            };
            match sums.iter_mut().find(|(known, _)| known == value) {
                Some((_, sum)) => *sum += sample.value(),
                None => sums.push((value.to_owned(), sample.value())),
            }
        }
        sums
    }

    /// The histogram of that name.
    pub(crate) fn histogram(&self, name: &str) -> Histogram {
        let mut histogram = Histogram::default();
        for sample in self.iter() {
            match sample.name().strip_prefix(name) {
                Some("_bucket") => {
                    let bound = sample
                        .label("le")
                        .and_then(|bound| bound.parse().ok())
                        .unwrap_or(f64::INFINITY);
                    histogram.buckets.push((bound, sample.value()));
                }
                Some("_sum") => histogram.sum = sample.value(),
                Some("_count") => histogram.count = sample.value(),
                _ => {}
            }
        }
        histogram
    }
}

impl<'a> Sample<'a> {
    /// The name alone.
    pub(crate) fn name(&self) -> &'a str {
        self.series.split('{').next().unwrap_or_default()
    }

    /// The value of a label. All of them come from closed sets, without a comma or a quote in any.
    fn label(&self, name: &str) -> Option<&'a str> {
        let labels = self.series.split_once('{')?.1.strip_suffix('}')?;
        let value = labels
            .split(',')
            .find_map(|label| label.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('"'))
    }

    fn value(&self) -> f64 {
        self.number.parse().unwrap_or_default()
    }
}

impl Histogram {
    /// Their mean; `None` when there were none.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// The value that this share of them does not exceed, taking those of one bucket as evenly spread; at most the last
    /// finite bound. `None` when there were none.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count;
        let (mut low, mut below) = (0.0, 0.0);
        for (high, up_to) in self.buckets.iter().copied() {
            if up_to >= rank && up_to > below {
                return Some(if high.is_finite() {
                    low + (high - low) * (rank - below) / (up_to - below)
                } else {
                    low
                });
            }
            (low, below) = (high, up_to);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# TYPE calls counter
calls_total{operation="start",outcome="ok"} 3
calls_total{operation="watch",outcome="ok"} 4
calls_total{operation="watch",outcome="timeout"} 1
took_bucket{le="0.1",operation="start"} 2
took_bucket{le="1.0",operation="start"} 3
took_bucket{le="+Inf",operation="start"} 4
took_sum{operation="start"} 6.0
took_count{operation="start"} 4
# EOF
"#;

    #[test]
    fn samples_are_summed_by_label() {
        let samples = Samples(TEXT.to_owned());
        assert_eq!(samples.total("calls_total"), 8.0);
        assert_eq!(samples.only("operation", "watch").total("calls_total"), 5.0);
        assert_eq!(samples.total("nothing"), 0.0);
        let by = samples.by("calls_total", "operation", &["events", "watch"]);
        assert_eq!(
            by,
            [
                ("events".to_owned(), 0.0),
                ("watch".to_owned(), 5.0),
                ("start".to_owned(), 3.0)
            ]
        );
    }

    #[test]
    fn quantiles_are_estimated_within_their_bucket() {
        let samples = Samples(TEXT.to_owned());
        let took = samples.only("operation", "start").histogram("took");
        assert_eq!(took.mean(), Some(1.5));
        assert_eq!(took.quantile(0.25), Some(0.05));
        assert_eq!(took.quantile(0.5), Some(0.1));
        assert_eq!(took.quantile(0.75), Some(1.0));
        assert_eq!(took.quantile(0.99), Some(1.0));
        let none = samples.only("operation", "watch").histogram("took");
        assert_eq!((none.mean(), none.quantile(0.5)), (None, None));
    }
}

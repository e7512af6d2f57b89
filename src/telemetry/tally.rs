//! Metrics with one label, which can also be read.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// A number for each word of a label.
pub(crate) type Counts = Vec<(&'static str, u64)>;

/// The metrics of a [`Tally`].
pub(crate) type Tallied<M> = Family<[(&'static str, &'static str); 1], M>;

/// A metric for each word of a label. Clones share them.
#[derive(Clone)]
pub(crate) struct Tally<M = Counter> {
    label: &'static str,
    metrics: Tallied<M>,
    /// Those that there are: first the known ones, then the others as they came.
    words: Arc<Mutex<Vec<&'static str>>>,
}

/// A metric that is a number.
pub(crate) trait Number: Clone + Default {
    fn number(&self) -> u64;
}

impl Number for Counter {
    fn number(&self) -> u64 {
        self.get()
    }
}

impl Number for Gauge {
    fn number(&self) -> u64 {
        u64::try_from(self.get()).unwrap_or_default()
    }
}

impl<M: Number> Tally<M> {
    /// Those of these words are there from the beginning: of a series that appears with its first event, that event is
    /// no increase.
    pub(crate) fn new(label: &'static str, known: &[&'static str]) -> Self {
        let tally = Self {
            label,
            metrics: Family::default(),
            words: Arc::default(),
        };
        for word in known {
            tally.of(word);
        }
        tally
    }

    /// The metric of that word.
    pub(crate) fn of(&self, word: &'static str) -> M {
        let label = [(self.label, word)];
        if let Some(metric) = self.metrics.get(&label) {
            return metric.clone();
        }
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if !words.contains(&word) {
            words.push(word);
        }
        self.metrics.get_or_create_owned(&label)
    }

    /// For the registry.
    pub(crate) fn metrics(&self) -> Tallied<M> {
        self.metrics.clone()
    }

    /// What they are now.
    pub(crate) fn counts(&self) -> Counts {
        let words = self
            .words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        words
            .into_iter()
            .map(|word| (word, self.of(word).number()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_are_there_from_the_beginning_and_others_follow_them() {
        let tally: Tally = Tally::new("outcome", &["accepted", "rejected"]);
        tally.clone().of("rejected").inc();
        tally.of("unknown").inc_by(2);
        assert_eq!(
            tally.counts(),
            [("accepted", 0), ("rejected", 1), ("unknown", 2)]
        );
    }
}

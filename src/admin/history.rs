//! The last hour: a few numbers of the rooms, kept every few seconds, and shown by the minute.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::snapshot::{self, Snapshot};
use crate::clock::Instant;
use crate::telemetry::Counts;

/// From one point to the next.
pub(super) const EVERY: Duration = Duration::from_secs(20);

/// Points that are kept: an hour of them.
const KEPT: usize = 180;

/// The minutes that are shown, the present one included.
pub(super) const MINUTES: usize = 60;

/// A number for each minute, the present one last; `None` where nothing is known.
pub(super) type Series = [Option<f64>; MINUTES];

/// What was, since the program began.
pub(super) struct History {
    began: Instant,
    points: Mutex<VecDeque<Point>>,
}

/// What is kept of one moment. All but the last two only ever grow.
#[derive(Clone, Copy)]
pub(super) struct Point {
    at: Instant,
    pub(super) starts: f64,
    pub(super) polls: f64,
    pub(super) polls_saved: f64,
    pub(super) refused: f64,
    pub(super) calls: f64,
    pub(super) call_seconds: f64,
    pub(super) open: f64,
    pub(super) waiting: f64,
}

/// The points of the last hour, each with its minute.
pub(super) struct Hour(Vec<(Option<usize>, Point)>);

impl Point {
    /// What the rooms said at that moment.
    pub(super) fn new(at: Instant, now: &Snapshot) -> Self {
        let (starts, watches) = (&now.gateway.start.took, &now.gateway.watch.took);
        Self {
            at,
            starts: sum_of(&now.start.by_outcome),
            polls: sum_of(&now.gateway.watch.by_outcome),
            polls_saved: now.watch.polls_saved as f64,
            refused: sum_of(&now.refused),
            calls: (starts.count + watches.count) as f64,
            call_seconds: starts.sum + watches.sum,
            open: now.store.open as f64,
            waiting: sum_of(&now.waiters),
        }
    }
}

fn sum_of(counts: &Counts) -> f64 {
    snapshot::sum(counts) as f64
}

impl History {
    /// Begins with this point.
    pub(super) fn new(first: Point) -> Self {
        Self {
            began: first.at,
            points: Mutex::new(VecDeque::from([first])),
        }
    }

    /// Keeps this point, and lets the oldest go.
    pub(super) fn keep(&self, point: Point) {
        let mut points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        points.truncate(KEPT - 1);
        points.push_front(point);
    }

    /// The hour up to this point.
    pub(super) fn hour(&self, now: Point) -> Hour {
        // Minutes of the program, not of the clock on the wall or before now: a point stays in its minute.
        let minute = |point: &Point| (point.at - self.began).as_secs() / 60;
        let present = minute(&now);
        let place = |point: &Point| {
            // A point may be kept between this one's being taken and the lock.
            let ago = usize::try_from(present.checked_sub(minute(point))?).ok()?;
            (MINUTES - 1).checked_sub(ago)
        };
        let points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        Hour(
            points
                .iter()
                .rev()
                .chain([&now])
                .map(|point| (place(point), *point))
                .collect(),
        )
    }
}

impl Hour {
    /// How much this has grown in each minute.
    pub(super) fn growth(&self, of: fn(&Point) -> f64) -> Series {
        let mut series = [None; MINUTES];
        for pair in self.0.windows(2) {
            if let [(Some(place), from), (_, to)] = pair {
                *series[*place].get_or_insert(0.0) += of(to) - of(from);
            }
        }
        series
    }

    /// What this was at the end of each minute.
    pub(super) fn level(&self, of: fn(&Point) -> f64) -> Series {
        let mut series = [None; MINUTES];
        for (place, point) in &self.0 {
            if let Some(place) = place {
                series[*place] = Some(of(point));
            }
        }
        series
    }

    /// The mean time of a gateway's call in each minute, in seconds; `None` where there was none.
    pub(super) fn latency(&self) -> Series {
        let (calls, seconds) = (
            self.growth(|point| point.calls),
            self.growth(|point| point.call_seconds),
        );
        let mut series = [None; MINUTES];
        for (mean, (calls, seconds)) in series.iter_mut().zip(calls.into_iter().zip(seconds)) {
            *mean = calls
                .zip(seconds)
                .filter(|(calls, _)| *calls > 0.0)
                .map(|(calls, seconds)| seconds / calls);
        }
        series
    }
}

/// All of a series together.
pub(super) fn sum(series: &Series) -> f64 {
    series.iter().flatten().sum()
}

/// The largest of a series; 0 where nothing is known.
pub(super) fn peak(series: &Series) -> f64 {
    series.iter().flatten().copied().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn point(at: Instant, starts: f64) -> Point {
        Point {
            starts,
            open: starts,
            ..Point::new(at, &Snapshot::default())
        }
    }

    #[test]
    fn at_the_beginning_only_the_present_minute_is_known() {
        let began = clock::now();
        let hour = History::new(point(began, 0.0)).hour(point(began + Duration::from_secs(1), 3.0));
        let starts = hour.growth(|point| point.starts);
        assert_eq!(starts[MINUTES - 1], Some(3.0));
        assert!(starts[..MINUTES - 1].iter().all(Option::is_none));
        assert!(
            hour.latency().iter().all(Option::is_none),
            "no call, no latency"
        );
    }

    #[test]
    fn what_was_in_a_minute_stays_in_it_for_an_hour() {
        let began = clock::now();
        let history = History::new(point(began, 0.0));
        // One start a second, for three hours.
        for i in 1..=540 {
            history.keep(point(began + EVERY * i, f64::from(i) * 20.0));
        }
        let end = began + EVERY * 540;
        for late in 0..20 {
            let hour = history.hour(point(end + Duration::from_secs(late), 10_800.0));
            let starts = hour.growth(|point| point.starts);
            assert_eq!(starts[..MINUTES - 1], [Some(60.0); MINUTES - 1]);
            assert_eq!(starts[MINUTES - 1], Some(0.0));
            assert_eq!(hour.level(|point| point.open)[MINUTES - 2], Some(10_780.0));
            assert_eq!((sum(&starts), peak(&starts)), (59.0 * 60.0, 60.0));
        }
    }
}

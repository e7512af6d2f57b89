//! The last hour at a glance: a number, what belongs to it, and its picture.

use maud::{Markup, Render, html};

use super::format::{age, count, latency, percent, plain, sentence};
use super::history::{Hour, Series, peak};
use super::plot;
use super::status::Status;

/// Six of them: they fill rows of one, two or three.
pub(super) fn all(status: &Status, hour: &Hour) -> [Figure; 6] {
    [
        starts(status, hour),
        polls(status, hour),
        latencies(status, hour),
        open(status, hour),
        waiting(status, hour),
        refused(status, hour),
    ]
}

fn starts(status: &Status, hour: &Hour) -> Figure {
    let series = hour.growth(|point| point.starts);
    Figure {
        title: "Starts",
        trouble: false,
        value: count(status.last_hour.starts),
        note: most("busiest", &series),
        picture: plot::bars("Starts in each minute", &[&series]),
    }
}

fn polls(status: &Status, hour: &Hour) -> Figure {
    let (made, saved) = (
        hour.growth(|point| point.polls),
        hour.growth(|point| point.polls_saved),
    );
    let last = &status.last_hour;
    let share = match last.polls_made + last.polls_saved {
        0 => "0".to_owned(),
        all => format!("{} saved", percent(last.polls_saved as f64 / all as f64)),
    };
    let [made_count, saved_count] = [last.polls_made, last.polls_saved].map(count);
    Figure {
        title: "Polls",
        trouble: false,
        value: share,
        note: html! {
            span.key.first { (made_count) " made" } " "
            span.key.second { (saved_count) " saved" }
        },
        picture: plot::bars("Polls made and saved in each minute", &[&made, &saved]),
    }
}

fn latencies(status: &Status, hour: &Hour) -> Figure {
    let series = hour.latency();
    let mean = status.last_hour.gateway_mean_seconds;
    let note = match mean {
        None => html! { "no calls in this hour" },
        Some(_) => sentence([
            format!("mean of {} calls", count(status.last_hour.gateway_calls)),
            format!("slowest minute {}", latency(peak(&series))),
        ]),
    };
    let ran = hour.growth(|point| point.calls);
    Figure {
        title: "Gateway latency",
        trouble: false,
        value: mean.map_or_else(|| "–".to_owned(), latency),
        note,
        picture: plot::line(
            "Mean time of a call to the gateway in each minute",
            &series,
            &ran,
        ),
    }
}

fn open(status: &Status, hour: &Hour) -> Figure {
    let payments = &status.payments;
    Figure {
        title: "Open payments",
        trouble: false,
        value: count(payments.open),
        note: match payments.oldest_open_seconds {
            Some(seconds) => html! { "oldest " (age(seconds)) },
            None => html! { "none at this moment" },
        },
        picture: plot::area(
            "Open payments at the end of each minute",
            &hour.level(|point| point.open),
        ),
    }
}

fn waiting(status: &Status, hour: &Hour) -> Figure {
    let kinds = status
        .waiters
        .0
        .iter()
        .map(|(kind, waiters)| format!("{} {}", plain(kind), count(*waiters)));
    Figure {
        title: "Callers who wait",
        trouble: false,
        value: count(status.waiters.sum()),
        note: sentence(kinds),
        picture: plot::area(
            "Callers who wait at the end of each minute",
            &hour.level(|point| point.waiting),
        ),
    }
}

fn refused(status: &Status, hour: &Hour) -> Figure {
    let series = hour.growth(|point| point.refused);
    Figure {
        title: "Refusals and errors",
        trouble: true,
        value: count(status.last_hour.refused),
        note: most("worst", &series),
        picture: plot::bars("Refusals and errors in each minute", &[&series]),
    }
}

fn most(word: &str, series: &Series) -> Markup {
    let peak = peak(series);
    html! {
        @if peak > 0.0 { (word) " minute " (peak) } @else { "none in this hour" }
    }
}

pub(super) struct Figure {
    title: &'static str,
    /// What it counts should not happen: it is drawn in another color.
    trouble: bool,
    value: String,
    note: Markup,
    picture: Markup,
}

impl Render for Figure {
    fn render(&self) -> Markup {
        html! {
            figure.cell.trouble[self.trouble] {
                h3 { (self.title) }
                p.value { (self.value) }
                p.note { (self.note) }
                (self.picture)
            }
        }
    }
}

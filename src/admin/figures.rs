//! The last hour at a glance: a number, what belongs to it, and its picture.

use super::format::{age, count, latency, percent, plain, sentence};
use super::history::{Hour, Series, peak};
use super::plot;
use super::status::Status;

/// Six of them: they fill rows of one, two or three.
pub(super) fn all(status: &Status, hour: &Hour) -> String {
    [
        starts(status, hour),
        polls(status, hour),
        latencies(status, hour),
        open(status, hour),
        waiting(status, hour),
        refused(status, hour),
    ]
    .concat()
}

fn starts(status: &Status, hour: &Hour) -> String {
    let series = hour.growth(|point| point.starts);
    Figure {
        title: "Starts",
        class: "",
        value: count(status.last_hour.starts),
        note: most("busiest", &series),
        picture: plot::bars("Starts in each minute", &[&series]),
    }
    .html()
}

fn polls(status: &Status, hour: &Hour) -> String {
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
        class: "",
        value: share,
        note: format!(
            r#"<span class="key first">{made_count} made</span> <span class="key second">{saved_count} saved</span>"#
        ),
        picture: plot::bars("Polls made and saved in each minute", &[&made, &saved]),
    }
    .html()
}

fn latencies(status: &Status, hour: &Hour) -> String {
    let series = hour.latency();
    let mean = status.last_hour.gateway_mean_seconds;
    let note = match mean {
        None => "no calls in this hour".to_owned(),
        Some(_) => sentence([
            format!("mean of {} calls", count(status.last_hour.gateway_calls)),
            format!("slowest minute {}", latency(peak(&series))),
        ]),
    };
    let ran = hour.growth(|point| point.calls);
    Figure {
        title: "Gateway latency",
        class: "",
        value: mean.map_or_else(|| "–".to_owned(), latency),
        note,
        picture: plot::line(
            "Mean time of a call to the gateway in each minute",
            &series,
            &ran,
        ),
    }
    .html()
}

fn open(status: &Status, hour: &Hour) -> String {
    let payments = &status.payments;
    let oldest = payments
        .oldest_open_seconds
        .map(|seconds| format!("oldest {}", age(seconds)));
    Figure {
        title: "Open payments",
        class: "",
        value: count(payments.open),
        note: oldest.unwrap_or_else(|| "none at this moment".to_owned()),
        picture: plot::area(
            "Open payments at the end of each minute",
            &hour.level(|point| point.open),
        ),
    }
    .html()
}

fn waiting(status: &Status, hour: &Hour) -> String {
    let kinds = status
        .waiters
        .0
        .iter()
        .map(|(kind, waiters)| format!("{} {}", plain(kind), count(*waiters)));
    Figure {
        title: "Callers who wait",
        class: "",
        value: count(status.waiters.sum()),
        note: sentence(kinds),
        picture: plot::area(
            "Callers who wait at the end of each minute",
            &hour.level(|point| point.waiting),
        ),
    }
    .html()
}

fn refused(status: &Status, hour: &Hour) -> String {
    let series = hour.growth(|point| point.refused);
    Figure {
        title: "Refusals and errors",
        class: " trouble",
        value: count(status.last_hour.refused),
        note: most("worst", &series),
        picture: plot::bars("Refusals and errors in each minute", &[&series]),
    }
    .html()
}

fn most(word: &str, series: &Series) -> String {
    let peak = peak(series);
    if peak > 0.0 {
        format!("{word} minute {peak}")
    } else {
        "none in this hour".to_owned()
    }
}

/// All of it is HTML.
struct Figure {
    title: &'static str,
    /// Beside that of every figure.
    class: &'static str,
    value: String,
    note: String,
    picture: String,
}

impl Figure {
    fn html(self) -> String {
        let Self {
            title,
            class,
            value,
            note,
            picture,
        } = self;
        format!(
            r#"<figure class="cell{class}">
<h3>{title}</h3>
<p class="value">{value}</p>
<p class="note">{note}</p>
{picture}
</figure>
"#
        )
    }
}

//! The counts one by one. Every function gives the rows of a table.

use maud::{Markup, Render, html};

use super::format::{age, count, latency, percent, plain};
use super::status::{Calls, Counts, Gateway, Kept, Payments, Polls, Starts, Status, Webhooks};

/// Open payments by age, each group with its share as a bar.
pub(super) fn ages(payments: &Payments) -> Markup {
    let groups = &payments.open_by_age;
    let lows = groups.iter().map(|group| group.under_seconds);
    html! {
        @for (low, group) in [None].into_iter().chain(lows).zip(groups) {
            @let share = group.count as f64 / payments.open.max(1) as f64 * 100.0;
            tr {
                th scope="row" { (ages_between(low, group.under_seconds)) }
                td {
                    svg.share viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" {
                        rect width=(format_args!("{share:.1}")) height="6" {}
                    }
                }
                (cell(group.count))
            }
        }
    }
}

fn ages_between(low: Option<u64>, high: Option<u64>) -> String {
    let [low, high] = [low, high].map(|seconds| seconds.map(|seconds| age(seconds as f64)));
    match (low, high) {
        (None, Some(high)) => format!("under {high}"),
        (Some(low), Some(high)) => format!("{low} to {high}"),
        (low, None) => format!("over {}", low.unwrap_or_default()),
    }
}

/// A row for each word.
pub(super) fn counts(counts: &Counts) -> Markup {
    html! {
        @for (word, number) in &counts.0 { (row(plain(word), cell(*number))) }
    }
}

/// Both operations side by side.
pub(super) fn calls(gateway: &Gateway) -> Markup {
    let both = [&gateway.start, &gateway.watch];
    let mut words: Vec<&str> = Vec::new();
    for (word, _) in both.iter().flat_map(|calls| &calls.by_outcome.0) {
        if !words.contains(word) {
            words.push(word);
        }
    }
    let time = |name: &str, of: fn(&Calls) -> Option<f64>| {
        row(name, html! { @for calls in both { (seconds(of(calls))) } })
    };
    html! {
        tr { td {} th scope="col" { "start" } th scope="col" { "watch" } }
        @for word in words {
            (row(plain(word), html! { @for calls in both { (cell(calls.by_outcome.get(word))) } }))
        }
        (time("mean", |calls| calls.mean_seconds))
        (time("p50, estimated", |calls| calls.p50_seconds))
        (time("p95, estimated", |calls| calls.p95_seconds))
    }
}

pub(super) fn polls(polls: &Polls) -> Markup {
    let share = polls.saved_share.map_or_else(|| "–".to_owned(), percent);
    html! {
        (row("made", cell(polls.made)))
        (row("saved", cell(polls.saved)))
        (row("share saved", html! { td { (share) } }))
    }
}

pub(super) fn starts(starts: &Starts) -> Markup {
    html! {
        (counts(&starts.by_outcome))
        (row("refused by start.rate", cell(starts.rate_limited)))
    }
}

/// Messages to the app.
pub(super) fn webhooks(webhooks: Option<&Webhooks>) -> Markup {
    html! {
        @if let Some(webhooks) = webhooks {
            (row("waiting to be taken", cell(webhooks.pending)))
            (row("the oldest, for", waits(webhooks.oldest_pending_seconds)))
            (counts(&webhooks.tries))
        } @else {
            (row("not configured", ""))
        }
    }
}

/// What the store keeps, and may keep.
pub(super) fn kept(store: &Kept) -> Markup {
    html! {
        (row("kept in memory, at most", html! { td { (mebibytes(store.bytes)) } }))
        (row(html! { code { "store.max_bytes" } }, html! { td { (mebibytes(store.bytes_limit)) } }))
    }
}

/// What is 0 while nothing is wrong.
pub(super) fn to_look_into(status: &Status) -> Markup {
    html! {
        (row("references paid twice", cell(status.payments.references_paid_twice)))
        (row("codes of other payments", cell(status.starts.codes_reused)))
        (row("echoes of the secret", cell(status.secret.echoes)))
        (row("lost lines of the log", cell(status.log_lines_lost)))
    }
}

/// The most frequent first, by the words that callers see.
pub(super) fn refused(refused: &Counts) -> Markup {
    let mut errors: Vec<_> = refused.0.iter().collect();
    errors.sort_by_key(|(word, number)| (std::cmp::Reverse(*number), word));
    html! {
        @if errors.is_empty() { (row("none", "")) }
        @for (word, number) in errors {
            (row(html! { code { (word) } }, cell(*number)))
        }
    }
}

fn row(name: impl Render, cells: impl Render) -> Markup {
    html! { tr { th scope="row" { (name) } (cells) } }
}

fn cell(number: u64) -> Markup {
    html! { td class=[(number == 0).then_some("zero")] { (count(number)) } }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn waits(seconds: Option<f64>) -> Markup {
    html! {
        @if let Some(seconds) = seconds { td { (age(seconds)) } } @else { td.zero { "–" } }
    }
}

fn seconds(seconds: Option<f64>) -> Markup {
    html! {
        @if let Some(seconds) = seconds { td { (latency(seconds)) } } @else { td.zero { "–" } }
    }
}

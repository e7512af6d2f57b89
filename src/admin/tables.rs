//! The counts one by one. Every function gives the rows of a table, as HTML.

use super::format::{age, count, latency, percent, plain};
use super::status::{AgeGroup, Calls, Counts, Gateway, Payments, Polls, Starts, Webhooks};
use crate::html::text;

/// Open payments by age, each group with its share as a bar.
pub(super) fn ages(payments: &Payments) -> String {
    let mut from = None;
    let mut rows = String::new();
    for AgeGroup {
        under_seconds,
        count: number,
    } in &payments.open_by_age
    {
        let [low, high] =
            [from, *under_seconds].map(|seconds| seconds.map(|seconds| age(seconds as f64)));
        let name = match (low, high) {
            (None, Some(high)) => format!("under {high}"),
            (Some(low), Some(high)) => format!("{low} to {high}"),
            (low, None) => format!("over {}", low.unwrap_or_default()),
        };
        let share = *number as f64 / payments.open.max(1) as f64 * 100.0;
        rows.push_str(&format!(
            r#"<tr><th scope="row">{name}</th><td><svg class="share" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect width="{share:.1}" height="6"/></svg></td>{}</tr>"#,
            cell(*number)
        ));
        from = *under_seconds;
    }
    rows
}

/// A row for each word.
pub(super) fn counts(counts: &Counts) -> String {
    counts
        .0
        .iter()
        .map(|(word, number)| row(&plain(word), &cell(*number)))
        .collect()
}

/// Both operations side by side.
pub(super) fn calls(gateway: &Gateway) -> String {
    let both = [&gateway.start, &gateway.watch];
    let mut words: Vec<&str> = Vec::new();
    for (word, _) in both.iter().flat_map(|calls| &calls.by_outcome.0) {
        if !words.contains(word) {
            words.push(word);
        }
    }
    let head =
        r#"<tr><td></td><th scope="col">start</th><th scope="col">watch</th></tr>"#.to_owned();
    let outcomes = words.into_iter().map(|word| {
        row(
            &plain(word),
            &both.map(|calls| cell(calls.by_outcome.get(word))).concat(),
        )
    });
    let time = |name: &str, of: fn(&Calls) -> Option<f64>| {
        row(name, &both.map(|calls| seconds(of(calls))).concat())
    };
    let times = [
        time("mean", |calls| calls.mean_seconds),
        time("p50, estimated", |calls| calls.p50_seconds),
        time("p95, estimated", |calls| calls.p95_seconds),
    ];
    [head].into_iter().chain(outcomes).chain(times).collect()
}

pub(super) fn polls(polls: &Polls) -> String {
    let share = polls.saved_share.map_or_else(|| "–".to_owned(), percent);
    [
        row("made", &cell(polls.made)),
        row("saved", &cell(polls.saved)),
        row("share saved", &format!("<td>{share}</td>")),
    ]
    .concat()
}

pub(super) fn starts(starts: &Starts) -> String {
    counts(&starts.by_outcome) + &row("refused by start.rate", &cell(starts.rate_limited))
}

/// Messages to the app.
pub(super) fn webhooks(webhooks: Option<&Webhooks>) -> String {
    match webhooks {
        None => row("not configured", ""),
        Some(Webhooks { pending, tries }) => {
            row("waiting to be taken", &cell(*pending)) + &counts(tries)
        }
    }
}

/// The most frequent first, by the words that callers see.
pub(super) fn refused(refused: &Counts) -> String {
    if refused.0.is_empty() {
        return row("none", "");
    }
    let mut errors: Vec<_> = refused.0.iter().collect();
    errors.sort_by_key(|(word, number)| (std::cmp::Reverse(*number), word));
    let rows = errors.into_iter().map(|(word, number)| {
        format!(
            r#"<tr><th scope="row"><code>{}</code></th>{}</tr>"#,
            text(word),
            cell(*number)
        )
    });
    rows.collect()
}

fn row(name: &str, cells: &str) -> String {
    format!(r#"<tr><th scope="row">{}</th>{cells}</tr>"#, text(name))
}

fn cell(number: u64) -> String {
    let class = if number == 0 { r#" class="zero""# } else { "" };
    format!("<td{class}>{}</td>", count(number))
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(
        || r#"<td class="zero">–</td>"#.to_owned(),
        |seconds| format!("<td>{}</td>", latency(seconds)),
    )
}

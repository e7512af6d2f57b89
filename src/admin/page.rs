//! The operator's page: the content of `/status`, for people. One file without a script; it asks for itself again unless
//! asked not to.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::format::{age, ago, count};
use super::history::Hour;
use super::status::{Check, Gateway, Secret, Status};
use super::{figures, tables};
use crate::hardening::Hardening;

const STYLE: &str = include_str!("page.css");

/// This page's own style, by its hash, and its icon: nothing else is loaded, whatever may stand in it by mistake.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    #[expect(
        clippy::expect_used,
        reason = "base64 has no character that a header may not have"
    )]
    HeaderValue::from_str(&policy).expect("a header's value")
});

/// After how many seconds the page asks for itself again.
pub(super) const REFRESH: u16 = 5;
/// The query of the page that does not, for who reads it slowly.
pub(super) const STILL: &str = "refresh=off";

/// The page. `refreshes`: it is sent with a `Refresh` header.
pub(super) fn html(status: &Status, hour: &Hour, refreshes: bool) -> String {
    let (state, color) = if status.ready {
        ("Ready", "0f766e")
    } else {
        ("Not ready", "c2372e")
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (state) " · tillgate" }
                link rel="icon" href=(icon(color));
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "tillgate " span.quiet { (status.version) } }
                    @if refreshes {
                        p.quiet { "Refreshes every " (REFRESH) " s. " a href={ "/?" (STILL) } { "Stop" } }
                    } @else {
                        p.quiet { a href="/" { "Refresh every " (REFRESH) " s" } }
                    }
                }
                main {
                    section.cells.four aria-label="State" { (states(status, state)) }
                    section aria-labelledby="hour" {
                        (head("hour", "Last hour", "by the minute, now on the right"))
                        div.cells.three { @for figure in figures::all(status, hour) { (figure) } }
                    }
                    section aria-labelledby="counts" {
                        (head("counts", "In detail", "counters are since the start"))
                        div.columns { (details(status)) }
                    }
                }
                footer {
                    nav aria-label="The same for programs" {
                        a href="/status" { "/status" } " " a href="/metrics" { "/metrics" } " "
                        a href="/readyz?verbose" { "/readyz" }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn icon(color: &str) -> String {
    format!(
        "data:image/svg+xml,\
        %3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
        %3Crect width='16' height='16' rx='4' fill='%23{color}'/%3E\
        %3Cpath d='M3.5 10.5h2.3l1.6-5 2 6 1.2-3h1.9' fill='none' stroke='%23fff' stroke-width='1.5' stroke-linecap='round' stroke-linejoin='round'/%3E\
        %3C/svg%3E"
    )
}

fn head(id: &str, title: &str, note: &str) -> Markup {
    html! { div.head { h2 id=(id) { (title) } p.quiet { (note) } } }
}

/// The cells of the first row. `ready` is the word for the readiness.
fn states(status: &Status, ready: &str) -> Markup {
    let (gateway, secret) = (&status.gateway, &status.secret);
    let (answers, answers_class) = gateway_state(gateway);
    let (held, held_class) = if secret.loaded_at.is_some() {
        ("Held", "good")
    } else {
        ("Missing", "bad")
    };
    let ready_class = if status.ready { "good" } else { "bad" };
    let checks = status.checks.iter().map(check);
    html! {
        (cell("Readiness", ready, ready_class, checks))
        (cell("Gateway", answers, answers_class, gateway_notes(gateway)))
        (cell("Secret", held, held_class, secret_notes(secret, status.hardening)))
        div.cell {
            h2 { "Uptime" }
            p.state { (age(status.uptime_seconds as f64)) }
            p.note { "since " time datetime=(status.started_at) { (minute(&status.started_at)) } }
        }
    }
}

fn cell(title: &str, state: &str, class: &str, notes: impl IntoIterator<Item = String>) -> Markup {
    html! {
        div.cell {
            h2 { (title) }
            p.state.(class) { (state) }
            @for note in notes { p.note { (note) } }
        }
    }
}

/// The columns of tables.
fn details(status: &Status) -> Markup {
    let payments = &status.payments;
    html! {
        div {
            div.card { h3 { "Open payments by age" } table.ages { (tables::ages(payments)) } }
            div.card { h3 { "Watch codes in memory" } table { (tables::counts(&payments.tracked_by_status)) } }
            div.card { h3 { "Store" } table { (tables::kept(&status.store)) } }
        }
        div {
            div.card { h3 { "Calls to the gateway" } table.two { (tables::calls(&status.gateway)) } }
            div.card { h3 { "Polls" } table { (tables::polls(&status.polls)) } }
            div.card { h3 { "Webhooks" } table { (tables::webhooks(status.webhooks.as_ref())) } }
        }
        div {
            div.card { h3 { "Starts" } table { (tables::starts(&status.starts)) } }
            div.card { h3 { "Refusals and errors" } table { (tables::refused(&status.refused)) } }
            div.card { h3 { "To look into" } table { (tables::to_look_into(status)) } }
            @if let Some(fleet) = &status.fleet {
                div.card { h3 { "Replicas" } table { (fleet.table()) } }
            }
        }
    }
}

fn check(check: &Check) -> String {
    match (check.name, check.ok) {
        // This one is named after what must not be.
        ("draining", true) => "not draining".to_owned(),
        ("draining", false) => "draining".to_owned(),
        (name, true) => format!("{name} ok"),
        (name, false) => format!("{name} not ready"),
    }
}

/// Judged by its last answer: the gateway is never asked for this.
fn gateway_state(gateway: &Gateway) -> (&'static str, &'static str) {
    match (
        gateway.last_good_answer_age_seconds,
        gateway.last_error_age_seconds,
    ) {
        (None, None) => ("Not asked yet", "idle"),
        (Some(good), error) if error.is_none_or(|error| good <= error) => ("Answering", "good"),
        _ => ("Failing", "bad"),
    }
}

fn gateway_notes(gateway: &Gateway) -> Vec<String> {
    let good = gateway
        .last_good_answer_age_seconds
        .map(|seconds| format!("last answer {}", ago(seconds)));
    let error = gateway.last_error.zip(gateway.last_error_age_seconds);
    let error = error.map(|(word, seconds)| format!("last error {word}, {}", ago(seconds)));
    vec![
        good.unwrap_or_else(|| "no answer yet".to_owned()),
        error.unwrap_or_else(|| "no error yet".to_owned()),
    ]
}

fn secret_notes(secret: &Secret, hardening: Hardening) -> Vec<String> {
    let loaded = secret
        .age_seconds
        .map(|seconds| format!("loaded {}", ago(seconds as f64)));
    let failures = match secret.reload_failures {
        0 => "no reload failures".to_owned(),
        1 => "1 reload failure".to_owned(),
        many => format!("{} reload failures", count(many)),
    };
    let echoes = (secret.echoes > 0)
        .then(|| format!("echoed by the gateway {} times", count(secret.echoes)));
    let memory = match hardening.not_dumpable {
        true => "memory closed to other programs",
        false => "memory open to other programs of its user",
    };
    loaded
        .into_iter()
        .chain([failures])
        .chain(echoes)
        .chain([memory.to_owned()])
        .collect()
}

/// `2026-11-23 18:45 UTC`, of a timestamp.
fn minute(timestamp: &str) -> String {
    format!(
        "{} UTC",
        timestamp.get(..16).unwrap_or(timestamp).replace('T', " ")
    )
}

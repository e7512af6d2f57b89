//! The operator's page: the content of `/status`, for people. One file without a script; it asks for itself again.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use sha2::{Digest, Sha256};

use super::format::{age, ago, count};
use super::history::Hour;
use super::status::{Check, Gateway, Secret, Status};
use super::{figures, tables};
use crate::hardening::Hardening;
use crate::html::text;

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

/// The page.
pub(super) fn html(status: &Status, hour: &Hour) -> String {
    let (state, ready_class, icon) = if status.ready {
        ("Ready", "good", "%230f766e")
    } else {
        ("Not ready", "bad", "%23c2372e")
    };
    let (gateway_state, gateway_class) = gateway_state(&status.gateway);
    let (secret_state, secret_class) = if status.secret.loaded_at.is_some() {
        ("Held", "good")
    } else {
        ("Missing", "bad")
    };
    format!(
        include_str!("page.html"),
        style = STYLE,
        icon = icon,
        version = text(status.version),
        state = state,
        ready_class = ready_class,
        checks = lines(status.checks.iter().map(check)),
        gateway_state = gateway_state,
        gateway_class = gateway_class,
        gateway_notes = lines(gateway_notes(&status.gateway)),
        secret_state = secret_state,
        secret_class = secret_class,
        secret_notes = lines(secret_notes(&status.secret, status.hardening)),
        uptime = age(status.uptime_seconds as f64),
        started_at = text(&status.started_at),
        started_minute = text(&minute(&status.started_at)),
        figures = figures::all(status, hour),
        ages = tables::ages(&status.payments),
        tracked = tables::counts(&status.payments.tracked_by_status),
        calls = tables::calls(&status.gateway),
        polls = tables::polls(&status.polls),
        starts = tables::starts(&status.starts),
        webhooks = tables::webhooks(status.webhooks.as_ref()),
        refused = tables::refused(&status.refused),
    )
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

fn lines(notes: impl IntoIterator<Item = String>) -> String {
    notes
        .into_iter()
        .map(|note| format!("<p class=\"note\">{}</p>\n", text(&note)))
        .collect()
}

/// `2026-11-23 18:45 UTC`, of a timestamp.
fn minute(timestamp: &str) -> String {
    format!(
        "{} UTC",
        timestamp.get(..16).unwrap_or(timestamp).replace('T', " ")
    )
}

//! What a caller sends, for the programs in `tests/fuzz`: not a part of tillgate.

use super::Config;
use super::redirect::{Allowed, Config as RedirectConfig};
use super::request::{Bounds, Request};

/// A start that would be sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// Its amount.
    pub amount: u64,
    /// Where the payer returns to.
    pub redirect: Option<String>,
    /// The further fields, each as the JSON that the gateway gets.
    pub extra: Vec<(String, String)>,
    /// The app's own name of what is paid for.
    pub reference: Option<String>,
    /// Of its meaning.
    pub fingerprint: [u8; 16],
}

/// Reads the body of a start: amounts up to `max_amount`, this field forwarded, these redirects allowed.
///
/// # Errors
/// Why it is not sent.
pub fn request(
    body: &[u8],
    max_amount: u64,
    forwarded: &str,
    allowed: &[&str],
) -> Result<Start, String> {
    let mut config = Config {
        max_amount,
        ..Config::default()
    };
    config
        .forward_fields
        .extend(serde_json::from_value(forwarded.into()));
    let request = Request::parse(body, &Bounds::new(&config, redirects(allowed)));
    let request = request.map_err(|why| why.to_string())?;
    Ok(Start {
        amount: request.amount.value(),
        redirect: request.redirect.as_ref().map(ToString::to_string),
        extra: request
            .extra
            .iter()
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect(),
        reference: request.reference.as_ref().map(ToString::to_string),
        fingerprint: request.meaning().fingerprint.0,
    })
}

/// Reads a redirect, where these are allowed.
///
/// # Errors
/// What is wrong with it.
pub fn redirect(text: &str, allowed: &[&str]) -> Result<String, &'static str> {
    redirects(allowed).parse(text).map(Into::into)
}

fn redirects(allowed: &[&str]) -> Allowed {
    let allowed = allowed
        .iter()
        .filter_map(|prefix| prefix.parse().ok())
        .collect();
    Allowed::new(
        &RedirectConfig {
            allowed,
            default: None,
        },
        false,
    )
}

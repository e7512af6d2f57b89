//! What a caller sends to start a payment.

use url::Url;

use super::config::{Config, OWN, SECRET};
use super::redirect::Allowed;
use crate::json::{self, Json, Object};
use crate::payment::{Amount, Fingerprint};

/// A start as it may be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Within bounds.
    pub(crate) amount: Amount,
    /// Allowed, and as it was read: not as it was written. `None`: the default, whatever that is by the time.
    pub(crate) redirect: Option<Url>,
    /// Fields that the operator forwards.
    pub(crate) extra: Object,
}

/// Why it may not; the text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    /// Not one JSON object.
    #[error("The body must be one JSON object, like {{\"amount\": 1000}}: {0}.")]
    InvalidJson(&'static str),
    /// The caller sent the secret.
    #[error(
        "Leave merchant_secret out: tillgate adds it. If it is the real one, consider it leaked to this app."
    )]
    SecretNotAccepted,
    /// A field that nobody asked for; its name may be anything, so it is not repeated.
    #[error(
        "A start has the fields amount and redirect, and those of start.forward_fields{0}; there is another one."
    )]
    UnknownField(String),
    /// Not an integer, or out of bounds.
    #[error(
        "amount must be an integer from {min} to {max} (start.min_amount, start.max_amount), written like 1000."
    )]
    InvalidAmount {
        /// Smallest.
        min: Amount,
        /// Largest.
        max: Amount,
    },
    /// Not an allowed URL.
    #[error("{0}")]
    RedirectNotAllowed(&'static str),
}

/// The bounds of a start.
pub(crate) struct Bounds {
    /// Smallest amount.
    pub(crate) min: Amount,
    /// Largest amount.
    pub(crate) max: Amount,
    /// Names of fields that are passed on.
    pub(crate) forward: Vec<String>,
    pub(super) allowed: Allowed,
}

impl Bounds {
    pub(super) fn new(config: &Config, allowed: Allowed) -> Self {
        Self {
            min: Amount::new(config.min_amount),
            max: Amount::new(config.max_amount),
            forward: config
                .forward_fields
                .iter()
                .map(|name| name.0.clone())
                .collect(),
            allowed,
        }
    }
}

impl Request {
    /// Of its meaning: the same for the same start, however it was written.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let redirect = self
            .redirect
            .as_ref()
            .map_or(Json::null(), |url| Json::Text(url.to_string()));
        let amount = Json::Literal(self.amount.to_string().into());
        let meaning = vec![
            amount,
            redirect,
            Json::Object(self.extra.clone()).canonical(),
        ];
        json::fingerprint(&Json::Array(meaning).to_string())
    }

    /// Checks in the order of the contract; the first fault is reported.
    pub(super) fn parse(body: &[u8], bounds: &Bounds) -> Result<Self, BadRequest> {
        let object = json::parse_object(body).map_err(BadRequest::InvalidJson)?;
        if json::get(&object, SECRET).is_some() {
            return Err(BadRequest::SecretNotAccepted);
        }
        let forwarded = |name: &String| bounds.forward.contains(name);
        if object
            .iter()
            .any(|(name, _)| !OWN.contains(&name.as_str()) && !forwarded(name))
        {
            let names = bounds.forward.join(", ");
            let names = if names.is_empty() {
                String::new()
            } else {
                format!(" ({names})")
            };
            return Err(BadRequest::UnknownField(names));
        }
        let amount = match json::get(&object, "amount") {
            Some(Json::Literal(literal)) => Amount::parse(literal),
            _ => None,
        };
        let amount = amount
            .filter(|amount| (bounds.min..=bounds.max).contains(amount))
            .ok_or(BadRequest::InvalidAmount {
                min: bounds.min,
                max: bounds.max,
            })?;
        let redirect = match json::get(&object, "redirect").filter(|redirect| !redirect.is_null()) {
            None => None,
            Some(Json::Text(text)) => {
                let url = bounds
                    .allowed
                    .parse(text)
                    .map_err(BadRequest::RedirectNotAllowed)?;
                (bounds.allowed.default_url() != Some(&url)).then_some(url)
            }
            Some(_) => {
                return Err(BadRequest::RedirectNotAllowed(
                    "redirect must be a URL as text, or null.",
                ));
            }
        };
        let extra = object
            .into_iter()
            .filter(|(name, _)| forwarded(name))
            .collect();
        Ok(Self {
            amount,
            redirect,
            extra,
        })
    }
}

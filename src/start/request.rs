//! What a caller sends to start a payment.

use std::borrow::Cow;

use url::Url;

use super::config::{Config, OWN, SECRET};
use super::quoted::Quoted;
use super::redirect::Allowed;
use crate::json::{self, Json, NotAnObject, Object};
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
    InvalidJson(Cow<'static, str>),
    /// The same, because of this name.
    #[error(
        "The body must be one JSON object, like {{\"amount\": 1000}}: the key {0} occurs twice in one object."
    )]
    RepeatedKey(Quoted),
    /// The caller sent the secret.
    #[error(
        "Leave merchant_secret out: tillgate adds it. If it is the real one, consider it leaked to this app."
    )]
    SecretNotAccepted,
    /// A field that nobody asked for.
    #[error(
        "A start has no field {name}: it has amount and redirect, and those of start.forward_fields{forwarded}."
    )]
    UnknownField {
        /// Its name.
        name: Quoted,
        /// Those that there are.
        forwarded: String,
    },
    /// Not an integer, or out of bounds.
    #[error(
        "amount is {}: it must be an integer from {min} to {max} (start.min_amount, start.max_amount), written like 1000.",
        .found.as_ref().map_or("missing".to_owned(), ToString::to_string)
    )]
    InvalidAmount {
        /// What it is instead.
        found: Option<Quoted>,
        /// Smallest.
        min: Amount,
        /// Largest.
        max: Amount,
    },
    /// Not an allowed URL.
    #[error("redirect is {found}: {why}.")]
    RedirectNotAllowed {
        /// What it is.
        found: Quoted,
        /// What it must be.
        why: &'static str,
    },
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

impl BadRequest {
    /// The same with this done to everything that it repeats of the request.
    pub(super) fn scrubbed(mut self, scrub: impl Fn(String) -> String) -> Self {
        match &mut self {
            Self::RepeatedKey(quoted)
            | Self::UnknownField { name: quoted, .. }
            | Self::InvalidAmount {
                found: Some(quoted),
                ..
            }
            | Self::RedirectNotAllowed { found: quoted, .. } => quoted.scrub(scrub),
            Self::InvalidJson(_)
            | Self::SecretNotAccepted
            | Self::InvalidAmount { found: None, .. } => {}
        }
        self
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
        let object = json::parse_object(body).map_err(|error| match error {
            NotAnObject::Malformed(what) => BadRequest::InvalidJson(what),
            NotAnObject::Repeated(name) => BadRequest::RepeatedKey(Quoted::text(name)),
        })?;
        if json::get(&object, SECRET).is_some() {
            return Err(BadRequest::SecretNotAccepted);
        }
        let forwarded = |name: &String| bounds.forward.contains(name);
        if let Some((name, _)) = object
            .iter()
            .find(|(name, _)| !OWN.contains(&name.as_str()) && !forwarded(name))
        {
            let names = bounds.forward.join(", ");
            let names = if names.is_empty() {
                String::new()
            } else {
                format!(" ({names})")
            };
            return Err(BadRequest::UnknownField {
                name: Quoted::text(name.clone()),
                forwarded: names,
            });
        }
        let found = json::get(&object, "amount");
        let amount = match found {
            Some(Json::Literal(literal)) => Amount::parse(literal),
            _ => None,
        };
        let amount = amount
            .filter(|amount| (bounds.min..=bounds.max).contains(amount))
            .ok_or_else(|| BadRequest::InvalidAmount {
                found: found.map(Quoted::new),
                min: bounds.min,
                max: bounds.max,
            })?;
        let redirect =
            match json::get(&object, "redirect").filter(|redirect| !redirect.is_null()) {
                None => None,
                Some(Json::Text(text)) => {
                    let url = bounds.allowed.parse(text).map_err(|why| {
                        BadRequest::RedirectNotAllowed {
                            found: Quoted::text(text.clone()),
                            why,
                        }
                    })?;
                    (bounds.allowed.default_url() != Some(&url)).then_some(url)
                }
                Some(other) => {
                    return Err(BadRequest::RedirectNotAllowed {
                        found: Quoted::new(other),
                        why: "it must be a URL as text, or null",
                    });
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

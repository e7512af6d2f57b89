//! What a caller sends to start a payment.

use std::borrow::Cow;

use url::Url;

use super::config::{Config, OWN, SECRET};
use super::quoted::Quoted;
use super::redirect::Allowed;
use crate::json::{self, Json, NotAnObject, Object};
use crate::payment::{Amount, Fields, Meaning, Reference};

/// A start as it may be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Within bounds.
    pub(crate) amount: Amount,
    /// Allowed, and as it was read: not as it was written. `None`: the default, whatever that is by the time.
    pub(crate) redirect: Option<Url>,
    /// Fields that the operator forwards.
    pub(crate) extra: Object,
    /// The app's own name of what is paid for.
    pub(crate) reference: Option<Reference>,
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
        "A start has no field {name}: it has amount, redirect and reference, and those of start.forward_fields{forwarded}."
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
    /// Not the app's own name of anything.
    #[error(
        "reference is {0}: it must be 1 to 128 printable ASCII characters as text, or an integer, and not what a program sends that has none, like undefined or order-null."
    )]
    InvalidReference(Quoted),
    /// Neither a key nor a reference, where one is required.
    #[error(
        "Send a reference, like {{\"amount\": 1000, \"reference\": \"7\"}}, or an Idempotency-Key: start.require_idempotency is true."
    )]
    IdempotencyRequired,
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
    /// A start must have a key or a reference.
    pub(super) require_idempotency: bool,
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
            require_idempotency: config.require_idempotency,
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
            | Self::RedirectNotAllowed { found: quoted, .. }
            | Self::InvalidReference(quoted) => quoted.scrub(scrub),
            Self::InvalidJson(_)
            | Self::IdempotencyRequired
            | Self::SecretNotAccepted
            | Self::InvalidAmount { found: None, .. } => {}
        }
        self
    }
}

impl Request {
    /// Returns what is asked for.
    pub(super) fn meaning(&self) -> Meaning {
        let text = |text: String| Json::Text(text);
        let redirect = self.redirect.as_ref().map(ToString::to_string);
        let reference = self.reference.as_ref().map(ToString::to_string);
        let amount = Json::Literal(self.amount.to_string().into());
        let fields = Json::Object(self.extra.clone()).canonical();
        let of = |parts: Vec<Json>| json::fingerprint(&Json::Array(parts).to_string());
        Meaning {
            amount: self.amount,
            fields: if self.extra.is_empty() {
                Fields::None
            } else {
                Fields::Some(of(vec![fields.clone()]))
            },
            reference: self.reference.clone(),
            older: of(vec![
                amount.clone(),
                redirect.map_or(Json::null(), text),
                fields.clone(),
            ]),
            // Of four, so that it is no older one.
            fingerprint: of(vec![
                amount,
                fields,
                reference.map_or(Json::null(), text),
                Json::null(),
            ]),
        }
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
        let redirect = read_redirect(&object, bounds)?;
        let reference = present(&object, "reference")
            .map(|named| {
                read_reference(named)
                    .ok_or_else(|| BadRequest::InvalidReference(Quoted::new(named)))
            })
            .transpose()?;
        let extra = object
            .into_iter()
            .filter(|(name, _)| forwarded(name))
            .collect();
        Ok(Self {
            amount,
            redirect,
            extra,
            reference,
        })
    }
}

/// Returns a field that is there and not null.
fn present<'a>(object: &'a Object, name: &str) -> Option<&'a Json> {
    json::get(object, name).filter(|value| !value.is_null())
}

/// Reads the redirect; `None` if it is the default.
fn read_redirect(object: &Object, bounds: &Bounds) -> Result<Option<Url>, BadRequest> {
    let refused = |found, why| BadRequest::RedirectNotAllowed { found, why };
    match present(object, "redirect") {
        None => Ok(None),
        Some(Json::Text(text)) => {
            let url = bounds.allowed.parse(text);
            let url = url.map_err(|why| refused(Quoted::text(text.clone()), why))?;
            Ok((bounds.allowed.default_url() != Some(&url)).then_some(url))
        }
        Some(other) => Err(refused(
            Quoted::new(other),
            "it must be a URL as text, or null",
        )),
    }
}

/// Reads the text of a reference, or the digits of an integer.
fn read_reference(named: &Json) -> Option<Reference> {
    match named {
        Json::Text(text) => text.parse().ok(),
        Json::Literal(literal) => {
            let digits = literal.strip_prefix('-').unwrap_or(literal);
            let is_integer = digits.bytes().all(|byte| byte.is_ascii_digit()) && &**literal != "-0";
            literal.parse().ok().filter(|_| is_integer)
        }
        _ => None,
    }
}

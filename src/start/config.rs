//! `[start]`

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::clock;
use crate::limit::Rate;

/// The fields that this program knows.
pub(super) const OWN: [&str; 4] = ["amount", "redirect", "reference", SECRET];
/// Those of them that cannot be forwarded as they come. A reference can.
const NEVER_FORWARDED: [&str; 3] = ["amount", "redirect", SECRET];
/// The field of the secret in a request to the gateway.
pub(super) const SECRET: &str = "merchant_secret";

/// `[start]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Starts per second.
    pub(crate) rate: Rate,
    /// Starts at once.
    pub(crate) burst: NonZeroU32,
    /// The longest that a start waits for its turn. Zero: it is refused at once.
    #[serde(with = "clock::text_or_zero")]
    pub(crate) queue_for: Duration,
    /// Smallest amount.
    pub(crate) min_amount: u64,
    /// Largest amount.
    pub(crate) max_amount: u64,
    /// Names of further request fields that are passed on to the gateway.
    pub(crate) forward_fields: Vec<FieldName>,
    /// How long an answer is kept under its key, and a finished payment in the list.
    #[serde(with = "clock::text")]
    pub(crate) idempotency_ttl: Duration,
    /// A start must have a key or a reference.
    pub(crate) require_idempotency: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rate: Rate(10.0),
            #[expect(clippy::unwrap_used, reason = "20 is not zero")]
            burst: NonZeroU32::new(20).unwrap(),
            queue_for: Duration::from_secs(2),
            min_amount: 1,
            // The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
            max_amount: (1 << 53) - 1,
            forward_fields: Vec::new(),
            idempotency_ttl: Duration::from_secs(24 * 3600),
            require_idempotency: false,
        }
    }
}

/// The name of a field to forward.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FieldName(pub(super) String);

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.is_empty() {
            return Err(de::Error::custom("an empty name"));
        }
        if NEVER_FORWARDED.contains(&&*folded(&name)) {
            return Err(de::Error::custom(format!(
                "{name:?} cannot be forwarded: tillgate itself decides about it"
            )));
        }
        Ok(Self(name))
    }
}

/// Returns the name without differences of case, as JSON readers compare names that ignore case: to those of Go
/// `merchant_ſecret` is `merchant_secret`.
fn folded(name: &str) -> String {
    name.to_uppercase().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_tillgate_decides_about_is_not_forwarded_in_any_case() {
        let read = |name: &str| serde_json::from_value::<FieldName>(name.into());
        for name in [
            "amount",
            "Redirect",
            "Merchant_Secret",
            "MERCHANT_SECRET",
            "merchant_\u{17f}ecret",
        ] {
            assert!(read(name).is_err(), "{name}");
        }
        for name in ["note", "reference", "merchant", "Amounts"] {
            assert!(read(name).is_ok(), "{name}");
        }
    }
}

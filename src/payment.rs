//! The types of payments. Their values are valid by construction.

mod decimal;

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;

pub(crate) use self::decimal::Decimal;

/// An amount in the unit of the gateway. This program knows no currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(u64);

impl Amount {
    /// Parses a JSON integer without sign, fraction and exponent, which every reader takes for the same number.
    pub(crate) fn parse(literal: &str) -> Option<Self> {
        literal
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| literal.parse().ok().map(Self))?
    }

    /// Returns the number.
    pub(crate) fn value(self) -> u64 {
        self.0
    }

    /// An amount of `value`.
    pub(crate) fn new(value: u64) -> Self {
        Self(value)
    }
}

impl Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The public code of a payment, with which anyone can pay it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Code(Box<str>);

/// The code with which the status of a payment is read. Clones share the text, because several maps hold it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WatchCode(Arc<str>);

/// A malformed code or key. A code has 1 to 256 of the unreserved characters of RFC 3986, `A-Z a-z 0-9 - . _ ~`, and is not
/// a dot segment.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Parses a code for use in a path: these characters need no escaping, and cannot leave the path segment.
fn parse_code<T: for<'a> From<&'a str>>(text: &str) -> Result<T, Malformed> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let well_formed = (1..=256).contains(&text.len())
        && text.bytes().all(unreserved)
        && text != "."
        && text != "..";
    if well_formed {
        Ok(text.into())
    } else {
        Err(Malformed)
    }
}

impl FromStr for Code {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        parse_code(text).map(Self)
    }
}

impl FromStr for WatchCode {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        parse_code(text).map(Self)
    }
}

impl Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Display for WatchCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key with which a caller can repeat a start without a second payment: 1 to 255 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    const MAX: usize = 255;

    /// Parses a key in the form that `Display` writes.
    pub(crate) fn stored(text: &str) -> Option<Self> {
        let well_formed = (1..=Self::MAX).contains(&text.len())
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        well_formed.then(|| Self(text.into()))
    }
}

impl FromStr for IdempotencyKey {
    type Err = Malformed;

    /// Parses a quoted string (RFC 9651, section 4.2.5), as draft-ietf-httpapi-idempotency-key-header wants, or the text
    /// without quotes. Both are the same key.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut key = String::with_capacity(text.len());
        match text.strip_prefix('"') {
            None => key.push_str(text),
            Some(rest) => {
                let mut rest = rest.strip_suffix('"').ok_or(Malformed)?.chars();
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => key.push(
                            rest.next()
                                .filter(|c| matches!(c, '"' | '\\'))
                                .ok_or(Malformed)?,
                        ),
                        '"' => return Err(Malformed),
                        c => key.push(c),
                    }
                }
            }
        }
        Self::stored(&key).ok_or(Malformed)
    }
}

impl Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The status of a payment at the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Started, and not paid yet.
    Created,
    /// Paid. The only final status.
    Completed,
    /// A status that is not in the guide. It is passed on, and never final.
    Other(Box<str>),
}

impl Status {
    /// All labels.
    pub(crate) const LABELS: [&'static str; 3] = ["created", "completed", "other"];

    /// Returns whether the status is final: the gateway is not asked again, and not believed if it reports another one.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Completed)
    }

    /// Returns a label from a closed set, for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Completed => "completed",
            Self::Other(_) => "other",
        }
    }
}

impl From<&str> for Status {
    fn from(text: &str) -> Self {
        match text {
            "created" => Self::Created,
            "completed" => Self::Completed,
            other => Self::Other(other.into()),
        }
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Completed => "completed",
            Self::Other(other) => other,
        })
    }
}

/// A payment that this program has started.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    /// The code of the pay page.
    pub(crate) code: Code,
    /// The code of the status.
    pub(crate) watch_code: WatchCode,
    /// The amount of the start.
    pub(crate) amount: Amount,
}

/// One answer of the gateway about a payment.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The only field that this program acts on.
    pub(crate) status: Status,
    /// The whole object of the gateway, unknown fields included, as canonical JSON: equal values are equal bytes.
    pub(crate) body: Box<str>,
    /// The hash of `body`.
    pub(crate) fingerprint: Fingerprint,
}

/// A hash of canonical JSON: equal for equal values, also in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(pub(crate) [u8; 16]);

impl Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_plain_integers() {
        assert_eq!(
            Amount::parse("1000")
                .map(|amount| amount.to_string())
                .as_deref(),
            Some("1000")
        );
        for literal in [
            "-0",
            "-1",
            "1.0",
            "1e3",
            "true",
            "null",
            "18446744073709551616",
            "",
        ] {
            assert!(Amount::parse(literal).is_none(), "{literal}");
        }
    }

    #[test]
    fn keys_are_read_in_quotes_and_without() {
        let read = |text: &str| {
            text.parse::<IdempotencyKey>()
                .ok()
                .map(|key| key.to_string())
        };
        assert_eq!(read("order-1"), read("\"order-1\""));
        assert_eq!(read(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        assert_eq!(read(&"k".repeat(255)).map(|key| key.len()), Some(255));
        for text in [
            "",
            "\"\"",
            "\"open",
            "\"a\"b\"",
            r#""a\x""#,
            r#""a\""#,
            "\"a\";b=1",
            "é",
            "a\tb",
            &"k".repeat(256),
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn codes_cannot_leave_their_path_segment() {
        for text in [
            "",
            ".",
            "..",
            "a/b",
            "a%2fb",
            "a b",
            "a?b",
            "é",
            "a\n",
            &"a".repeat(257),
        ] {
            assert!(text.parse::<WatchCode>().is_err(), "{text}");
        }
        assert!("aZ09-._~".parse::<Code>().is_ok());
    }
}

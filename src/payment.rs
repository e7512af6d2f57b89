//! The words: what a payment is made of. Wrong values of these types do not exist.

mod decimal;

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;

pub(crate) use self::decimal::Decimal;

/// An amount in the gateway's unit, passed through: this program knows no currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(u64);

impl Amount {
    /// Reads an integer literal as JSON has it: no sign, fraction or exponent, nothing that another reader could
    /// take for another number.
    pub(crate) fn parse(literal: &str) -> Option<Self> {
        literal
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| literal.parse().ok().map(Self))?
    }

    /// The number.
    pub(crate) fn value(self) -> u64 {
        self.0
    }

    /// The amount `value`.
    pub(crate) fn new(value: u64) -> Self {
        Self(value)
    }
}

impl Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The public code of a payment: whoever has it can pay it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Code(Box<str>);

/// The code that a payment's status is asked with. Clones share the text: it stands in several places for each payment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WatchCode(Arc<str>);

/// Not 1 to 256 of `A-Z a-z 0-9 - . _ ~` (RFC 3986's unreserved), or a dot segment.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Both codes stand in paths that we build. With these characters there is nothing to escape, and no way out of the
/// segment.
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

/// The name that a caller gives to a start, to be able to ask for it again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    const MAX: usize = 255;

    /// A key that was read before, as `Display` gives it.
    pub(crate) fn stored(text: &str) -> Option<Self> {
        let well_formed = (1..=Self::MAX).contains(&text.len())
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        well_formed.then(|| Self(text.into()))
    }
}

impl FromStr for IdempotencyKey {
    type Err = Malformed;

    /// A string in quotes (RFC 9651, section 4.2.5), as draft-ietf-httpapi-idempotency-key-header has it, or its text
    /// alone: both name the same.
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

/// What the gateway says of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Pending.
    Created,
    /// Paid: the one final status.
    Completed,
    /// One that the guide does not know: passed on, never final.
    Other(Box<str>),
}

impl Status {
    /// Final: the gateway is never asked again, and never believed if it takes it back.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Completed)
    }

    /// From a closed set, for metrics.
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

/// A payment that was started here.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    /// For the pay page.
    pub(crate) code: Code,
    /// For its status.
    pub(crate) watch_code: WatchCode,
    /// As it was asked for.
    pub(crate) amount: Amount,
}

/// One answer of the gateway about a payment.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The one field that this program acts on.
    pub(crate) status: Status,
    /// The gateway's whole object, fields that we do not know included, as canonical JSON: equal in meaning is equal
    /// in bytes.
    pub(crate) body: Box<str>,
    /// A hash of the body.
    pub(crate) fingerprint: Fingerprint,
}

/// Distinguishes one meaning from another: the same for the same meaning in whatever run of whatever process.
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

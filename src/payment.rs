//! The types of payments. Their values are valid by construction.

mod decimal;
#[cfg(test)]
mod tests;

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
pub(crate) struct Code(Arc<str>);

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

/// Returns as much of a code as a log may have: enough to tell payments apart, not enough to pay or watch one.
fn shortened(code: &str) -> String {
    format!("{}…", &code[..code.len().min(16) / 2])
}

impl Code {
    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns its beginning, for the log.
    pub(crate) fn shortened(&self) -> String {
        shortened(&self.0)
    }
}

impl FromStr for Code {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        parse_code(text).map(Self)
    }
}

impl WatchCode {
    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns its beginning, for the log.
    pub(crate) fn shortened(&self) -> String {
        shortened(&self.0)
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

    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a key in the form that `Display` writes.
    pub(crate) fn stored(text: &str) -> Option<Self> {
        is_name(text, Self::MAX).then(|| Self(text.into()))
    }

    /// Returns whether it is what a broken program sends for a name that it does not have. A store may hold such a key of
    /// an older version.
    pub(crate) fn is_placeholder(&self) -> bool {
        is_placeholder(&self.0)
    }
}

/// Returns whether this is 1 to `max` printable ASCII characters.
fn is_name(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Returns whether this is what a broken program sends for a name that it does not have: it would give one customer's
/// payment to the next.
fn is_placeholder(text: &str) -> bool {
    const WORDS: [&str; 5] = ["undefined", "null", "None", "NaN", "[object Object]"];
    const SEPARATORS: [char; 5] = ['-', '_', ':', '/', '.'];
    let last = text.rsplit(SEPARATORS).next().unwrap_or(text);
    let has_no_value = text.ends_with(SEPARATORS)
        && text.len() <= 16
        && !text.contains(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase());
    WORDS.contains(&last) || has_no_value
}

/// The app's own name of what is paid for, like an order's number: 1 to 128 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reference(Arc<str>);

impl Reference {
    const MAX: usize = 128;

    /// Returns the text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a reference in the form that `Display` writes.
    pub(crate) fn stored(text: &str) -> Option<Self> {
        is_name(text, Self::MAX).then(|| Self(text.into()))
    }
}

impl FromStr for Reference {
    type Err = Malformed;

    /// Parses what a caller sends.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::stored(text)
            .filter(|reference| !is_placeholder(&reference.0))
            .ok_or(Malformed)
    }
}

impl Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
    /// The further fields that the start forwarded.
    pub(crate) fields: Fields,
    /// The app's own name of it, and the gateway's answer to its start, which is given again under that name.
    pub(crate) referenced: Option<(Reference, Arc<str>)>,
}

impl Payment {
    /// Returns the app's own name of it.
    pub(crate) fn reference(&self) -> Option<&Reference> {
        self.referenced.as_ref().map(|(reference, _)| reference)
    }
}

/// The further fields that a start forwarded to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// Not known: an older version kept the payment.
    Unknown,
    /// There were none.
    None,
    /// These, by their meaning.
    Some(Fingerprint),
}

impl Fields {
    /// Returns whether both starts forwarded the same fields, at least one; where one is not known they count as the same.
    pub(crate) fn name_the_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Unknown, _) | (_, Self::Unknown) => true,
            (Self::Some(one), Self::Some(other)) => one == other,
            _ => false,
        }
    }
}

/// What a start asks for: the same for the same start, however it is written. The redirect is no part of it, as the
/// gateway never sees it.
#[derive(Clone, Debug)]
pub(crate) struct Meaning {
    pub(crate) amount: Amount,
    pub(crate) fields: Fields,
    pub(crate) reference: Option<Reference>,
    /// Of all of these.
    pub(crate) fingerprint: Fingerprint,
    /// Of amount, redirect and fields: what older versions kept with an answer.
    pub(crate) older: Fingerprint,
}

/// What was kept of the meaning of an answered start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// [`Meaning::fingerprint`]
    Now(Fingerprint),
    /// [`Meaning::older`]
    Older(Fingerprint),
}

impl Meaning {
    /// Returns whether that start asked for the same.
    pub(crate) fn is(&self, asked: Asked) -> bool {
        match asked {
            Asked::Now(fingerprint) => self.fingerprint == fingerprint,
            Asked::Older(fingerprint) => self.older == fingerprint,
        }
    }
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

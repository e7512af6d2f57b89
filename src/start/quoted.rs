//! What an error repeats of a request.

use std::fmt::{self, Display};

use crate::json::Json;

/// The longest that a value is repeated, in characters.
const MAX: usize = 64;

/// A value of the caller's. `Display` shortens it, and escapes what is not printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Quoted {
    /// A text.
    Text(String),
    /// What is written without quotes.
    Bare(String),
}

impl Quoted {
    /// Any value: of an array or an object its kind alone.
    pub(super) fn new(value: &Json) -> Self {
        match value {
            Json::Text(text) => Self::Text(text.clone()),
            Json::Literal(literal) => Self::Bare(literal.to_string()),
            Json::Array(_) => Self::Bare("an array".to_owned()),
            Json::Object(_) => Self::Bare("an object".to_owned()),
        }
    }

    /// A text.
    pub(crate) fn text(text: String) -> Self {
        Self::Text(text)
    }

    /// Changes the whole value, before it is shortened: a part of what `scrub` looks for may not be found any more.
    pub(super) fn scrub(&mut self, scrub: impl Fn(String) -> String) {
        let (Self::Text(value) | Self::Bare(value)) = self;
        *value = scrub(std::mem::take(value));
    }
}

impl Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Text(value) | Self::Bare(value)) = self;
        let (short, rest) = match value.char_indices().nth(MAX) {
            Some((end, _)) => (&value[..end], "\u{2026}"),
            None => (&**value, ""),
        };
        match self {
            Self::Text(_) => write!(f, "{short:?}{rest}"),
            Self::Bare(_) => write!(f, "{short}{rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_repeated_in_one_short_line() {
        let quoted = |text: &str| Quoted::text(text.to_owned()).to_string();
        assert_eq!(
            quoted("a\"b\n\u{7f}\u{9b}\u{202e}\u{2028}"),
            r#""a\"b\n\u{7f}\u{9b}\u{202e}\u{2028}""#
        );
        assert_eq!(
            quoted(&"\u{e9}".repeat(64)),
            format!("\"{}\"", "\u{e9}".repeat(64))
        );
        assert_eq!(
            quoted(&"\u{e9}".repeat(65)),
            format!("\"{}\"\u{2026}", "\u{e9}".repeat(64))
        );
        assert_eq!(Quoted::new(&Json::Literal("1e3".into())).to_string(), "1e3");
        assert_eq!(
            Quoted::new(&Json::Array(Vec::new())).to_string(),
            "an array"
        );
    }

    #[test]
    fn a_value_is_scrubbed_before_it_is_shortened() {
        let mut quoted = Quoted::text(format!("{}secret", "-".repeat(61)));
        quoted.scrub(|text| text.replace("secret", "[x]"));
        assert_eq!(quoted.to_string(), format!("\"{}[x]\"", "-".repeat(61)));
    }
}

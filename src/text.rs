//! Text in the configuration, where `""` means unset, and text from outside.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer, de};

/// Serializes an `Option` for `#[serde(with = "text")]`: `None` is the empty text.
pub(crate) fn serialize<T: Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_str(""),
    }
}

/// Deserializes an `Option` for `#[serde(with = "text")]`: the empty text is `None`.
pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(de::Error::custom)
}

/// For `#[serde(with = "text::required")]`: a value that is never unset. An empty text in the configuration leaves the key
/// at its default, and does not come here.
pub(crate) mod required {
    use super::{Deserialize, Deserializer, Display, FromStr, Serializer, de};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// For `#[serde(with = "text::one_or_more")]`: a value, or a list of at least one.
pub(crate) mod one_or_more {
    use std::marker::PhantomData;

    use serde::de::{SeqAccess, Visitor};

    use super::{Deserializer, Display, FromStr, Serializer, de};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        values: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match values {
            [one] => serializer.collect_str(one),
            several => serializer.collect_seq(several.iter().map(ToString::to_string)),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        deserializer.deserialize_any(Values(PhantomData))
    }

    struct Values<T>(PhantomData<T>);

    impl<'de, T: FromStr<Err: Display>> Visitor<'de> for Values<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a text, or a list of texts that is not empty")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            Ok(vec![text.parse().map_err(E::custom)?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(text) = texts.next_element::<String>()? {
                values.push(text.parse().map_err(de::Error::custom)?);
            }
            if values.is_empty() {
                return Err(de::Error::invalid_length(0, &self));
            }
            Ok(values)
        }
    }
}

/// Makes text from outside fit for a log or a terminal: drops control characters, and those that change the direction or
/// the lines of the text around them.
pub(crate) fn printable(text: &str) -> impl Iterator<Item = char> {
    let is_printable = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(is_printable)
}

/// A path in the configuration, which is printed as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePath(pub(crate) std::path::PathBuf);

impl FilePath {
    /// Returns whether the text may be the content that was meant to be in the file: it looks like a webhook key, or is long
    /// and has neither a slash nor a dot, and there is no such file. Logs must not repeat it then.
    pub(crate) fn could_be_a_secret(&self) -> bool {
        let text = self.to_string();
        let looks_like_one =
            text.len() >= 20 && !text.contains(['/', '.']) || text.starts_with("whsec_");
        looks_like_one && !self.0.exists()
    }
}

impl Display for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}

impl FromStr for FilePath {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

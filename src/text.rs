//! Optional values in configuration: `""` means unset, there and nowhere else.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serializer, de};

/// For `#[serde(with = "text")]` on an `Option`: the empty text is `None`.
pub(crate) fn serialize<T: Display, S: Serializer>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_str(""),
    }
}

/// The other direction of [`serialize`].
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

/// For `#[serde(with = "text::required")]`: a value that is never unset. Where the text is empty the default counts, by
/// the loading of the configuration.
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

/// What others wrote, as a line of the log or a terminal bears it: without control characters, and without those that
/// change the direction or the lines of the text around them.
pub(crate) fn printable(text: &str) -> impl Iterator<Item = char> {
    let is_printable = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(is_printable)
}

/// A path as configuration holds it: text, so that it can be printed as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePath(pub(crate) std::path::PathBuf);

impl FilePath {
    /// A key for webhooks; or long, and neither a path nor the name of a file that is there: what was meant to be in the
    /// file may have been put in the place of its path, and logs would repeat it until that file comes.
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

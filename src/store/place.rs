//! Where a store is, as its URL says.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// `store.url`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `memory:`
    Memory,
    /// `file:` and a directory.
    Directory(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Directory(directory) => write!(f, "file:{}", directory.display()),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        // Both file:/path and file:///path are this machine's (RFC 8089).
        let path = rest.strip_prefix("//").unwrap_or(rest);
        match (scheme, path) {
            ("memory", "") => Ok(Self::Memory),
            ("memory", _) => Err("nothing comes after memory:".to_owned()),
            ("file", path) if path.starts_with('/') => Ok(Self::Directory(path.into())),
            ("file", _) => Err("file: is followed by the absolute path of a directory".to_owned()),
            (other, _) => Err(format!(
                "there is no store of the kind {other:?}: use \"memory:\" or \"file:/var/lib/tillgate\""
            )),
        }
    }
}

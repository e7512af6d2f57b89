//! Where a store is, as its URL says.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::fleet::{DatabaseUrl, FORM};

/// `store.url`
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// `memory:`
    Memory,
    /// `file:` and a directory.
    Directory(PathBuf),
    /// `postgres:`, which replicas share. Its text has no password.
    Fleet(Box<DatabaseUrl>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Directory(directory) => write!(f, "file:{}", directory.display()),
            Self::Fleet(url) => url.fmt(f),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    /// The error quotes nothing that may be a part of a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').unwrap_or((text, ""));
        // Both file:/path and file:///path are this machine's (RFC 8089).
        let path = rest.strip_prefix("//").unwrap_or(rest);
        match (scheme, path) {
            ("memory", "") => Ok(Self::Memory),
            ("memory", _) => Err("nothing comes after memory:".to_owned()),
            ("file", path) if path.starts_with('/') => Ok(Self::Directory(path.into())),
            ("file", _) => Err("file: is followed by the absolute path of a directory".to_owned()),
            ("postgres" | "postgresql", _) => text.parse().map(|url| Self::Fleet(Box::new(url))),
            (other, _) => Err(format!(
                "{}: use \"memory:\", \"file:/var/lib/tillgate\" or \"{FORM}\"",
                unknown(other)
            )),
        }
    }
}

/// Says that there is no store of this kind, without its name where that is none: it may be a password.
fn unknown(kind: &str) -> String {
    let is_scheme = kind.len() <= 20 && kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '+');
    match is_scheme {
        true => format!("there is no store of the kind {kind:?}"),
        false => "it begins with no kind of store".to_owned(),
    }
}

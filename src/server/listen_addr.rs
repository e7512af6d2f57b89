//! The ways in for the app: an address, a socket in the file system, or a socket that was passed to us.

use std::fmt::{self, Display};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Address, socket_file};

/// `localhost:8700` and what else [`Address`] has, `unix:/run/tillgate/api.sock`, or `fd:3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenAddr {
    Tcp(Address),
    /// A path that a socket can have.
    Unix(PathBuf),
    /// The number that a socket has in this process, which was started with it.
    Inherited(RawFd),
}

/// Those below are stdin, stdout and stderr.
const FIRST_INHERITED: RawFd = 3;

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return match socket_file::unfit(&path) {
                None => Ok(Self::Unix(path)),
                Some(why) => Err(format!(
                    "{text:?} {why}: write it like \"unix:/run/tillgate/api.sock\""
                )),
            };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            let number = number
                .parse()
                .ok()
                .filter(|number| *number >= FIRST_INHERITED);
            return number.map(Self::Inherited).ok_or_else(|| {
                format!("{text:?} is no socket that can be passed: the first is \"fd:{FIRST_INHERITED}\"")
            });
        }
        let address = text.parse().map_err(|why: String| {
            format!("{why}; or \"unix:/run/tillgate/api.sock\", or \"fd:3\" with socket activation")
        });
        address.map(Self::Tcp)
    }
}

impl ListenAddr {
    /// Whether only one of both can be listened at.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(this), Self::Tcp(other)) => this.overlaps(*other),
            (Self::Unix(this), Self::Unix(other)) => socket_file::is_same(this, other),
            _ => self == other,
        }
    }
}

impl Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inherited(number) => write!(f, "fd:{number}"),
        }
    }
}

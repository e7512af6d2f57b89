//! Where payers may be sent back to: exact origins, optionally with a path prefix.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use crate::text;

/// How often a path may be percent-encoded over itself.
const MAX_DECODINGS: usize = 4;

/// `[redirect]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// Where payers may be sent.
    pub(crate) allowed: Vec<Prefix>,
    /// Where they are sent when a start names no place.
    #[serde(with = "text")]
    pub(crate) default: Option<Target>,
}

/// The redirects that a start may name.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    prefixes: Vec<Url>,
    default: Option<Url>,
    /// Any port of this machine: for `dev`.
    loopback: bool,
}

impl Allowed {
    /// What the configuration allows: also the origin of its default.
    pub(crate) fn new(config: &Config, loopback: bool) -> Self {
        let default = config.default.as_ref().map(|target| target.0.clone());
        let mut prefixes: Vec<Url> = config
            .allowed
            .iter()
            .map(|prefix| prefix.0.clone())
            .collect();
        prefixes.extend(default.as_ref().and_then(|url| url.join("/").ok()));
        Self {
            prefixes,
            default,
            loopback,
        }
    }

    pub(super) fn default_url(&self) -> Option<&Url> {
        self.default.as_ref()
    }

    /// Reads a redirect, and compares what was read: two readers of one text must not differ.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(&self, text: &str) -> Result<Url, &'static str> {
        let url = parse_url(text)?;
        let is_loopback = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        let is_below =
            |prefix: &&Url| prefix.origin() == url.origin() && is_below(url.path(), prefix.path());
        let is_plain = |prefix: &Url| prefix.path() == "/" || is_read_alike(url.path());
        let mut prefixes = self.prefixes.iter().filter(is_below).peekable();
        if (self.loopback && is_loopback) || prefixes.clone().any(is_plain) {
            Ok(url)
        } else if prefixes.peek().is_some() {
            Err(
                "its path has dots or slashes in it that are encoded, or dots before a \";\", which servers read in different ways",
            )
        } else {
            Err(
                "it is not allowed: add its origin (scheme, host and port) to redirect.allowed in the configuration",
            )
        }
    }
}

/// By whole segments: `/back` has `/back` and `/back/1` below it, not `/backdoor`.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether each server takes the path for the same segments, none of which leads upwards. Some decode slashes before they
/// resolve dot segments, some decode twice, some drop `;` and what follows it, or a space at the end.
fn is_read_alike(path: &str) -> bool {
    let mut decoded = path.to_owned();
    for _ in 0..MAX_DECODINGS {
        match percent_decode_str(&decoded).decode_utf8() {
            // An overlong form of a dot or a slash is no UTF-8.
            Err(_) => return false,
            Ok(Cow::Borrowed(_)) => return is_plain(path, &decoded),
            Ok(Cow::Owned(again)) => decoded = again,
        }
    }
    false
}

/// Whether the decoded path has no more segments than the path, and none of dots alone.
fn is_plain(path: &str, decoded: &str) -> bool {
    let is_dots = |segment: &str| {
        let name = segment.split(';').next().unwrap_or_default();
        let name = name.trim_matches(|c: char| c.is_whitespace() || c.is_control());
        name.starts_with('.') && name.bytes().all(|byte| byte == b'.')
    };
    let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    !decoded.contains('\\') && slashes(path) == slashes(decoded) && !decoded.split('/').any(is_dots)
}

/// An absolute http(s) URL without anything that browsers and servers read in different ways.
fn parse_url(text: &str) -> Result<Url, &'static str> {
    const NO_URL: &str = "it must be an absolute http(s) URL, like \"https://shop.example/thanks\"";
    if text.is_empty() {
        return Err(NO_URL);
    }
    // A URL parser would drop or replace these in silence.
    if text
        .chars()
        .any(|c| c == '\\' || c.is_whitespace() || c.is_control())
    {
        return Err("it must not have a backslash, white space or control characters in it");
    }
    // It would also forgive `https:shop.example` and `https:///shop.example`.
    let rest = text.split_once("://").filter(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    });
    let Some((_, rest)) = rest.filter(|(_, rest)| !rest.starts_with('/')) else {
        return Err(NO_URL);
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("it must not have a user name or password in it");
    }
    Url::parse(text).ok().filter(Url::has_host).ok_or(NO_URL)
}

/// An origin, optionally with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(Url);

/// A whole URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target(Url);

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_origin = || {
            format!(
                "{text:?} is not an origin like \"https://shop.example\", optionally with a path"
            )
        };
        let url = parse_url(text).map_err(|_| no_origin())?;
        // No patterns: a star would be taken for a part of the name, and never fit.
        if url.query().is_some() || url.fragment().is_some() || text.contains('*') {
            return Err(no_origin());
        }
        Ok(Self(url))
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_url(text)
            .map(Self)
            .map_err(|_| format!("{text:?} is not an absolute http(s) URL"))
    }
}

impl Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(prefixes: &[&str]) -> Allowed {
        let config = Config {
            allowed: prefixes
                .iter()
                .map(|prefix| prefix.parse().unwrap())
                .collect(),
            default: None,
        };
        Allowed::new(&config, false)
    }

    #[test]
    fn a_path_prefix_holds_by_whole_segments_after_dots_are_resolved() {
        let allowed = allowed(&["https://shop.example/back"]);
        for good in [
            "https://shop.example/back",
            "https://SHOP.example:443/back/1?a=b#c",
            "https://shop.example/x/../back/",
            "https://shop.example/back/100%25/.well-known/a..b;c=1/%E2%82%AC",
            "https://shop.example/back/%20/?a=..%2F..;/#/..;/",
        ] {
            assert!(allowed.parse(good).is_ok(), "{good}");
        }
        for bad in [
            "https://shop.example/backdoor",
            "https://shop.example/back/../admin",
            "https://shop.example/back/%2e%2e/admin",
            "https://shop.example/back/..%2Fadmin",
            "https://shop.example/back/..%5cadmin",
            "https://shop.example/back/..;/admin",
            "https://shop.example/back/..;a=1/admin",
            "https://shop.example/back/.;/..;/admin",
            "https://shop.example/back/%2e%2e;/admin",
            "https://shop.example/back/..%3b/admin",
            "https://shop.example/back/...%2e/admin",
            "https://shop.example/back/..%20/admin",
            "https://shop.example/back/..%00/admin",
            "https://shop.example/back/..%252fadmin",
            "https://shop.example/back/%252e%252e/admin",
            "https://shop.example/back/%25252e%25252E%25252fadmin",
            "https://shop.example/back/%25252525252525252e./admin",
            "https://shop.example/back/%c0%ae%c0%ae/admin",
            "https://shop.example/back/..;",
            "https://shop.example.evil/back",
            "https://shop.example:444/back",
            "http://shop.example/back",
        ] {
            assert!(allowed.parse(bad).is_err(), "{bad}");
        }
        // Without a path there is nothing to get out of.
        let origin = self::allowed(&["https://shop.example"]);
        assert!(origin.parse("https://shop.example/back/..;/a%2Fb").is_ok());
    }

    #[test]
    fn what_browsers_and_servers_read_differently_is_no_redirect() {
        let allowed = allowed(&["https://shop.example"]);
        for bad in [
            "",
            "//shop.example",
            "/thanks",
            "https:shop.example",
            "https:/shop.example",
            "https:///shop.example",
            "https:\\\\shop.example",
            "https://evil.example\\@shop.example",
            "https://user@shop.example",
            "https://@shop.example",
            "https://shop.example/a b",
            "https://shop.exa\tmple",
            " https://shop.example",
            "https://shop.example/\u{0}",
            "javascript://shop.example/%0aalert(1)",
            "https://",
        ] {
            assert!(allowed.parse(bad).is_err(), "{bad:?}");
        }
    }
}

//! Where payers may be sent back to: exact origins, optionally with a path prefix.

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use crate::text;

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
        let fits =
            |prefix: &Url| prefix.origin() == url.origin() && has_prefix(url.path(), prefix.path());
        if (self.loopback && is_loopback) || self.prefixes.iter().any(fits) {
            Ok(url)
        } else {
            Err(
                "it is not allowed: add its origin (scheme, host and port) to redirect.allowed in the configuration",
            )
        }
    }
}

/// By whole segments: `/back` has `/back` and `/back/1` in it, not `/backdoor`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    // Some servers decode these before they resolve dot segments.
    let path_lower = path.to_ascii_lowercase();
    if !prefix.is_empty() && (path_lower.contains("%2f") || path_lower.contains("%5c")) {
        return false;
    }
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
        ] {
            assert!(allowed.parse(good).is_ok(), "{good}");
        }
        for bad in [
            "https://shop.example/backdoor",
            "https://shop.example/back/../admin",
            "https://shop.example/back/%2e%2e/admin",
            "https://shop.example/back/..%2Fadmin",
            "https://shop.example/back/..%5cadmin",
            "https://shop.example.evil/back",
            "https://shop.example:444/back",
            "http://shop.example/back",
        ] {
            assert!(allowed.parse(bad).is_err(), "{bad}");
        }
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

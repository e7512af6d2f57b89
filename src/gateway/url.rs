//! The gateway's address.

use std::fmt::{self, Display};
use std::str::FromStr;

use url::{Host, Url};

/// An http(s) URL without query, fragment and credentials, and without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    url: Url,
    uri: hyper::Uri,
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The parser accepts `https:/pay.example` and `https:///pay.example`, which are typing mistakes.
        if text
            .split_once("://")
            .is_none_or(|(_, rest)| rest.starts_with('/'))
        {
            return Err("this is not an http(s) URL".to_owned());
        }
        let url = Url::parse(text).map_err(|error| format!("this is not a URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err("this is not an http(s) URL".to_owned());
        }
        // These parts may be credentials, so the error does not repeat them.
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL has a user name or password in it".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(
                "the URL has a query or a fragment: give the base alone, the paths are added to it"
                    .to_owned(),
            );
        }
        let uri = url
            .as_str()
            .parse()
            .map_err(|_| "the URL has characters that no request can have")?;
        Ok(Self { url, uri })
    }
}

impl Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl BaseUrl {
    /// Returns whether requests can be read on the way: plain http to another machine.
    pub(super) fn is_exposed(&self) -> bool {
        let loopback = match self.url.host() {
            // Not the names below localhost, which the resolver may take anywhere.
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
            None => false,
        };
        self.url.scheme() == "http" && !loopback
    }

    /// Returns the URL in the type of requests.
    pub(crate) fn uri(&self) -> &hyper::Uri {
        &self.uri
    }

    /// Returns whether the scheme is https.
    pub(super) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }
}

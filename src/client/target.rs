//! The other end of a connection: a host, a port, and whether it speaks TLS.

use std::net::IpAddr;

use hyper::Uri;
use hyper::header::HeaderValue;
use rustls::pki_types::ServerName;

/// Where a client connects to. One client has one target.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The host of the URL, without the brackets of an IPv6 address. It keeps a trailing dot, which stops the resolver from
    /// trying search domains.
    host: String,
    port: u16,
    /// The name in the certificate; `None` for plain http.
    server_name: Option<ServerName<'static>>,
    /// The value of the Host field: without a trailing dot, and without the default port of the scheme.
    authority: HeaderValue,
}

impl Target {
    /// The target of an absolute http(s) URL.
    ///
    /// # Errors
    /// Fails if the URL has no host, or one that no certificate can be for.
    pub(crate) fn new(uri: &Uri) -> Result<Self, String> {
        let host = uri.host().ok_or("the URL has no host")?;
        let bare = host.strip_suffix('.').unwrap_or(host);
        let is_tls = uri.scheme_str() == Some("https");
        let own_port = if is_tls { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(own_port);
        let authority = if port == own_port {
            bare.to_owned()
        } else {
            format!("{bare}:{port}")
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let server_name = match is_tls {
            true => Some(
                ServerName::try_from(bare.trim_matches(['[', ']']).to_owned())
                    .map_err(|_| format!("{bare} is no name that a certificate can be for"))?,
            ),
            false => None,
        };
        let authority = HeaderValue::try_from(authority)
            .map_err(|_| "the host has characters that no request can have")?;
        Ok(Self {
            host,
            port,
            server_name,
            authority,
        })
    }

    /// Returns the host, for a lookup.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the name that the certificate must be for; `None` for plain http.
    pub(super) fn server_name(&self) -> Option<&ServerName<'static>> {
        self.server_name.as_ref()
    }

    /// Returns the value of the Host field.
    pub(super) fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Returns host and port as the target of a CONNECT request.
    pub(super) fn host_and_port(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{}", self.port),
            _ => format!(
                "{}:{}",
                self.host.strip_suffix('.').unwrap_or(&self.host),
                self.port
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_dot_and_the_schemes_own_port_are_in_no_host_field() {
        let cases = [
            (
                "https://pay.test./x",
                "pay.test.",
                443,
                "pay.test",
                "pay.test:443",
            ),
            (
                "https://pay.test:8443",
                "pay.test",
                8443,
                "pay.test:8443",
                "pay.test:8443",
            ),
            (
                "http://pay.test.:80/",
                "pay.test.",
                80,
                "pay.test",
                "pay.test:80",
            ),
            (
                "http://[::1]:8080/",
                "::1",
                8080,
                "[::1]:8080",
                "[::1]:8080",
            ),
            (
                "https://127.0.0.1",
                "127.0.0.1",
                443,
                "127.0.0.1",
                "127.0.0.1:443",
            ),
        ];
        for (url, host, port, authority, connect) in cases {
            let target = Target::new(&url.parse().unwrap()).unwrap();
            assert_eq!((target.host(), target.port()), (host, port), "{url}");
            assert_eq!(target.authority(), authority, "{url}");
            assert_eq!(target.host_and_port(), connect, "{url}");
        }
        assert!(Target::new(&"https://-/".parse().unwrap()).is_err());
    }
}

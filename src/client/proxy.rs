//! A tunnel through an HTTP proxy, by CONNECT.

use std::fmt::{self, Display};
use std::str::FromStr;

use hyper::Uri;
use hyper::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::target::Target;
use crate::file::ReloadableFile;

/// The longest head of an answer to CONNECT, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// The most fields in one head.
const MAX_FIELDS: usize = 256;

/// `gateway.proxy`: where an HTTP proxy listens.
#[derive(Clone, Debug)]
pub(crate) struct ProxyUrl(Uri);

impl FromStr for ProxyUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "give it as http://HOST:PORT";
        let url = url::Url::parse(text)
            .map_err(|error| format!("this is not a URL ({error}): {FORM}"))?;
        if url.scheme() != "http" || !text.contains("://") || url.host().is_none() {
            return Err(format!(
                "only proxies that speak plain http are supported: {FORM}"
            ));
        }
        // These parts may be credentials, so the error does not repeat them.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!(
                "the URL has a user name or password in it: {FORM}, and name a file in gateway.proxy_authorization_file"
            ));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("the URL has a path, a query or a fragment: {FORM}"));
        }
        url.as_str()
            .parse()
            .map(Self)
            .map_err(|_| "the URL has characters that no request can have".to_owned())
    }
}

impl Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "http://{}",
            self.0
                .authority()
                .map_or("", |authority| authority.as_str())
        )
    }
}

/// The credentials for a proxy. They cannot be printed.
pub(crate) struct ProxyAuthorization(Zeroizing<Vec<u8>>);

impl ProxyAuthorization {
    /// Parses the content of `gateway.proxy_authorization_file`: one line, the value of a Proxy-Authorization field.
    ///
    /// # Errors
    /// Says what is wrong with it, without quoting it.
    pub(crate) fn parse(content: &[u8]) -> Result<Self, String> {
        if content.contains(&b'\n') || content.contains(&b'\r') {
            return Err("it has more than one line".to_owned());
        }
        let is_a_value = HeaderValue::from_bytes(content).is_ok() && content.is_ascii();
        let words = content
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty())
            .count();
        if !is_a_value || words < 2 {
            return Err(
                "it is not the value of a Proxy-Authorization field, like \"Basic dXNlcjpwYXNz\""
                    .to_owned(),
            );
        }
        Ok(Self(Zeroizing::new(content.to_vec())))
    }
}

/// An HTTP proxy on the way to the target.
pub(crate) struct Proxy {
    target: Target,
    authorization: Option<ReloadableFile<ProxyAuthorization>>,
}

impl Proxy {
    /// A proxy at this address, with its credentials if it wants some.
    ///
    /// # Errors
    /// Says what is wrong with the address.
    pub(crate) fn new(
        url: &ProxyUrl,
        authorization: Option<ReloadableFile<ProxyAuthorization>>,
    ) -> Result<Self, String> {
        Ok(Self {
            target: Target::new(&url.0)?,
            authorization,
        })
    }

    /// Returns the address of the proxy itself.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the file of the credentials, if there is one.
    pub(super) fn authorization(&self) -> Option<&ReloadableFile<ProxyAuthorization>> {
        self.authorization.as_ref()
    }

    /// Opens a tunnel to `to`, a host and port that the proxy looks up. The stream then leads there.
    ///
    /// # Errors
    /// Says what the proxy answered, or how the connection to it failed.
    pub(super) async fn connect(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        to: &str,
    ) -> Result<(), String> {
        let mut head = Zeroizing::new(Vec::with_capacity(1024));
        let agent = concat!("tillgate/", env!("CARGO_PKG_VERSION"));
        head.extend_from_slice(
            format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {agent}\r\n").as_bytes(),
        );
        if let Some(authorization) = self.authorization.as_ref().and_then(|file| file.get()) {
            head.extend_from_slice(b"Proxy-Authorization: ");
            head.extend_from_slice(&authorization.0);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        stream
            .write_all(&head)
            .await
            .map_err(|error| format!("the connection broke: {error}"))?;
        match read_status(stream).await? {
            200..=299 => Ok(()),
            407 if self.authorization.is_some() => Err(
                "it does not take the credentials (407): check gateway.proxy_authorization_file"
                    .to_owned(),
            ),
            407 => Err(
                "it asks for credentials (407): set gateway.proxy_authorization_file".to_owned(),
            ),
            status => Err(format!("it answered CONNECT {to} with status {status}")),
        }
    }
}

/// Reads the status of the first final answer.
///
/// # Errors
/// Fails if it is malformed, or if bytes follow a success: they would be taken for bytes of the other end of the tunnel,
/// which never sends first.
async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, String> {
    let mut bytes = Vec::with_capacity(1024);
    let mut from = 0;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let mut parser = httparse::ParserConfig::default();
        parser
            .ignore_invalid_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true);
        match parser.parse_response(&mut response, &bytes[from..]) {
            Ok(httparse::Status::Complete(length)) => {
                from += length;
                match response.code.unwrap_or_default() {
                    100..=199 => continue,
                    status @ 200..=299 if bytes.len() > from => {
                        return Err(format!(
                            "it sent bytes of its own behind its answer ({status})"
                        ));
                    }
                    status => return Ok(status),
                }
            }
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => {}
            Ok(httparse::Status::Partial) => {
                return Err("the head of its answer is over 64 KiB".to_owned());
            }
            Err(_) => return Err("what answers there is no HTTP proxy".to_owned()),
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) => return Err("it closed the connection without an answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("the connection broke: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_final_answer_with_nothing_behind_it_opens_the_tunnel() {
        let cases: [(&str, Result<u16, &str>); 8] = [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Ok(200)),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nVia : x\r\n\r\n",
                Ok(200),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Ok(200)),
            (
                "HTTP/1.1 407 Authenticate\r\nContent-Length: 2\r\n\r\nno",
                Ok(407),
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                Err("bytes of its own"),
            ),
            ("HTTP/1.1 200 OK\r\n", Err("without an answer")),
            ("SSH-2.0-x\r\n", Err("no HTTP proxy")),
            ("", Err("without an answer")),
        ];
        for (answer, expected) in cases {
            let found = read_status(&mut answer.as_bytes()).await;
            match expected {
                Ok(status) => assert_eq!(found, Ok(status), "{answer:?}"),
                Err(part) => assert!(
                    found.clone().unwrap_err().contains(part),
                    "{answer:?}: {found:?}"
                ),
            }
        }
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000);
        assert!(read_status(&mut endless.as_bytes()).await.is_err());
    }

    #[test]
    fn an_authorization_is_one_line_of_two_words() {
        assert!(ProxyAuthorization::parse(b"Basic dXNlcjpwYXNz").is_ok());
        for bad in [
            &b""[..],
            b"dXNlcjpwYXNz",
            b"Basic a\nBasic b",
            b"Basic \x01",
            "Basic ü".as_bytes(),
        ] {
            assert!(ProxyAuthorization::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_proxy_is_a_plain_http_address() {
        for (text, shown) in [
            ("http://proxy.internal:3128", "http://proxy.internal:3128"),
            ("http://[::1]:80/", "http://[::1]"),
        ] {
            assert_eq!(text.parse::<ProxyUrl>().unwrap().to_string(), shown);
        }
        for bad in [
            "proxy.internal:3128",
            "https://proxy:3128",
            "http://u:p@proxy:3128",
            "http://proxy/x",
            "socks5://p",
            "http://",
        ] {
            let error = bad.parse::<ProxyUrl>().unwrap_err();
            assert!(!error.contains("u:p"), "{error}");
        }
    }
}

//! Who may come in. A loopback address is no authentication: pages in a browser, a request forged in the app, other
//! containers of the Pod all reach it.

use hyper::header::{AUTHORIZATION, FORWARDED, HeaderMap, HeaderName, ORIGIN, VIA};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::problem::{ErrorCode, Problem};
use crate::server;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The tokens that callers may show, as digests: what is not kept cannot leak.
pub(crate) struct Tokens(Vec<[u8; 32]>);

impl Tokens {
    /// One token a line; empty lines are left out.
    ///
    /// # Errors
    /// Says which line is wrong, never what stands in it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (i, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            if !line.iter().all(u8::is_ascii_graphic) {
                return Err(format!(
                    "line {} has something else than visible ASCII in it",
                    i + 1
                ));
            }
            tokens.push(Sha256::digest(line).into());
        }
        if tokens.is_empty() {
            Err("there is no token in it (one a line)".to_owned())
        } else {
            Ok(Self(tokens))
        }
    }

    /// Takes as long whichever token it is, and whether it is one.
    fn has(&self, token: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.0
            .iter()
            .fold(Choice::from(0), |found, token| found | token.ct_eq(&digest))
            .into()
    }
}

/// Checks who asks, in the order of the contract. `tokens` is `None` where none are configured, and holds `None` where
/// they are but could not be read. `is_unix`: the request came through a Unix socket.
pub(super) fn check(
    headers: &HeaderMap,
    tokens: Option<Option<&Tokens>>,
    is_unix: bool,
) -> Result<(), Problem> {
    let has_token = tokens
        .flatten()
        .zip(bearer(headers))
        .is_some_and(|(tokens, token)| tokens.has(token));
    // DNS rebinding: a page's own name that suddenly means 127.0.0.1. Whoever shows a token is no page, and no page
    // reaches a Unix socket.
    if !has_token && !is_unix && !server::is_local_host(headers) {
        return Err(Problem::new(
            ErrorCode::HostNotAllowed,
            "The Host must be localhost, 127.0.0.1 or [::1]. Another name needs a token (listen.token_file).",
        ));
    }
    // A server-side HTTP client sends neither; Node's fetch sends Sec-Fetch-Mode alone.
    if headers.contains_key(ORIGIN)
        || headers
            .get_all(SEC_FETCH_SITE)
            .iter()
            .any(|site| site != "none")
    {
        return Err(Problem::new(
            ErrorCode::BrowserNotAllowed,
            "This API is for the server side of the app, not for pages in a browser (Origin or Sec-Fetch-Site was sent).",
        ));
    }
    if !has_token && headers.keys().any(is_of_a_proxy) {
        return Err(Problem::new(
            ErrorCode::ForwardedNotAllowed,
            "The request came through a proxy (X-Forwarded-*, X-Real-IP, Forwarded or Via was sent): call tillgate directly, or with a token (listen.token_file). If the app uses a proxy for other calls, set NO_PROXY=localhost,127.0.0.1 for it.",
        ));
    }
    if tokens.is_some() && !has_token {
        return Err(Problem::unauthorized());
    }
    Ok(())
}

/// A field that proxies add to what they pass on.
fn is_of_a_proxy(name: &HeaderName) -> bool {
    [FORWARDED, VIA, X_REAL_IP].contains(name) || name.as_str().starts_with("x-forwarded-")
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then_some(token.trim_ascii())
}

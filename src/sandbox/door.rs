//! Who may do what. A page of another site, open in a browser of this machine, can send requests to its ports.

use hyper::Method;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};

use super::route::Route;
use crate::server;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns whether the request shows the secret, pays, or sets faults. Everything else is for the payer, who comes from
/// the page of a shop, or needs the secret.
pub(super) fn is_guarded(route: &Route<'_>, method: &Method) -> bool {
    match route {
        Route::DevApi | Route::Complete(_) => true,
        Route::Pay(_) | Route::Faults => method == Method::POST,
        Route::Portal | Route::Start | Route::Watch(_) | Route::Calls => false,
    }
}

/// Returns whether the request is of a program, of a page of the sandbox itself, or of a person who typed the address in.
/// `is_loopback`: only this machine reaches the listener, so that a foreign Host is a trick (DNS rebinding).
pub(super) fn is_from_here(headers: &HeaderMap, is_loopback: bool) -> bool {
    let is_same = |site: &HeaderValue| site == "none" || site == "same-origin";
    // Browsers that do not know `Sec-Fetch-Site` say where a form comes from all the same.
    let is_own = |origin: &HeaderValue| {
        let (origin, host) = (origin.as_bytes(), headers.get(HOST));
        let rest = origin
            .strip_prefix(b"http://")
            .or_else(|| origin.strip_prefix(b"https://"));
        rest.zip(host)
            .is_some_and(|(rest, host)| rest.eq_ignore_ascii_case(host.as_bytes()))
    };
    (!is_loopback || server::is_local_host(headers))
        && headers.get_all(SEC_FETCH_SITE).iter().all(is_same)
        && headers.get_all(ORIGIN).iter().all(is_own)
}

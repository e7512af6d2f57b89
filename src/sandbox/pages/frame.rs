//! What all pages of the sandbox share.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::super::reply::{response, with};
use crate::html::text;
use crate::server::Body;

/// A form may lead anywhere on the web, because browsers apply `form-action` to every redirect after a post, those of the
/// merchant included.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
    form-action http: https:; base-uri 'none'; frame-ancestors 'none'";

/// Returns a page with this title and this HTML in its `main` element.
pub(super) fn page(title: &str, main: &str) -> Response<Body> {
    let html = format!(
        include_str!("frame.html"),
        title = text(title),
        style = include_str!("page.css"),
        main = main
    );
    let page = response(StatusCode::OK, "text/html; charset=utf-8", html);
    let page = with(
        page,
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    with(
        page,
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    )
}

//! What all pages of the sandbox share.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::reply::{response, with};
use crate::server::Body;

/// A form may lead anywhere on the web, because browsers apply `form-action` to every redirect after a post, those of the
/// merchant included.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
    form-action http: https:; base-uri 'none'; frame-ancestors 'none'";

const STYLE: PreEscaped<&str> = PreEscaped(include_str!("page.css"));

const ICON: &str = "data:image/svg+xml,\
    %3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
    %3Crect width='16' height='16' rx='4' fill='%230f766e'/%3E\
    %3Cpath d='M4 8.5l2.7 2.7L12 5.8' fill='none' stroke='%23fff' stroke-width='2' stroke-linecap='round' stroke-linejoin='round'/%3E\
    %3C/svg%3E";

/// A start through tillgate, in a shell.
pub(super) const START: &str = r#"curl http://localhost:8700/api/start_payment \
  -H 'Content-Type: application/json' \
  -d '{"amount": 1000}'"#;

/// Returns a page with this title and this `main` element.
pub(super) fn page(title: &str, main: &Markup) -> Response<Body> {
    let html = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · tillgate sandbox" }
                link rel="icon" href=(ICON);
                style { (STYLE) }
            }
            body {
                aside.marker aria-label="Notice" { b { "Sandbox:" } " no money moves" }
                header {
                    span.name { "tillgate sandbox" }
                    nav {
                        a href="/" { "Payments" } " "
                        a href="/dev/api" { "API" } " "
                        a href="/_sandbox/faults" { "Faults" }
                    }
                }
                (main)
            }
        }
    };
    let page = response(
        StatusCode::OK,
        "text/html; charset=utf-8",
        html.into_string(),
    );
    let page = with(
        page,
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    // Without a referrer at all, a browser would send `Origin: null` with the forms of these pages.
    with(
        page,
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    )
}

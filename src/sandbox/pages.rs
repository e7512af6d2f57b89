//! The pages of the sandbox: plain HTML without scripts, for phones and dark mode too.

mod faults;
mod frame;
mod guide;

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use maud::{Markup, display, html};

use super::ledger::{Amount, Payment, format_time};
use super::reply::with;
use super::request::{Redirect, WayBack};
use crate::server::Body;
pub(super) use faults::{bad_fault, faults};
use frame::{START, page};
pub(super) use guide::dev_api;

/// How many payments the portal shows.
const PORTAL_ROWS: usize = 100;

/// Returns the page of a payer: the amount and a button, or that it is paid.
pub(super) fn pay(payment: &Payment, merchant: &str, back: &WayBack) -> Response<Body> {
    let (title, card) = match payment.completed_at() {
        Some(paid_at) => ("Paid".to_owned(), paid(payment, merchant, paid_at, back)),
        None => (format!("Pay {merchant}"), open(payment, merchant, back)),
    };
    let main = html! {
        main.narrow {
            section.card { (card) }
            p.fine { "Payment " code { (payment.code) } }
        }
    };
    page(&title, &main)
}

fn open(payment: &Payment, merchant: &str, back: &WayBack) -> Markup {
    let amount = amount(&payment.amount);
    html! {
        h1 { span.label { "Pay" } " " (merchant) }
        p.amount { (amount) }
        form method="post" action={ "/pay/" (payment.code) } {
            @if let WayBack::To(Redirect { url, .. }) = back {
                input type="hidden" name="redirect" value=(url);
            }
            button.button { "Pay " (amount) }
        }
        @match back {
            WayBack::To(Redirect { url, host, .. }) => {
                p.quiet { "You then return to " b { (host) } "." }
                p.quiet { a href=(url) rel="noreferrer" { "Go back without paying" } }
            }
            WayBack::None => {}
            WayBack::Refused => (refused_way_back())
        }
    }
}

fn paid(payment: &Payment, merchant: &str, paid_at: Timestamp, back: &WayBack) -> Markup {
    html! {
        svg.tick viewBox="0 0 48 48" aria-hidden="true" {
            circle cx="24" cy="24" r="24" {}
            path d="M14 25l7 7 13-14" {}
        }
        h1 { "Paid" }
        p.amount { (amount(&payment.amount)) }
        p.quiet { "to " b { (merchant) } br; (time(paid_at)) }
        @match back {
            WayBack::To(Redirect { url, host, .. }) => {
                a.button href=(url) rel="noreferrer" { "Continue to " (host) }
            }
            WayBack::None => p.quiet { "You can close this page." }
            WayBack::Refused => (refused_way_back())
        }
    }
}

fn refused_way_back() -> Markup {
    html! {
        p.note {
            "The " code { "redirect" } " of this link is not an absolute http or https URL, so it is not followed."
        }
    }
}

/// The query of the portal that does not refresh itself, for who reads it slowly.
pub(super) const STILL: &str = "refresh=off";

/// Returns the portal of the merchant, with the newest payments first.
pub(super) fn portal<'a>(
    refreshes: bool,
    merchant: &str,
    payments: impl ExactSizeIterator<Item = &'a Payment>,
    faults: usize,
) -> Response<Body> {
    let all = payments.len();
    let main = html! {
        main {
            div.head {
                h1 { "Payments" @if all > 0 { " " span.count { (all) } } }
                p.quiet {
                    (merchant) @if all > 0 { ", newest first" } ". "
                    @if refreshes {
                        "This page refreshes itself. " a href={ "/?" (STILL) } { "Stop" }
                    } @else {
                        a href="/" { "Refresh by itself" }
                    }
                }
            }
            @if faults > 0 {
                p.note {
                    @if faults == 1 { "A fault is set" } @else { (faults) " faults are set" }
                    ": calls go wrong on purpose. " a href="/_sandbox/faults" { "See what is set" }
                }
            }
            @if all == 0 {
                (no_payments())
            } @else {
                ol.card.rows { @for payment in payments.take(PORTAL_ROWS) { (row(payment)) } }
            }
            @if all > PORTAL_ROWS {
                p.quiet { (all - PORTAL_ROWS) " older ones are not shown." }
            }
        }
    };
    let page = page("Payments", &main);
    match refreshes {
        true => with(page, header::REFRESH, HeaderValue::from_static("5")),
        false => page,
    }
}

fn no_payments() -> Markup {
    html! {
        section.card.empty {
            h2 { "No payments yet" }
            p { "Start one through tillgate, which adds the merchant secret:" }
            pre tabindex="0" { code { (START) } }
            p {
                "It then shows up here, with a link to its pay page. To call this gateway without tillgate, see "
                a href="/dev/api" { "the API" } "."
            }
        }
    }
}

fn row(payment: &Payment) -> Markup {
    let (status, completed_at) = (payment.status(), payment.completed_at());
    html! {
        li {
            span.sum { (amount(&payment.amount)) } " "
            span.badge.(status) { (status) } " "
            span.what {
                code { (payment.code) } " "
                span.when { "created " (time(payment.created_at)) } " "
                @if let Some(paid_at) = completed_at {
                    span.when { "completed " (time(paid_at)) }
                }
            } " "
            @if completed_at.is_none() {
                a.last href={ "/pay/" (payment.code) } { "Open pay page" }
            }
        }
    }
}

pub(super) fn unknown_payment() -> Response<Body> {
    refusal(
        StatusCode::NOT_FOUND,
        "No such payment",
        "This link leads to no payment. The sandbox forgets its payments when it stops: start a new one and use its link.",
    )
}

pub(super) fn nothing_here() -> Response<Body> {
    refusal(
        StatusCode::NOT_FOUND,
        "Nothing here",
        "This is a practice gateway. Its API page describes what it can do.",
    )
}

pub(super) fn not_from_here() -> Response<Body> {
    refusal(
        StatusCode::FORBIDDEN,
        "Not from there",
        "A page of another site sent you here, or the address has another name than localhost. Go on from a page of this sandbox.",
    )
}

fn refusal(status: StatusCode, title: &str, what: &str) -> Response<Body> {
    let main = html! {
        main.narrow {
            section.card {
                h1 { (title) }
                p.quiet { (what) }
                p { a href="/" { "All payments" } " · " a href="/dev/api" { "The API" } }
            }
        }
    };
    let mut page = page(title, &main);
    *page.status_mut() = status;
    page
}

/// Groups digits in threes by style alone, so that copying and reading aloud give the number itself.
fn amount(amount: &Amount) -> Markup {
    let number = amount.as_str();
    let end = number
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(number.len());
    let (whole, rest) = number.split_at(end);
    html! {
        data value=(number) {
            @for (place, digit) in whole.char_indices() {
                @if place > 0 && whole.len() > 4 && (whole.len() - place).is_multiple_of(3) {
                    span.gap {} wbr;
                }
                (digit)
            }
            (rest)
        }
    }
}

fn time(time: Timestamp) -> Markup {
    let machine = time.strftime("%Y-%m-%dT%H:%M:%SZ");
    html! { time datetime=(display(machine)) { (format_time(time)) " UTC" } }
}

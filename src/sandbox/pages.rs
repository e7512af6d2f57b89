//! The pages of the sandbox: plain HTML without scripts, for phones and dark mode too.

mod faults;
mod frame;

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use jiff::Timestamp;

use super::ledger::{Amount, Payment, format_time};
use super::reply::{quoted, with};
use super::request::{Redirect, WayBack};
use crate::html::text;
use crate::server::Body;
pub(super) use faults::{bad_fault, faults};
use frame::page;

/// How many payments the portal shows.
const PORTAL_ROWS: usize = 100;

const FAULTY: &str = r#"<p class="note">{}: calls go wrong on purpose. <a href="/_sandbox/faults">See what is set</a></p>"#;

/// Returns the page of a payer: the amount and a button, or that it is paid.
pub(super) fn pay(payment: &Payment, merchant: &str, back: &WayBack) -> Response<Body> {
    match payment.completed_at() {
        Some(paid_at) => page("Paid", &paid(payment, merchant, paid_at, back)),
        None => page(&format!("Pay {merchant}"), &open(payment, merchant, back)),
    }
}

fn open(payment: &Payment, merchant: &str, back: &WayBack) -> String {
    let (field, note) = match back {
        WayBack::To(Redirect { url, host, .. }) => (
            format!(
                r#"<input type="hidden" name="redirect" value="{}">"#,
                text(url)
            ),
            format!(
                r#"<p class="quiet">You then return to <b>{}</b>.</p>
                <p class="quiet"><a href="{}" rel="noreferrer">Go back without paying</a></p>"#,
                text(host),
                text(url)
            ),
        ),
        WayBack::None => (String::new(), String::new()),
        WayBack::Refused => (String::new(), refused_way_back()),
    };
    format!(
        include_str!("pages/pay.html"),
        merchant = text(merchant),
        amount = amount(&payment.amount),
        code = text(&payment.code),
        field = field,
        note = note,
    )
}

fn paid(payment: &Payment, merchant: &str, paid_at: Timestamp, back: &WayBack) -> String {
    let onward = match back {
        WayBack::To(Redirect { url, host, .. }) => {
            format!(
                r#"<a class="button" href="{}" rel="noreferrer">Continue to {}</a>"#,
                text(url),
                text(host)
            )
        }
        WayBack::None => r#"<p class="quiet">You can close this page.</p>"#.to_owned(),
        WayBack::Refused => refused_way_back(),
    };
    format!(
        include_str!("pages/paid.html"),
        merchant = text(merchant),
        amount = amount(&payment.amount),
        code = text(&payment.code),
        paid_at = time(paid_at),
        onward = onward,
    )
}

fn refused_way_back() -> String {
    r#"<p class="note">The <code>redirect</code> of this link is not an absolute http or https URL, so it is not
    followed.</p>"#
        .to_owned()
}

/// Returns the portal of the merchant, with the newest payments first.
pub(super) fn portal<'a>(
    merchant: &str,
    payments: impl ExactSizeIterator<Item = &'a Payment>,
    faults: usize,
) -> Response<Body> {
    let all = payments.len();
    let note = match faults {
        0 => String::new(),
        1 => FAULTY.replace("{}", "A fault is set"),
        many => FAULTY.replace("{}", &format!("{many} faults are set")),
    };
    let rows: String = payments.take(PORTAL_ROWS).map(row).collect();
    let main = if all == 0 {
        format!(
            include_str!("pages/empty.html"),
            merchant = text(merchant),
            note = note
        )
    } else {
        let more = match all.saturating_sub(PORTAL_ROWS) {
            0 => String::new(),
            older => format!(r#"<p class="quiet">{older} older ones are not shown.</p>"#),
        };
        format!(
            include_str!("pages/portal.html"),
            merchant = text(merchant),
            note = note,
            count = all,
            rows = rows,
            more = more
        )
    };
    with(
        page("Payments", &main),
        header::REFRESH,
        HeaderValue::from_static("5"),
    )
}

fn row(payment: &Payment) -> String {
    let (status, code) = (payment.status(), text(&payment.code));
    let (completed, link) = match payment.completed_at() {
        Some(paid_at) => (
            format!(r#"<span class="when">completed {}</span>"#, time(paid_at)),
            String::new(),
        ),
        None => (
            String::new(),
            format!(r#"<a class="last" href="/pay/{code}">Open pay page</a>"#),
        ),
    };
    format!(
        r#"<li><span class="sum">{amount}</span> <span class="badge {status}">{status}</span>
        <span class="what"><code>{code}</code> <span class="when">created {created}</span> {completed}</span> {link}</li>"#,
        amount = amount(&payment.amount),
        created = time(payment.created_at),
    )
}

/// Returns the guide in short. It is the only page that shows the secret.
pub(super) fn dev_api(secret: &str, host: &str) -> Response<Body> {
    let start = format!(
        r#"{{"merchant_secret": {}, "amount": 1000}}"#,
        quoted(secret)
    );
    let main = format!(
        include_str!("pages/dev_api.html"),
        secret = text(secret),
        start = text(&shell_quoted(&start)),
        base = text(&format!("http://{host}")),
    );
    page("API", &main)
}

fn shell_quoted(argument: &str) -> String {
    format!("'{}'", argument.replace('\'', r"'\''"))
}

pub(super) fn unknown_payment() -> Response<Body> {
    missing(
        "No such payment",
        "This link leads to no payment. The sandbox forgets its payments when it stops: start a new one and use its link.",
    )
}

pub(super) fn nothing_here() -> Response<Body> {
    missing(
        "Nothing here",
        "This is a practice gateway. Its API page describes what it can do.",
    )
}

fn missing(title: &str, what: &str) -> Response<Body> {
    let main = format!(
        include_str!("pages/missing.html"),
        title = text(title),
        what = text(what)
    );
    let mut page = page(title, &main);
    *page.status_mut() = StatusCode::NOT_FOUND;
    page
}

/// Groups digits in threes by style alone, so that copying and reading aloud give the number itself.
fn amount(amount: &Amount) -> String {
    let number = amount.as_str();
    let end = number
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(number.len());
    let (whole, rest) = number.split_at(end);
    let mut grouped = String::new();
    for (place, digit) in whole.char_indices() {
        if place > 0 && whole.len() > 4 && (whole.len() - place).is_multiple_of(3) {
            grouped.push_str(r#"<span class="gap"></span><wbr>"#);
        }
        grouped.push(digit);
    }
    format!(
        r#"<data value="{number}">{grouped}{rest}</data>"#,
        number = text(number),
        rest = text(rest)
    )
}

fn time(time: Timestamp) -> String {
    let (machine, human) = (time.strftime("%Y-%m-%dT%H:%M:%SZ"), format_time(time));
    format!(r#"<time datetime="{machine}">{human} UTC</time>"#)
}

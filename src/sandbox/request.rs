//! Reads the requests of callers and browsers, strictly.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::header::HeaderValue;
use hyper::{StatusCode, body::Bytes};
use serde::Deserialize;
use serde_json::value::RawValue;
use url::{Url, form_urlencoded};

use super::fault::Fault;
use super::grammar::GRAMMAR;
use super::ledger::Amount;
use super::reply::Reply;
use crate::server::BoxError;

/// The longest body that is read.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Reads the whole body.
///
/// # Errors
/// Returns the refusal of one that is too long, or that ends early.
pub(super) async fn read<B>(body: B) -> Result<Bytes, Reply>
where
    B: hyper::body::Body,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Reply::message(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The body is longer than 64 KiB",
        )),
        Err(_) => Err(Reply::message(
            StatusCode::BAD_REQUEST,
            "The body ended early",
        )),
    }
}

/// Reads the body of a start. Returns the amount.
///
/// # Errors
/// Returns the refusal of a malformed body, a wrong secret, or an amount that cannot be paid.
pub(super) fn start(body: &[u8], secret: &str) -> Result<Amount, Reply> {
    /// The values stay text, so that a number keeps all its digits and a refusal can name the field.
    #[derive(Deserialize)]
    struct Start {
        merchant_secret: Option<Box<RawValue>>,
        amount: Option<Box<RawValue>>,
    }

    let bad = |message| Reply::message(StatusCode::BAD_REQUEST, message);
    let start: Start = object(body).ok_or_else(|| bad("The body must be one JSON object"))?;
    let given = start
        .merchant_secret
        .and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    let given = given.ok_or_else(|| bad("merchant_secret is missing or not a string"))?;
    let is_number = |value: &RawValue| {
        value
            .get()
            .starts_with(|first: char| first == '-' || first.is_ascii_digit())
    };
    let amount = start.amount.filter(|value| is_number(value));
    let amount = amount.ok_or_else(|| bad("amount is missing or not a number"))?;
    if given != secret {
        return Err(Reply::message(
            StatusCode::UNAUTHORIZED,
            "Invalid merchant secret",
        ));
    }
    Amount::parse(amount.get()).ok_or_else(|| {
        Reply::message(
            StatusCode::UNPROCESSABLE_ENTITY,
            "amount must be above zero, and no longer than 128 characters",
        )
    })
}

/// Reads the faults of `{"faults":[…]}`.
///
/// # Errors
/// Returns the refusal, which says what is wrong with each bad one.
pub(super) fn faults(body: &[u8]) -> Result<Vec<Fault>, Reply> {
    #[derive(Deserialize)]
    struct Faults {
        faults: Vec<String>,
    }

    let bad =
        |problem: &str| Reply::message(StatusCode::BAD_REQUEST, &format!("{problem}. {GRAMMAR}"));
    let Faults { faults } =
        object(body).ok_or_else(|| bad(r#"The body must be {"faults":["OP:ITEM", …]}"#))?;
    let (mut good, mut problems) = (Vec::new(), Vec::new());
    for text in faults {
        match text.parse::<Fault>() {
            Ok(fault) => good.push(fault),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if problems.is_empty() {
        Ok(good)
    } else {
        Err(bad(&problems.join(". ")))
    }
}

/// A change that was asked for on the page of faults.
pub(super) enum Change {
    Add(String),
    Remove(String),
    Clear,
}

/// Reads the form of the page of faults; `None` for another body, such as `{"faults":[…]}` of a program.
pub(super) fn change(form: &[u8]) -> Option<Change> {
    form_urlencoded::parse(form).find_map(|(name, value)| match &*name {
        "add" => Some(Change::Add(value.trim().to_owned())),
        "remove" => Some(Change::Remove(value.into_owned())),
        "clear" => Some(Change::Clear),
        _ => None,
    })
}

/// Parses an object. serde would also accept an array for a struct.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
}

/// Where a payer is sent back to.
pub(super) struct Redirect {
    /// The text exactly as it was given, since a merchant may compare it.
    pub(super) location: HeaderValue,
    pub(super) url: String,
    /// The host, which the payer knows the shop by.
    pub(super) host: String,
}

/// What a request says about the way back.
pub(super) enum WayBack {
    None,
    To(Redirect),
    /// Not an absolute http(s) URL. The page shows it as a mistake, and it is never followed.
    Refused,
}

impl WayBack {
    /// Reads the first `redirect` of a query or a form.
    pub(super) fn find(form: &[u8]) -> Self {
        let given = form_urlencoded::parse(form).find(|(name, _)| name == "redirect");
        match given {
            Some((_, text)) if !text.is_empty() => {
                Redirect::parse(&text).map_or(WayBack::Refused, WayBack::To)
            }
            _ => WayBack::None,
        }
    }
}

impl Redirect {
    fn parse(text: &str) -> Option<Self> {
        let parsed = Url::parse(text).ok()?;
        // `http:shop` and `http:\\shop` parse, but a browser may take them for a path on this host.
        let after_scheme = text.get(parsed.scheme().len()..)?;
        if !matches!(parsed.scheme(), "http" | "https") || !after_scheme.starts_with("://") {
            return None;
        }
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        let url = if plain {
            text.to_owned()
        } else {
            parsed.to_string()
        };
        Some(Redirect {
            location: HeaderValue::from_str(&url).ok()?,
            host: host(&parsed)?,
            url,
        })
    }
}

fn host(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(
        url.port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")),
    )
}

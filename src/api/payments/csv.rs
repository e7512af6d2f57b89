//! The list as a table for spreadsheets (RFC 4180).

use bytes::Bytes;
use csv::{Terminator, WriterBuilder};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue, LINK};
use url::form_urlencoded::{self, Serializer};

use crate::json::{self, Json, Object};
use crate::server::{self, Body};

/// Its media type.
pub(super) const TYPE: &str = "text/csv";

/// What each payment has, whatever else the gateway says.
const COLUMNS: [&str; 13] = [
    "status",
    "amount",
    "merchant",
    "created_at",
    "completed_at",
    "code",
    "watch_code",
    "reference",
    "requested_amount",
    "paid_twice_with",
    "started_at",
    "completed_seen_at",
    "last_polled_at",
];

/// Returns a header row, and a row for each payment.
pub(super) fn table(payments: impl Iterator<Item = Object>) -> String {
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .from_writer(Vec::new());
    let mut write = |row: [String; COLUMNS.len()]| {
        // Into memory, and all rows have the same length: that cannot fail.
        let _ = writer.write_record(row);
    };
    write(COLUMNS.map(str::to_owned));
    for payment in payments {
        write(COLUMNS.map(|column| json::get(&payment, column).map_or_else(String::new, cell)));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Returns the text of a cell. A spreadsheet would compute what looks like a formula.
fn cell(value: &Json) -> String {
    let text = match value {
        Json::Text(text) => text.clone(),
        value if value.is_null() => String::new(),
        value => value.to_string(),
    };
    if text.starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text
    }
}

/// Returns the link to the next page, which begins after that number.
pub(super) fn link(query: &str, next: &str) -> String {
    let parameters = form_urlencoded::parse(query.as_bytes());
    let mut serializer = Serializer::new(String::new());
    serializer.extend_pairs(parameters.filter(|(name, _)| name != "after"));
    serializer.append_pair("after", next);
    format!("</payments?{}>; rel=\"next\"", serializer.finish())
}

pub(super) fn response(table: Bytes, link: Option<String>) -> Response<Body> {
    let mut response = Response::new(server::full(table));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
    headers.insert(CONTENT_TYPE, kind);
    // Of a percent-encoded query.
    if let Some(link) = link.and_then(|link| link.try_into().ok()) {
        headers.insert(LINK, link);
    }
    response
}

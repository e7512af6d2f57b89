//! `GET /payments`

mod csv;

use std::ops::Range;

use hyper::Response;
use hyper::header::HeaderMap;
use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::fmt::temporal::Pieces;

use super::accept;
use super::page::{self, Pages, Parameters};
use super::problem::Problem;
use crate::clock;
use crate::json::{self, Json, Object};
use crate::payment::{Reference, Status};
use crate::server::Body;
use crate::store::{self, Filter, Known, Payments, Subject};

const PARAMETERS: [&str; 8] = [
    "status",
    "reference",
    "from",
    "to",
    "completed_from",
    "completed_to",
    "limit",
    "after",
];

/// The last whole day that a [`Timestamp`] can be in.
const LAST_DAY: Date = date(9999, 12, 29);

/// One page of what was started here, the newest first.
pub(super) async fn payments(
    payments: &Payments,
    pages: &Pages,
    query: &str,
    headers: &HeaderMap,
) -> Result<Response<Body>, Problem> {
    let parameters = Parameters::parse(query, &PARAMETERS)?;
    let filter = filter(&parameters)?;
    let (limit, after) = (parameters.limit()?, parameters.after()?);
    let room = pages.room()?;
    let mut found = payments.list(&filter, after, limit + 1).await;
    let next = page::cut(&mut found, limit, |known| known.stored.number);
    let found = found.iter().map(shown);
    if accept::prefers(headers, csv::TYPE) {
        let link = next.map(|next| csv::link(query, &next));
        return Ok(csv::response(room.page(csv::table(found)), link));
    }
    // After the list was made: what has gone meanwhile was in it.
    let complete_since = payments.complete_since().to_string();
    let object = vec![
        (
            "payments".to_owned(),
            Json::Array(found.map(Json::Object).collect()),
        ),
        ("next".to_owned(), next.map_or(Json::null(), Json::Text)),
        ("complete_since".to_owned(), Json::Text(complete_since)),
    ];
    Ok(page::json(room.page(Json::Object(object).to_string())))
}

/// Which payments are asked for.
fn filter(parameters: &Parameters<'_>) -> Result<Filter, Problem> {
    let status = match parameters.get("status").as_deref() {
        None => None,
        Some("created") => Some(Status::Created),
        Some("completed") => Some(Status::Completed),
        Some(_) => return Err(parameters.invalid("status", "is created or completed")),
    };
    let reference = parameters.get("reference").map(|text| {
        let why = "is what a start had: 1 to 128 printable ASCII characters";
        Reference::stored(&text).ok_or_else(|| parameters.invalid("reference", why))
    });
    let completed = range(parameters, "completed_from", "completed_to")?;
    Ok(Filter {
        status,
        reference: reference.transpose()?,
        started: range(parameters, "from", "to")?.unwrap_or(Filter::ALL.started),
        completed,
    })
}

/// A range of time, if one of its ends is given.
fn range(
    parameters: &Parameters<'_>,
    from: &str,
    to: &str,
) -> Result<Option<Range<Timestamp>>, Problem> {
    let time = |name: &str| {
        let Some(text) = parameters.get(name) else {
            return Ok(None);
        };
        // A plus that was not encoded has become a space.
        let time = text.parse::<Timestamp>();
        let time = time.or_else(|_| text.replace(' ', "+").parse());
        // The end of all time, as others write it, is a little later than that of this library.
        let time = time.or_else(|error| match Pieces::parse(&*text) {
            Ok(pieces) if pieces.date() > LAST_DAY && pieces.to_numeric_offset().is_some() => {
                Ok(Timestamp::MAX)
            }
            _ => Err(error),
        });
        let why = "is a time like 2026-01-31T12:00:00Z (RFC 3339)";
        time.map(Some).map_err(|_| parameters.invalid(name, why))
    };
    Ok(match (time(from)?, time(to)?) {
        (None, None) => None,
        (from, to) => Some(from.unwrap_or(Timestamp::MIN)..to.unwrap_or(Timestamp::MAX)),
    })
}

fn shown(known: &Known) -> Object {
    let observation = known.observation.as_ref();
    let mut object = store::shown(Subject {
        stored: &known.stored,
        report: observation.map(|observation| &*observation.report),
        paid_twice_with: known.paid_twice_with(),
    });
    let time =
        |time: Option<Timestamp>| time.map_or(Json::null(), |time| Json::Text(time.to_string()));
    let completion = known.completion.as_ref();
    let times = [
        ("started_at", Some(known.stored.started_at)),
        (
            "completed_seen_at",
            completion.map(|completion| completion.seen_at),
        ),
        (
            "last_polled_at",
            observation.map(|observation| clock::wall_at(observation.asked)),
        ),
    ];
    for (name, at) in times {
        json::set(&mut object, name, time(at));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_that_was_not_encoded_is_a_plus() {
        for query in [
            "from=2026-01-31T12:00:00%2B01:00",
            "from=2026-01-31T12:00:00+01:00",
            "from=2026-01-31T11:00:00Z",
        ] {
            let parameters = Parameters::parse(query, &["from"]).unwrap();
            let range = range(&parameters, "from", "to").unwrap();
            let start = range.unwrap().start;
            assert_eq!(start.to_string(), "2026-01-31T11:00:00Z", "{query}");
        }
    }
}

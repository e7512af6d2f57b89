//! `GET /payments`

use hyper::Response;

use super::page::{Pages, Query};
use super::problem::Problem;
use crate::clock;
use crate::json::{self, Json};
use crate::server::Body;
use crate::store::{self, Known, Payments, Subject};

/// One page of what was started here, the newest first.
pub(super) fn payments(
    payments: &Payments,
    pages: &Pages,
    query: &str,
) -> Result<Response<Body>, Problem> {
    let Query {
        status,
        limit,
        after,
    } = Query::parse(query, &["status", "limit", "after"])?;
    let find = |most| payments.before(after, status.as_ref(), most);
    pages.page("payments", limit, find, |known| known.stored.number, shown)
}

fn shown(known: &Known) -> Json {
    let Known {
        stored,
        observation,
        paid_twice_with,
    } = known;
    let mut object = store::shown(Subject {
        stored,
        report: observation.as_ref().map(|observation| &*observation.report),
        paid_twice_with: paid_twice_with.as_ref(),
    });
    let polled = observation.as_ref().map_or(Json::null(), |observation| {
        Json::Text(clock::wall_at(observation.asked).to_string())
    });
    json::set(
        &mut object,
        "started_at",
        Json::Text(stored.started_at.to_string()),
    );
    json::set(&mut object, "last_polled_at", polled);
    Json::Object(object)
}

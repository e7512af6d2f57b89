//! `GET /payments`

use hyper::Response;

use super::page::{Pages, Query};
use super::problem::Problem;
use crate::clock;
use crate::json::{self, Json};
use crate::serve::Body;
use crate::store::{self, Known, Store};

/// One page of what was started here, the newest first.
pub(super) fn payments(store: &Store, pages: &Pages, query: &str) -> Result<Response<Body>, Problem> {
    let Query { status, limit, after } = Query::parse(query, &["status", "limit", "after"])?;
    let find = |most| store.before(after, status.as_ref(), most);
    pages.page("payments", limit, find, |(tracked, _)| tracked.number, shown)
}

fn shown((tracked, seen): &Known) -> Json {
    let mut object = store::shown(tracked, seen.as_ref().map(|seen| &*seen.report));
    let polled = seen.as_ref().map_or(Json::null(), |seen| Json::Text(clock::wall_at(seen.asked).to_string()));
    json::set(&mut object, "started_at", Json::Text(tracked.started_at.to_string()));
    json::set(&mut object, "last_polled_at", polled);
    Json::Object(object)
}

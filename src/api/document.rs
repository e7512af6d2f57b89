//! `GET /openapi.json`: what this API is, for machines.

use hyper::Response;

use super::page;
use super::problem::{Problem, Word};
use crate::json::{self, Json, Object};
use crate::serve::Body;
use crate::start::{Bounds, Starter};

/// As it is for every sidecar with the defaults.
const DOCUMENT: &str = include_str!("openapi.json");
/// Where it says what a start may be.
const START: [&str; 4] = ["components", "schemas", "StartRequest", "properties"];

/// The document, with what this sidecar's operator decided about a start. It is asked for so rarely that it is made each
/// time: nothing of it is kept.
pub(super) fn document(starter: &Starter) -> Result<Response<Body>, Problem> {
    let bug = || Problem::new(Word::Internal, "This is a bug in tillgate.");
    let mut document = json::parse_object(DOCUMENT.as_bytes()).map_err(|_| bug())?;
    let Bounds { min, max, forward, .. } = starter.bounds();
    let start = START.into_iter().try_fold(&mut document, member).ok_or_else(bug)?;
    let amount = member(start, "amount").ok_or_else(bug)?;
    json::set(amount, "minimum", Json::Literal(min.to_string().into()));
    json::set(amount, "maximum", Json::Literal(max.to_string().into()));
    for name in forward {
        let passed_on = Json::Text("Passed on to the gateway as it is (start.forward_fields).".to_owned());
        json::set(start, name, Json::Object(vec![("description".to_owned(), passed_on)]));
    }
    Ok(page::json(document))
}

/// The object under that name.
fn member<'a>(object: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    match object.iter_mut().find(|(key, _)| key == name) {
        Some((_, Json::Object(object))) => Some(object),
        _ => None,
    }
}

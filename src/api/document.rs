//! `GET /openapi.json`: what this API is, for machines.

use std::sync::OnceLock;

use bytes::Bytes;
use hyper::Response;

use super::page;
use super::problem::{ErrorCode, Problem};
use crate::json::{self, Json, Object};
use crate::server::Body;
use crate::start::{Bounds, Starter};

/// As it is for every sidecar with the defaults.
const DOCUMENT: &str = include_str!("openapi.json");
/// Where it says what a start may be.
const START: [&str; 4] = ["components", "schemas", "StartRequest", "properties"];

/// The document, with what this sidecar's operator decided about a start: made when somebody asks for it, and kept,
/// because whoever asks again and again must not have it made each time.
#[derive(Default)]
pub(super) struct Document(OnceLock<Bytes>);

impl Document {
    /// The answer with it.
    pub(super) fn answer(&self, starter: &Starter) -> Result<Response<Body>, Problem> {
        let bytes = match self.0.get() {
            Some(bytes) => bytes,
            None => {
                let made = made(starter.bounds()).ok_or_else(|| {
                    Problem::new(ErrorCode::Internal, "This is a bug in tillgate.")
                })?;
                self.0.get_or_init(|| made)
            }
        };
        Ok(page::json(bytes.clone()))
    }
}

/// `None` if [`DOCUMENT`] is not what it should be.
fn made(
    Bounds {
        min, max, forward, ..
    }: &Bounds,
) -> Option<Bytes> {
    let mut document = json::parse_object(DOCUMENT.as_bytes()).ok()?;
    let start = START.into_iter().try_fold(&mut document, member)?;
    let amount = member(start, "amount")?;
    json::set(amount, "minimum", Json::Literal(min.to_string().into()));
    json::set(amount, "maximum", Json::Literal(max.to_string().into()));
    for name in forward {
        let passed_on =
            Json::Text("Passed on to the gateway as it is (start.forward_fields).".to_owned());
        json::set(
            start,
            name,
            Json::Object(vec![("description".to_owned(), passed_on)]),
        );
    }
    Some(Json::Object(document).to_string().into())
}

/// The object under that name.
fn member<'a>(object: &'a mut Object, name: &str) -> Option<&'a mut Object> {
    match object.iter_mut().find(|(key, _)| key == name) {
        Some((_, Json::Object(object))) => Some(object),
        _ => None,
    }
}

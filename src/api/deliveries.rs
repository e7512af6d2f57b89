//! `GET /deliveries` and `POST /deliveries/{id}/redeliver`

use std::sync::Arc;

use hyper::Response;

use super::page::{self, Pages, Query};
use super::problem::{Problem, Word};
use crate::clock;
use crate::json::{self, Json, Object};
use crate::serve::Body;
use crate::store::{Delivery, State, Store};

/// One page of what the app was told, or is to be, the newest first.
pub(super) fn deliveries(store: &Store, pages: &Pages, query: &str) -> Result<Response<Body>, Problem> {
    let Query { limit, after, .. } = Query::parse(query, &["limit", "after"])?;
    let find = |most| store.deliveries_before(after, most);
    let show = |delivery: &Arc<Delivery>| Json::Object(shown(delivery));
    pages.page("deliveries", limit, find, |delivery| delivery.number, show)
}

/// Posts it again, whatever came of it before.
pub(super) async fn redeliver(store: &Store, id: &str) -> Result<Response<Body>, Problem> {
    let delivery = store.redeliver(id).await;
    let unknown =
        || Problem::new(Word::NotFound, "There is no delivery of that id (any more): GET /deliveries lists them.");
    delivery.map(|delivery| page::json(Json::Object(shown(&delivery)).to_string())).ok_or_else(unknown)
}

fn shown(delivery: &Delivery) -> Object {
    let text = |text: &str| Json::Text(text.to_owned());
    let next_try_at = match delivery.state {
        State::Due(at) => text(&clock::wall_at(at).to_string()),
        State::Delivered(_) | State::Failed(_) => Json::null(),
    };
    // The message says which payment it is about.
    let message = json::parse_object(delivery.body.as_bytes()).unwrap_or_default();
    let of_payment = |name| match json::get(&message, "data") {
        Some(Json::Object(payment)) => json::get(payment, name).cloned().unwrap_or(Json::null()),
        _ => Json::null(),
    };
    vec![
        ("id".to_owned(), text(&delivery.id)),
        ("type".to_owned(), text(delivery.kind.label())),
        ("code".to_owned(), of_payment("code")),
        ("watch_code".to_owned(), of_payment("watch_code")),
        ("state".to_owned(), text(delivery.state.label())),
        ("created_at".to_owned(), text(&delivery.created_at.to_string())),
        ("tries".to_owned(), Json::Literal(delivery.tries.to_string().into())),
        ("next_try_at".to_owned(), next_try_at),
        ("last_error".to_owned(), delivery.last_error.as_deref().map_or(Json::null(), text)),
    ]
}

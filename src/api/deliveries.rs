//! `GET /deliveries` and `POST /deliveries/{id}/redeliver`

use std::sync::Arc;

use hyper::Response;
use serde::Deserialize;

use super::page::{self, Pages, Query};
use super::problem::{ErrorCode, Problem};
use crate::clock;
use crate::json::{Json, Object};
use crate::server::Body;
use crate::store::{Delivery, DeliveryState, Outbox};

/// Of a message to the app: which payment it is about.
#[derive(Default, Deserialize)]
struct Message {
    data: Subject,
}

#[derive(Default, Deserialize)]
struct Subject {
    code: Option<String>,
    watch_code: Option<String>,
}

/// One page of the messages to the app, the newest first.
pub(super) fn deliveries(
    outbox: &Outbox,
    pages: &Pages,
    query: &str,
) -> Result<Response<Body>, Problem> {
    let Query { limit, after, .. } = Query::parse(query, &["limit", "after"])?;
    let find = |most| outbox.deliveries_before(after, most);
    let show = |delivery: &Arc<Delivery>| Json::Object(shown(delivery));
    pages.page("deliveries", limit, find, |delivery| delivery.number, show)
}

/// Posts it again, whatever came of it before.
pub(super) async fn redeliver(outbox: &Outbox, id: &str) -> Result<Response<Body>, Problem> {
    let delivery = outbox.redeliver(id).await;
    let unknown = || {
        Problem::new(
            ErrorCode::NotFound,
            "There is no delivery of that id (any more): GET /deliveries lists them.",
        )
    };
    delivery
        .map(|delivery| page::json(Json::Object(shown(&delivery)).to_string()))
        .ok_or_else(unknown)
}

fn shown(delivery: &Delivery) -> Object {
    let text = |text: &str| Json::Text(text.to_owned());
    let next_try_at = match delivery.state {
        DeliveryState::Due(at) => text(&clock::wall_at(at).to_string()),
        DeliveryState::Delivered(_) | DeliveryState::Failed(_) => Json::null(),
    };
    let Message { data } = serde_json::from_str(&delivery.body).unwrap_or_default();
    vec![
        ("id".to_owned(), text(&delivery.id)),
        ("type".to_owned(), text(delivery.kind.label())),
        (
            "code".to_owned(),
            data.code.map_or(Json::null(), Json::Text),
        ),
        (
            "watch_code".to_owned(),
            data.watch_code.map_or(Json::null(), Json::Text),
        ),
        ("state".to_owned(), text(delivery.state.label())),
        (
            "created_at".to_owned(),
            text(&delivery.created_at.to_string()),
        ),
        (
            "tries".to_owned(),
            Json::Literal(delivery.tries.to_string().into()),
        ),
        ("next_try_at".to_owned(), next_try_at),
        (
            "last_error".to_owned(),
            delivery.last_error.as_deref().map_or(Json::null(), text),
        ),
    ]
}

//! `GET /deliveries` and `POST /deliveries/{id}/redeliver`

use hyper::Response;

use super::page::{self, Pages, Parameters};
use super::problem::{ErrorCode, Problem};
use crate::json::Json;
use crate::server::Body;
use crate::webhook::{Deliveries, ListedDelivery};

/// One page of the messages to the app, the newest first.
pub(super) fn deliveries(
    deliveries: &Deliveries,
    pages: &Pages,
    query: &str,
) -> Result<Response<Body>, Problem> {
    let parameters = Parameters::parse(query, &["limit", "after"])?;
    let (limit, after) = (parameters.limit()?, parameters.after()?);
    let room = pages.room()?;
    let mut found = deliveries.before(after, limit + 1);
    let next = page::cut(&mut found, limit, |delivery| delivery.number);
    let object = vec![
        (
            "deliveries".to_owned(),
            Json::Array(found.iter().map(shown).collect()),
        ),
        ("next".to_owned(), next.map_or(Json::null(), Json::Text)),
    ];
    Ok(page::json(room.page(Json::Object(object).to_string())))
}

/// Posts it again, whatever came of it before.
pub(super) async fn redeliver(
    deliveries: &Deliveries,
    id: &str,
) -> Result<Response<Body>, Problem> {
    let delivery = deliveries.redeliver(id).await.ok_or_else(|| {
        Problem::new(
            ErrorCode::NotFound,
            "There is no delivery of that id (any more): GET /deliveries lists them.",
        )
    })?;
    Ok(page::json(shown(&delivery).to_string()))
}

fn shown(delivery: &ListedDelivery) -> Json {
    let text = |text: &dyn ToString| Json::Text(text.to_string());
    let or_null = |value: Option<Json>| value.unwrap_or_else(Json::null);
    let tries = Json::Literal(delivery.tries.to_string().into());
    let next_try_at = delivery.next_try_at.as_ref().map(|at| text(at));
    let last_error = delivery.last_error.as_ref().map(|why| text(why));
    let fields = [
        ("id", text(&delivery.id)),
        ("type", text(&delivery.kind)),
        ("code", text(&delivery.code)),
        ("watch_code", text(&delivery.watch_code)),
        ("state", text(&delivery.state)),
        ("created_at", text(&delivery.created_at)),
        ("tries", tries),
        ("next_try_at", or_null(next_try_at)),
        ("last_error", or_null(last_error)),
    ];
    Json::Object(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

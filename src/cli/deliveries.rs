//! `tillgate deliveries`: lists the webhooks of a running sidecar, or has some of them posted again.

use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request};

use super::client::{self, Answer};
use super::exit::Exit;
use super::output::{answer, failed, misconfigured};
use crate::config::{self, Environment, Reach};
use crate::json::{self, Json, Object};
use crate::server::{BoxError, ListenAddr};

/// What is to be done.
pub(super) enum Action {
    /// Prints all of them.
    List,
    /// Posts the one of this id again.
    Redeliver(String),
    /// Posts all again that have failed for good.
    RedeliverFailed,
}

/// The fields of a delivery in their columns. The last one may have spaces in it.
const COLUMNS: [&str; 8] = [
    "id",
    "type",
    "state",
    "created_at",
    "tries",
    "next_try_at",
    "watch_code",
    "last_error",
];

/// Does it, and prints the deliveries that it is about. Asks `api`, or else a listener of the configuration.
pub(super) async fn deliveries(
    path: Option<&Path>,
    environment: &Environment,
    api: Option<ListenAddr>,
    action: Action,
) -> Exit {
    let reach = match config::reach(path, environment, api) {
        Ok(reach) => reach,
        Err(diagnostics) => return misconfigured(&diagnostics),
    };
    let mut found = Vec::new();
    let done = act(&reach, action, &mut found).await;
    // Also those before a failure.
    if !found.is_empty() {
        answer(table(&found).trim_end());
    }
    match done {
        Ok(()) => {
            if found.is_empty() {
                answer("there are none");
            }
            Exit::Fine
        }
        Err(error) => failed(&error),
    }
}

async fn act(reach: &Reach, action: Action, found: &mut Vec<Object>) -> Result<(), BoxError> {
    match action {
        Action::List => *found = list(reach).await?,
        Action::Redeliver(id) => found.push(redeliver(reach, &id).await?),
        Action::RedeliverFailed => {
            for delivery in list(reach).await? {
                if field(&delivery, "state") == "failed" {
                    found.push(redeliver(reach, &field(&delivery, "id")).await?);
                }
            }
        }
    }
    Ok(())
}

async fn redeliver(reach: &Reach, id: &str) -> Result<Object, BoxError> {
    let path = format!("/deliveries/{id}/redeliver");
    let posted = call(reach, Method::POST, &path).await?;
    Ok(json::parse_object(posted.body.as_bytes())?)
}

async fn list(reach: &Reach) -> Result<Vec<Object>, BoxError> {
    // A page of 200 stays below the client's limit of 1 MiB, with the longest errors that there can be.
    const PAGE: &str = "/deliveries?limit=200";
    let (mut found, mut path) = (Vec::new(), PAGE.to_owned());
    loop {
        let mut page = json::parse_object(call(reach, Method::GET, &path).await?.body.as_bytes())?;
        let next = json::get(&page, "next").and_then(Json::as_text);
        let next = next.map(|next| format!("{PAGE}&after={next}"));
        for (name, value) in page.drain(..) {
            if let ("deliveries", Json::Array(deliveries)) = (&*name, value) {
                found.extend(
                    deliveries
                        .into_iter()
                        .filter_map(|delivery| match delivery {
                            Json::Object(delivery) => Some(delivery),
                            _ => None,
                        }),
                );
            }
        }
        match next {
            Some(next) => path = next,
            None => return Ok(found),
        }
    }
}

async fn call(reach: &Reach, method: Method, path: &str) -> Result<Answer, BoxError> {
    let (authority, place) = match &reach.listen_addr {
        ListenAddr::Tcp(address) => (
            address.reachable(),
            format!("http://{}", address.reachable()),
        ),
        other => ("localhost".to_owned(), other.to_string()),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{authority}{path}"))
        .header(HOST, "localhost");
    if let Some(token) = &reach.token {
        request = request.header(AUTHORIZATION, token);
    }
    let request = request.body(Full::<Bytes>::default())?;
    let received = match &reach.listen_addr {
        ListenAddr::Unix(path) => client::call_unix(path, request).await,
        ListenAddr::Tcp(_) | ListenAddr::Inherited(_) => client::call(request).await,
    };
    let received = received.map_err(|error| {
        format!(
            "nothing answers at {place} ({error}): is tillgate running, and is listen.address right, or --api?"
        )
    })?;
    if received.status.is_success() {
        return Ok(received);
    }
    let detail = json::parse_object(received.body.as_bytes()).ok();
    let detail = detail
        .as_ref()
        .and_then(|object| json::get(object, "detail"))
        .and_then(Json::as_text);
    Err(detail
        .unwrap_or("the sidecar refused, and did not say why")
        .into())
}

/// Returns a field as text; `-` stands for one that is null or missing.
fn field(delivery: &Object, name: &str) -> String {
    match json::get(delivery, name) {
        Some(Json::Text(text)) => text.clone(),
        Some(Json::Literal(literal)) if &**literal != "null" => literal.to_string(),
        _ => "-".to_owned(),
    }
}

/// Returns a line for each of them, in columns, below a line of their names.
fn table(deliveries: &[Object]) -> String {
    let rows = deliveries
        .iter()
        .map(|delivery| COLUMNS.map(|name| field(delivery, name)));
    let head = COLUMNS.map(str::to_uppercase);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let mut widths = [0; COLUMNS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

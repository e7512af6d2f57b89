//! `tillgate deliveries`: lists the webhooks of a running sidecar, or has one of them posted again.

use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request};

use super::client::{self, Answer};
use super::exit::Exit;
use super::output::{answer, failed, misconfigured};
use crate::config::{self, Environment, Reach};
use crate::json::{self, Json};
use crate::server::{BoxError, ListenAddr};

/// Prints all deliveries, or has the one with the id `redeliver` posted again and prints it.
pub(super) async fn deliveries(
    path: Option<&Path>,
    environment: &Environment,
    redeliver: Option<&str>,
) -> Exit {
    let reach = match config::reach(path, environment) {
        Ok(reach) => reach,
        Err(diagnostics) => return misconfigured(&diagnostics),
    };
    let done = match redeliver {
        Some(id) => call(&reach, Method::POST, &format!("/deliveries/{id}/redeliver"))
            .await
            .map(|answer| show(&answer.body)),
        None => list(&reach).await,
    };
    match done {
        Ok(text) => {
            answer(text.trim_end());
            Exit::Fine
        }
        Err(error) => failed(&error),
    }
}

async fn list(reach: &Reach) -> Result<String, BoxError> {
    let (mut text, mut path) = (String::new(), "/deliveries?limit=1000".to_owned());
    loop {
        let page = json::parse_object(call(reach, Method::GET, &path).await?.body.as_bytes())?;
        if let Some(Json::Array(deliveries)) = json::get(&page, "deliveries") {
            deliveries
                .iter()
                .for_each(|delivery| text.push_str(&show(&delivery.to_string())));
        }
        match json::get(&page, "next").and_then(Json::as_text) {
            Some(next) => path = format!("/deliveries?limit=1000&after={next}"),
            None if text.is_empty() => return Ok("there are none".to_owned()),
            None => return Ok(text),
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
    let received = received.map_err(|_| {
        format!("nothing answers at {place}: is tillgate running, and is listen.address right?")
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

/// Returns one delivery as a line of text; `-` stands for a field that is null or missing.
fn show(delivery: &str) -> String {
    let object = json::parse_object(delivery.as_bytes()).unwrap_or_default();
    let field = |name| match json::get(&object, name) {
        Some(Json::Text(text)) => text.clone(),
        Some(Json::Literal(literal)) if &**literal != "null" => literal.to_string(),
        _ => "-".to_owned(),
    };
    let fields = [
        "id",
        "type",
        "state",
        "created_at",
        "tries",
        "next_try_at",
        "last_error",
        "watch_code",
    ]
    .map(field);
    format!("{}\n", fields.join("  "))
}

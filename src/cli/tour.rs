//! `tillgate dev --tour`: the steps of the gateway's guide, against the running `dev`.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use hyper::{Method, Request, StatusCode};

use super::client::{self, Answer};
use super::output::answer;
use super::places::Places;
use crate::clock;
use crate::json::{self, Json};
use crate::server::BoxError;

/// Walks all steps. `authorization` is sent to the API, where it wants one.
///
/// # Errors
/// Fails at the first answer that is not what the step promises.
pub(super) async fn walk(places: &Places, authorization: Option<&str>) -> Result<(), BoxError> {
    let Places { api, sandbox, .. } = places;
    step(
        "Step 0 - The merchant secret: the operator gets it from the gateway and gives it to tillgate, not to the app",
    );
    show(Method::GET, &format!("{sandbox}/dev/api"), "", None).await?;

    step("Step 1 - Start a payment: the app sends an amount, tillgate adds the secret");
    let order = format!(r#"{{"amount": 1000, "redirect": "{sandbox}/"}}"#);
    let started = show(
        Method::POST,
        &format!("{api}/api/start_payment"),
        &order,
        authorization,
    )
    .await?;
    let (pay_url, watch_code) = (field(&started, "pay_url")?, field(&started, "watch_code")?);
    let watch_url = format!("{api}/watch/{watch_code}");
    expect(
        &show(Method::GET, &watch_url, "", authorization).await?,
        "created",
    )?;

    step(
        "Step 2 - The payer opens pay_url, and clicks Pay; the gateway sends them back to the redirect",
    );
    show(Method::GET, &pay_url, "", None).await?;
    let (page, query) = pay_url.split_once('?').unwrap_or((&pay_url, ""));
    let paid = show(Method::POST, page, query, None).await?;
    if paid.status != StatusCode::SEE_OTHER {
        return Err("the pay page did not send the payer back".into());
    }

    step(
        "Step 3 - Watch: the app asks as often as it likes, tillgate asks the gateway once for everyone",
    );
    watch_until_paid(&watch_url, authorization).await?;

    step("Step 4 - Done: the payment stands in the merchant's portal");
    show(Method::GET, &format!("{sandbox}/"), "", None).await?;
    answer("\nThat was the whole guide, and no app has seen the secret.");
    Ok(())
}

/// Polls for about five seconds, and prints the last answer.
async fn watch_until_paid(url: &str, authorization: Option<&str>) -> Result<(), BoxError> {
    let mut left = 50;
    loop {
        let watched = client::call(request(Method::GET, url, "", authorization)?).await?;
        if left == 0 || expect(&watched, "completed").is_ok() {
            print(&Method::GET, url, "", &watched);
            return expect(&watched, "completed");
        }
        left -= 1;
        clock::sleep(Duration::from_millis(100)).await;
    }
}

fn step(title: &str) {
    answer(&format!("\n{title}\n"));
}

async fn show(
    method: Method,
    url: &str,
    body: &str,
    authorization: Option<&str>,
) -> Result<Answer, BoxError> {
    let received = client::call(request(method.clone(), url, body, authorization)?).await?;
    print(&method, url, body, &received);
    if received.status.is_client_error() || received.status.is_server_error() {
        return Err(format!("{method} {url} failed").into());
    }
    Ok(received)
}

fn request(
    method: Method,
    url: &str,
    body: &str,
    authorization: Option<&str>,
) -> Result<Request<Full<Bytes>>, BoxError> {
    let kind = if body.starts_with('{') {
        "application/json"
    } else {
        "application/x-www-form-urlencoded"
    };
    let mut request = Request::builder().method(method).uri(url);
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, kind);
    }
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    Ok(request.body(Full::from(body.to_owned()))?)
}

fn print(method: &Method, url: &str, body: &str, received: &Answer) {
    answer(&format!("  > {method} {url}"));
    if !body.is_empty() {
        answer(&format!("  > {body}"));
    }
    answer(&format!("  < {}", received.status));
    if let Some(location) = received
        .headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
    {
        answer(&format!("  < Location: {location}"));
    }
    let is_page = received
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    match received.body.as_str() {
        "" => {}
        page if is_page => answer(&format!(
            "  < an HTML page of {} bytes: {}",
            page.len(),
            title(page)
        )),
        body => answer(&format!("  < {body}")),
    }
}

fn title(page: &str) -> &str {
    let rest = page.split_once("<title>").map_or("", |(_, rest)| rest);
    rest.split("</title>").next().unwrap_or_default().trim()
}

fn field(answer: &Answer, name: &str) -> Result<String, BoxError> {
    let object = json::parse_object(answer.body.as_bytes())?;
    let text = json::get(&object, name).and_then(Json::as_text);
    Ok(text
        .ok_or_else(|| format!("{name} is missing in the answer"))?
        .to_owned())
}

fn expect(answer: &Answer, status: &str) -> Result<(), BoxError> {
    if field(answer, "status")? == status {
        Ok(())
    } else {
        Err(format!("the payment is not {status}").into())
    }
}

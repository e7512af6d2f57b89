//! What the gateway says, well or badly.

use bytes::Bytes;
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::dice::Dice;

pub fn response(status: u16, body: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::copy_from_slice(body.as_bytes()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

pub fn started((code, watch_code): &(String, String), is_cut: bool) -> Response<Bytes> {
    let body = json!({"code": code, "message": "Payment started", "watch_code": watch_code});
    let mut body = body.to_string();
    if is_cut {
        body.truncate(body.len() - 5);
    }
    response(200, &body)
}

pub fn unknown() -> Response<Bytes> {
    response(404, r#"{"message":"unknown"}"#)
}

pub fn failure(dice: &mut Dice) -> Response<Bytes> {
    let mut failure = match dice.below(6) {
        0 => response(429, "{}"),
        1 => response(500, "{}"),
        2 => response(400, r#"{"message":"no"}"#),
        3 => response(200, "<html>"),
        4 => response(200, r#"{"code":"pay-1"}"#),
        _ => response(503, "{}"),
    };
    if dice.percent(50) {
        let seconds = dice.below(20).to_string();
        let headers = failure.headers_mut();
        headers.insert("retry-after", seconds.parse().unwrap());
    }
    failure
}

//! The answers of the gateway's API.

use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::ledger::{Payment, format_time};
use crate::server::{Body, full};

/// A status and a JSON object. The fields keep their order, and their values are JSON text: a long amount keeps all its
/// digits, and a fault can change one of them.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    fields: Vec<(&'static str, String)>,
}

impl Reply {
    pub(super) fn ok() -> Self {
        Reply {
            status: StatusCode::OK,
            fields: Vec::new(),
        }
    }

    pub(super) fn message(status: StatusCode, message: &str) -> Self {
        Reply {
            status,
            fields: Vec::new(),
        }
        .text("message", message)
    }

    pub(super) fn started(payment: &Payment) -> Self {
        Reply::ok()
            .text("code", &payment.code)
            .text("message", "Payment started")
            .text("watch_code", &payment.watch_code)
    }

    pub(super) fn watched(payment: &Payment, merchant: &str) -> Self {
        Reply::ok()
            .text("status", payment.status())
            .json("amount", payment.amount.as_str())
            .text("merchant", merchant)
            .text("created_at", &format_time(payment.created_at))
            .json(
                "completed_at",
                payment
                    .completed_at()
                    .map_or("null".to_owned(), |time| quoted(&format_time(time))),
            )
    }

    pub(super) fn text(self, name: &'static str, value: &str) -> Self {
        self.json(name, quoted(value))
    }

    pub(super) fn json(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        response(self.status, "application/json", self.body())
    }

    pub(super) fn body(&self) -> String {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    }

    /// Changes the value of a field, if there is one: a refusal has none of them.
    pub(super) fn set(mut self, name: &str, change: impl Fn(&str) -> String) -> Self {
        for (_, value) in self.fields.iter_mut().filter(|(known, _)| *known == name) {
            *value = change(value);
        }
        self
    }

    pub(super) fn without(mut self, names: &[&str]) -> Self {
        self.fields.retain(|(name, _)| !names.contains(name));
        self
    }
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(super) fn with(
    mut response: Response<Body>,
    name: HeaderName,
    value: HeaderValue,
) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

//! Takes the secret out of what the gateway says: an answer that echoes the request must not carry it on to callers.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::json::Json;

/// What stands in its place.
const REDACTED: &str = "[redacted]";

/// Looks for one secret.
pub(super) struct Scrubber<'a> {
    secret: Option<Arc<SecretString>>,
    echoes: &'a Counter,
}

impl<'a> Scrubber<'a> {
    /// `echoes` counts the answers that it was found in.
    pub(super) fn new(secret: Option<Arc<SecretString>>, echoes: &'a Counter) -> Self {
        Self { secret, echoes }
    }

    /// Takes it out of every name and value. Values are unescaped, so that however JSON wrote it is no matter; a text
    /// that quotes JSON has it in its escaped form.
    pub(super) fn scrub(&self, value: &mut Json) {
        let Some(secret) = &self.secret else { return };
        let raw = secret.expose_secret();
        let escaped = escaped(raw);
        let mut found = false;
        value.rewrite(&mut |text| {
            let hit = text.contains(raw) || text.contains(&**escaped);
            found |= hit;
            hit.then(|| text.replace(&**escaped, REDACTED).replace(raw, REDACTED))
        });
        if found {
            self.echoes.inc();
            tracing::error!("the gateway echoed the merchant secret; it was taken out of the answer");
        }
    }
}

/// As it stands between the quotes of a JSON text, in a wiped buffer of the exact size.
fn escaped(secret: &str) -> Zeroizing<String> {
    let extra = secret.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    let mut escaped = Zeroizing::new(String::with_capacity(secret.len() + extra));
    for c in secret.chars() {
        if matches!(c, '"' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn neither_form_of_the_secret_is_left() {
        let secret = r#"sec"ret\1234"#;
        let echoes = Counter::default();
        let scrubber = Scrubber::new(Some(Arc::new(SecretString::from(secret))), &echoes);
        let request = format!("{{\"merchant_secret\":{}}}", json::quoted(secret));
        let answer = format!(
            r#"{{"a":{},"b":["x\u0073ec\"ret\\1234"],{}:1,"request":{}}}"#,
            json::quoted(secret),
            json::quoted(secret),
            json::quoted(&request)
        );
        let mut value = Json::Object(json::parse_object(answer.as_bytes()).unwrap());
        scrubber.scrub(&mut value);
        assert_eq!(
            value.to_string(),
            r#"{"a":"[redacted]","b":["x[redacted]"],"[redacted]":1,"request":"{\"merchant_secret\":\"[redacted]\"}"}"#
        );
        assert_eq!(echoes.get(), 1);
    }
}

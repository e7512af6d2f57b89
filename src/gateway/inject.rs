//! The only place that writes the secret: the body of a start.

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::order::Order;
use crate::json;

/// Returns the body of a start, in a buffer that is wiped when the last reference to it is dropped.
pub(super) fn body(secret: &SecretString, order: &Order) -> Bytes {
    let mut rest = format!(r#"","amount":{}"#, order.amount);
    for (name, value) in &order.extra {
        rest.push_str(&format!(",{}:{value}", json::quoted(name)));
    }
    rest.push('}');
    let secret = secret.expose_secret();
    let head = br#"{"merchant_secret":""#;
    // Sized exactly: a buffer that grows leaves a copy of the secret behind.
    let escaped = secret
        .bytes()
        .map(|byte| 1 + usize::from(matches!(byte, b'"' | b'\\')))
        .sum::<usize>();
    let mut body = Zeroizing::new(Vec::with_capacity(head.len() + escaped + rest.len()));
    body.extend_from_slice(head);
    for byte in secret.bytes() {
        // A secret has no control characters, so these are the only bytes that JSON escapes (RFC 8259, section 7).
        if matches!(byte, b'"' | b'\\') {
            body.push(b'\\');
        }
        body.push(byte);
    }
    body.extend_from_slice(rest.as_bytes());
    Bytes::from_owner(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::Amount;

    #[test]
    fn the_body_is_what_the_guide_asks_for_and_fits_its_buffer() {
        let order = Order {
            amount: Amount::new(1000),
            extra: crate::json::parse_object(br#"{"note":"a \"b\"","n":1e2}"#).unwrap(),
        };
        let body = body(&SecretString::from(r#"s"e\cret-ü"#), &order);
        let text = std::str::from_utf8(&body).unwrap();
        assert_eq!(
            text,
            r#"{"merchant_secret":"s\"e\\cret-ü","amount":1000,"note":"a \"b\"","n":1e2}"#
        );
        assert!(crate::json::parse_object(&body).is_ok());
    }
}

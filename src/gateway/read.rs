//! Reads the body of an answer: its fields, and its message for people.

use super::scrub::Scrubber;
use crate::json::{self, Json, Lenient, Object};
use crate::text;

/// The most characters of a message that people are shown.
const MAX_MESSAGE: usize = 200;

/// The most characters of it that are searched for the secret before that.
const MAX_SEARCHED: usize = 8192;

/// The fields in which a refusal may have its message, in the order in which they are tried.
const MESSAGES: [&str; 3] = ["message", "error", "detail"];

/// A body without the secret.
pub(super) struct Reading {
    /// Its fields, or why it has none.
    pub(super) fields: Result<Fields, &'static str>,
    /// Its message for people.
    pub(super) message: Option<String>,
}

/// The fields of an object.
pub(super) struct Fields {
    object: Object,
    /// The names that occur more than once.
    repeated: Vec<String>,
    /// The name of a field that is acted on and had the secret in it.
    pub(super) echoed: Option<&'static str>,
}

impl Fields {
    /// Returns a field that the program acts on.
    ///
    /// # Errors
    /// Fails if the field occurs more than once: which of them counts would be a guess.
    pub(super) fn once(&self, name: &str) -> Result<Option<&Json>, String> {
        if self.repeated.iter().any(|repeated| repeated == name) {
            return Err(format!("{name} occurs twice in the gateway's answer"));
        }
        Ok(json::get(&self.object, name))
    }

    /// Returns all fields, each name once.
    pub(super) fn into_object(self) -> Object {
        self.object
    }
}

/// Reads the body of an answer with this status leniently, and removes the secret from everything in it.
pub(super) fn read(
    status: u16,
    content_type: Option<&str>,
    body: &[u8],
    scrubber: &Scrubber,
) -> Reading {
    let (fields, message) = match json::parse_lenient(body) {
        Ok(Lenient {
            value: Json::Object(mut object),
            repeated,
        }) => {
            let message = message_in(&object).and_then(|message| shown(message, scrubber));
            let echoed = scrubber.object(&mut object);
            let fields = Fields {
                object,
                repeated,
                echoed,
            };
            (Ok(fields), message)
        }
        // A malformed success may have the code of a payment anywhere in it, and a message must not reveal that.
        other if (200..300).contains(&status) => {
            (Err(other.err().unwrap_or(json::NO_OBJECT)), None)
        }
        Ok(Lenient {
            value: Json::Text(text),
            ..
        }) => (Err(json::NO_OBJECT), shown_alone(text, scrubber)),
        other => {
            let message = plain_text(content_type, body);
            let message = message.and_then(|text| shown_alone(text, scrubber));
            (Err(other.err().unwrap_or(json::NO_OBJECT)), message)
        }
    };
    Reading { fields, message }
}

/// Returns the message of a body that is nothing but text.
fn shown_alone(text: String, scrubber: &Scrubber) -> Option<String> {
    let message = shown(&text, scrubber);
    // An echo counts also where nobody is shown it.
    scrubber.text(text);
    message
}

/// Returns the first message in an object.
fn message_in(object: &Object) -> Option<&str> {
    let named = MESSAGES
        .iter()
        .find_map(|name| words(json::get(object, name)?));
    named.or_else(|| match json::get(object, "errors")? {
        Json::Array(errors) => errors.iter().find_map(words),
        // An object by the names of fields, each with one message or a list of them.
        errors @ Json::Object(fields) => words(errors).or_else(|| {
            fields.iter().find_map(|(_, messages)| match messages {
                Json::Array(messages) => messages.iter().find_map(words),
                message => words(message),
            })
        }),
        error => words(error),
    })
}

/// Returns the text itself, or the first message field of an object.
fn words(value: &Json) -> Option<&str> {
    match value {
        Json::Object(object) => MESSAGES
            .iter()
            .find_map(|name| text_of(json::get(object, name)?)),
        value => text_of(value),
    }
}

/// Returns the text, unless it is blank.
fn text_of(value: &Json) -> Option<&str> {
    value
        .as_text()
        .filter(|text| text.contains(|c: char| !c.is_control() && !c.is_whitespace()))
}

/// Returns a body that is not JSON, if its type says that people can read it.
fn plain_text(content_type: Option<&str>, body: &[u8]) -> Option<String> {
    let text = json::decode_lenient(body);
    let kind = content_type
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default()
        .trim();
    let is_plain = kind.eq_ignore_ascii_case("text/plain")
        || kind.is_empty() && !text.trim_start().starts_with('<');
    is_plain.then(|| text.into_owned())
}

/// Returns the message as people are shown it: one short line.
fn shown(message: &str, scrubber: &Scrubber) -> Option<String> {
    // The characters that are left out could be in the middle of the secret, so it is searched for without them. The
    // message is shortened last, because half of a secret would not be found.
    let message: String = text::printable(message).take(MAX_SEARCHED).collect();
    let message: String = scrubber
        .text(message)
        .trim()
        .chars()
        .take(MAX_MESSAGE)
        .collect();
    (!message.is_empty()).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str, content_type: Option<&str>) -> Option<String> {
        read(422, content_type, body.as_bytes(), &Scrubber::new(&[])).message
    }

    #[test]
    fn a_message_is_found_wherever_refusals_have_one() {
        for body in [
            r#"{"message":"m"}"#,
            r#"{"error":"m"}"#,
            r#"{"detail":"m"}"#,
            r#"{"detail":"no","error":"no","message":"m"}"#,
            r#"{"message":"","error":{"code":7,"message":"m"}}"#,
            r#"{"message":7,"error":{"detail":"m"}}"#,
            r#"{"error":{"error":"m"},"detail":"no"}"#,
            r#"{"errors":["m","no"]}"#,
            r#"{"errors":[{"status":"422","detail":"m"}]}"#,
            r#"{"errors":[null,{"code":1},{"message":"m"}]}"#,
            r#"{"errors":{"amount":["m","no"],"other":["no"]}}"#,
            r#"{"errors":{"amount":"m"}}"#,
            r#"{"errors":{"amount":[],"other":{"message":"m"}}}"#,
            r#"{"errors":{"code":7,"message":"m"}}"#,
            r#"{"errors":"m"}"#,
            r#"{"errors":["no"],"message":"m"}"#,
            r#""m""#,
            "{\"message\":\" \\u0007m\\n\"}",
        ] {
            for content_type in [None, Some("application/json"), Some("text/plain")] {
                assert_eq!(
                    message(body, content_type).as_deref(),
                    Some("m"),
                    "{body} {content_type:?}"
                );
            }
        }
        for body in [
            "{}",
            "",
            r#"{"message":null,"error":{"message":{"message":"too deep"}},"errors":[]}"#,
            r#"{"message":" \t","errors":{"code":7}}"#,
            r#"{"title":"no","data":{"message":"no"}}"#,
        ] {
            assert_eq!(message(body, None), None, "{body}");
        }
    }

    #[test]
    fn a_text_is_a_message_if_a_person_is_meant_to_read_it() {
        for (body, content_type, expected) in [
            (
                "Unknown merchant\r\n",
                Some("text/plain"),
                Some("Unknown merchant"),
            ),
            (
                "Unknown merchant",
                Some("Text/Plain; charset=iso-8859-1"),
                Some("Unknown merchant"),
            ),
            ("Unknown merchant", None, Some("Unknown merchant")),
            ("Unknown merchant", Some(""), Some("Unknown merchant")),
            ("42", Some("text/plain"), Some("42")),
            ("\u{feff}no", Some("text/plain"), Some("no")),
            ("<p>no", Some("text/plain"), Some("<p>no")),
            ("\n <p>no", None, None),
            ("Unknown merchant", Some("text/html"), None),
            ("Unknown merchant", Some("application/json"), None),
            (" \r\n", Some("text/plain"), None),
        ] {
            assert_eq!(
                message(body, content_type).as_deref(),
                expected,
                "{body:?} {content_type:?}"
            );
        }
    }

    #[test]
    fn a_yes_that_cannot_be_read_says_nothing() {
        for body in [
            r#"{"code":"pay_1","watch_c"#,
            r#"[{"code":"pay_1"}]"#,
            r#""pay_1""#,
            "code=pay_1",
        ] {
            for (status, content_type) in [
                (200, None),
                (201, Some("text/plain")),
                (299, Some("application/json")),
            ] {
                let reading = read(status, content_type, body.as_bytes(), &Scrubber::new(&[]));
                assert!(
                    reading.fields.is_err() && reading.message.is_none(),
                    "{status} {body}"
                );
            }
        }
    }
}

//! What is posted.

use jiff::Timestamp;

use crate::json::{Json, Object};
use crate::store::{self, Kind, Subject};

/// Composes the body of a message about a payment.
pub(crate) fn compose(kind: Kind, subject: Subject<'_>, at: Timestamp) -> String {
    message(kind.label(), at, store::shown(subject))
}

/// Composes the body of a message about nothing.
pub(super) fn test(at: Timestamp) -> String {
    message("tillgate.test", at, Object::new())
}

fn message(kind: &str, at: Timestamp, data: Object) -> String {
    let text = |text: &str| Json::Text(text.to_owned());
    Json::Object(vec![
        ("type".to_owned(), text(kind)),
        ("timestamp".to_owned(), text(&at.to_string())),
        ("data".to_owned(), Json::Object(data)),
    ])
    .to_string()
}

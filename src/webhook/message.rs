//! What is posted.

use jiff::Timestamp;

use crate::json::Json;
use crate::store::{self, Kind, Subject};

/// Composes the body of a message about a payment.
pub(crate) fn compose(kind: Kind, subject: Subject<'_>, at: Timestamp) -> String {
    let text = |text: &str| Json::Text(text.to_owned());
    Json::Object(vec![
        ("type".to_owned(), text(kind.label())),
        ("timestamp".to_owned(), text(&at.to_string())),
        ("data".to_owned(), Json::Object(store::shown(subject))),
    ])
    .to_string()
}

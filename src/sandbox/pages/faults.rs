//! The page of faults, on which a person sets and removes them.

use hyper::{Response, StatusCode};

use super::super::fault::{Fault, Operation, WORDS};
use super::frame::page;
use crate::html::text;
use crate::server::Body;

/// Examples of faults that are more than one word, to be added with other numbers.
const OTHERS: [(&str, &str); 4] = [
    ("status=500", "this status in place of an answer"),
    (
        "status=503,retry-after=5",
        "the same with a Retry-After, as 429 may have too",
    ),
    ("delay=3s", "the right answer, late"),
    ("reset,rate=0.3", "any of these for a share of the calls"),
];

/// Returns the page: the faults that are set, and buttons to change them.
pub(in super::super) fn faults(faults: &[Fault], host: &str) -> Response<Body> {
    page("Faults", &main(faults, host, None))
}

/// Returns the page after a text that is not a fault, so that it can be corrected there.
pub(in super::super) fn bad_fault(
    faults: &[Fault],
    host: &str,
    written: &str,
    why: &str,
) -> Response<Body> {
    let mut page = page("Faults", &main(faults, host, Some((written, why))));
    *page.status_mut() = StatusCode::BAD_REQUEST;
    page
}

fn main(faults: &[Fault], host: &str, bad: Option<(&str, &str)>) -> String {
    let (written, problem) = match bad {
        Some((written, why)) => (
            written,
            format!(
                r#"<p class="note" role="alert" id="problem">This is not set: {}.</p>"#,
                text(why)
            ),
        ),
        None => ("", String::new()),
    };
    format!(
        include_str!("faults.html"),
        set = set(faults),
        problem = problem,
        describedby = if bad.is_some() {
            r#" aria-invalid="true" aria-describedby="problem""#
        } else {
            ""
        },
        written = text(written),
        rows = rows(),
        base = text(&format!("http://{host}")),
    )
}

fn set(faults: &[Fault]) -> String {
    if faults.is_empty() {
        return r#"<p class="quiet">None: every call is answered as it should be.</p>"#.to_owned();
    }
    let rows: String = faults
        .iter()
        .map(|fault| {
            let fault = fault.to_string();
            let fault = text(&fault);
            format!(
                r#"<li><code>{fault}</code> <button class="small" name="remove" value="{fault}" aria-label="End {fault}">End</button></li>
"#
            )
        })
        .collect();
    format!(
        r#"<ol class="set">
{rows}</ol>
<p><button class="small" name="clear" value="all">End them all</button></p>"#
    )
}

/// Returns the rows of the table of kinds, each with a button for each call that can have it.
fn rows() -> String {
    let both = [Operation::Start, Operation::Watch];
    let words = WORDS.iter().map(|(word, _, by, what)| row(word, what, by));
    OTHERS
        .iter()
        .map(|(items, what)| row(items, what, &both))
        .chain(words)
        .collect()
}

fn row(items: &str, what: &str, operations: &[Operation]) -> String {
    let buttons: String = operations
        .iter()
        .map(|call| {
            format!(
                r#" <button class="small" name="add" value="{call}:{items}" aria-label="Add {call}:{items}">{call}</button>"#
            )
        })
        .collect();
    format!(
        "<li><span><code>{items}</code><br><span class=\"quiet\">{what}</span></span> <span class=\"adds\">{buttons}</span></li>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_button_adds_what_it_says() {
        let html = main(&[], "localhost", None);
        let values: Vec<_> = html
            .split("name=\"add\" value=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        let added: Vec<_> = values.iter().filter(|value| value.contains(':')).collect();
        assert!(added.len() > 25, "{values:?}");
        for value in added {
            assert_eq!(
                value
                    .parse::<Fault>()
                    .map(|fault| fault.to_string())
                    .as_deref(),
                Ok(*value)
            );
        }
    }
}

//! The page of faults, on which a person sets and removes them.

use hyper::{Response, StatusCode};
use maud::{Markup, display, html};

use super::super::fault::{Fault, Operation, WORDS};
use super::frame::page;
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

fn main(faults: &[Fault], host: &str, bad: Option<(&str, &str)>) -> Markup {
    html! {
        main {
            div.head {
                h1 { "Faults" }
                p.quiet {
                    "What goes wrong with this gateway, from now on. The first in the list that hits a call decides."
                }
            }
            section.card.prose {
                h2 { "Set now" }
                form method="post" action="/_sandbox/faults" { (set(faults)) }
            }
            section.card.prose { (add(bad)) }
            section.card.prose {
                h2 { "With one click" }
                form method="post" action="/_sandbox/faults" { ul.kinds { (kinds()) } }
            }
            section.card.prose {
                h2 { "From a test" }
                p { "This replaces all that is set; an empty list ends it." }
                pre tabindex="0" { code {
                    "curl http://" (host) r#"/_sandbox/faults -d '{"faults": ["start:reset,count=1"]}'"#
                } }
            }
        }
    }
}

fn set(faults: &[Fault]) -> Markup {
    let faults: Vec<_> = faults.iter().map(Fault::to_string).collect();
    html! {
        @if faults.is_empty() {
            p.quiet { "None: every call is answered as it should be." }
        } @else {
            ol.set {
                @for fault in faults {
                    li {
                        code { (fault) } " "
                        button.small name="remove" value=(fault) aria-label={ "End " (fault) } { "End" }
                    }
                }
            }
            p { button.small name="clear" value="all" { "End them all" } }
        }
    }
}

fn add(bad: Option<(&str, &str)>) -> Markup {
    let written = bad.map_or("", |(written, _)| written);
    html! {
        h2 { "Add one" }
        @if let Some((_, why)) = bad {
            p.note #problem role="alert" { "This is not set: " (why) "." }
        }
        form.line method="post" action="/_sandbox/faults" {
            label for="fault" { "Fault" } " "
            input #fault name="add" value=(written) placeholder="start:status=503,rate=0.3" autocomplete="off"
                autocapitalize="off" spellcheck="false" required
                aria-invalid=[bad.map(|_| "true")] aria-describedby=[bad.map(|_| "problem")];
            " " button.small { "Add" }
        }
        p.quiet {
            code { "start:" } " or " code { "watch:" } " and one kind from below; with " code { "delay=2s" } ", "
            code { "rate=0.3" } " (a share of the calls) and " code { "count=3" } " (so many calls) as wanted, between commas."
        }
    }
}

/// Returns the rows of the table of kinds, each with a button for each call that can have it.
fn kinds() -> Markup {
    let others =
        OTHERS.map(|(items, what)| (items, [Operation::Start, Operation::Watch].as_slice(), what));
    let words = WORDS
        .iter()
        .map(|(word, _, operations, what)| (*word, *operations, *what));
    html! {
        @for (items, operations, what) in others.into_iter().chain(words) {
            li {
                span { code { (items) } br; span.quiet { (what) } } " "
                span.adds {
                    @for call in operations {
                        @let fault = format!("{call}:{items}");
                        " " button.small name="add" value=(fault) aria-label={ "Add " (fault) } { (display(call)) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_button_adds_what_it_says() {
        let html = main(&[], "localhost", None).into_string();
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

    #[test]
    fn text_cannot_leave_its_place() {
        let bad = r#""><b c='d'>&"#;
        let html = main(&[], bad, Some((bad, bad))).into_string();
        let escaped = "&quot;&gt;&lt;b c='d'&gt;&amp;";
        assert!(!html.contains(bad), "{html}");
        for place in [
            format!("This is not set: {escaped}."),
            format!("value=\"{escaped}\""),
            format!("curl http://{escaped}/"),
        ] {
            assert!(html.contains(&place), "{place}: {html}");
        }
    }
}

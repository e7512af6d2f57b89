//! The gateway's guide in short, as commands for a shell.

use hyper::Response;
use maud::{Markup, html};

use super::super::reply::quoted;
use super::frame::{START, page};
use crate::server::Body;

/// Returns the guide. It is the only page that shows the secret.
pub(in super::super) fn dev_api(secret: &str, host: &str) -> Response<Body> {
    let base = format!("http://{host}");
    let main = html! {
        main {
            div.head {
                h1 { "API" }
                p.quiet { "The gateway’s guide in four steps, with this sandbox’s secret." }
            }
            section.card.prose {
                h2 { "Merchant secret" }
                pre.secret tabindex="0" { code { (secret) } }
                p {
                    "This one is good for the sandbox only. A real one never expires, and whoever has it can steal from you: "
                    "keep it in a file that only tillgate reads, and out of your app."
                }
            }
            (steps(secret, &base))
            (bad_days(&base))
        }
    };
    page("API", &main)
}

fn steps(secret: &str, base: &str) -> Markup {
    let start = format!(
        r#"{{"merchant_secret": {}, "amount": 1000}}"#,
        quoted(secret)
    );
    html! {
        section.card.prose {
            h2 { span.step { "1" } " Start a payment" }
            p {
                "From your server. The answer has a " code { "code" } " for the payer and a " code { "watch_code" }
                " for you."
            }
            pre tabindex="0" { code {
                "curl " (base) "/api/start_payment \\\n  -H 'Content-Type: application/json' \\\n  -d " (shell_quoted(&start))
            } }
            p { "Through tillgate your app leaves the secret out:" }
            pre tabindex="0" { code { (START) } }
        }
        section.card.prose {
            h2 { span.step { "2" } " Send the payer to the pay page" }
            p {
                "With the way back to your shop, percent-encoded. Tillgate’s answer has the whole link as "
                code { "pay_url" } "."
            }
            pre tabindex="0" { code { (base) "/pay/CODE?redirect=https%3A%2F%2Fshop.example%2Fthanks" } }
        }
        section.card.prose {
            h2 { span.step { "3" } " Watch it" }
            p {
                "When the payer comes back, and now and then before: " code { "created" } " is open, " code { "completed" }
                " is paid. The return alone proves nothing."
            }
            pre tabindex="0" { code { "curl " (base) "/watch/WATCH_CODE" } }
        }
        section.card.prose {
            h2 { span.step { "4" } " Done" }
            p { "A completed payment is final. It shows up as such in " a href="/" { "the portal" } "." }
        }
    }
}

fn bad_days(base: &str) -> Markup {
    html! {
        section.card.prose {
            h2 { "Practise the bad days" }
            p {
                "Complete a payment without a browser, or make calls fail; an empty list of faults ends it. "
                a href="/_sandbox/faults" { "A page of faults" } " does it with clicks."
            }
            pre tabindex="0" { code {
                "curl -X POST " (base) "/_sandbox/payments/CODE/complete\n\n"
                "curl " (base) "/_sandbox/faults \\\n"
                r#"  -d '{"faults": ["start:status=503,rate=0.3", "watch:delay=3s"]}'"# "\n\n"
                "curl " (base) r#"/_sandbox/faults -d '{"faults": []}'"#
            } }
        }
    }
}

fn shell_quoted(argument: &str) -> String {
    format!("'{}'", argument.replace('\'', r"'\''"))
}

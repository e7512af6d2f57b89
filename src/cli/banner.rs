//! The greeting of `tillgate dev`: the URLs of its parts, and lines to paste into a shell.

use std::ffi::OsString;

use super::places::Places;
use crate::text::FilePath;

/// Returns the whole greeting. `app` is the program that runs beside the sidecar; where there is a `token_file`, the
/// lines to paste send a token of it. `webhook` has the URL of the app's endpoint, and the key that signs what is posted there.
pub(super) fn banner(
    places: &Places,
    token_file: Option<&FilePath>,
    app: Option<&OsString>,
    webhook: Option<(&str, &str)>,
    color: bool,
) -> String {
    let Places { api, sandbox, .. } = places;
    let paint = Paint(color);
    let quiet = |text: &str| paint.quiet(text);
    let token = token_file.map_or_else(String::new, header);
    format!(
        r#"
  {title} {version} · dev: a sandbox gateway, no money moves

{parts}
  Paste these one after the other, in another terminal:

  {start}
  P=$(curl -s {api}/api/start_payment{token} -H 'Content-Type: application/json' -d '{{"amount": 1000, "reference": "order-7", "redirect": "{sandbox}/"}}'); echo "$P"

  {pay}
  echo "$P" | sed 's/.*"pay_url":"\([^"]*\)".*/\1/'

  {watch}
  curl -s{token} {api}/watch/$(echo "$P" | sed 's/.*"watch_code":"\([^"]*\)".*/\1/'); echo

  {end}
"#,
        title = paint.bold("tillgate"),
        version = env!("CARGO_PKG_VERSION"),
        parts = parts(places, app, webhook, paint),
        start = quiet(
            "# 1. Start a payment: an amount, the number of the order, and where the payer returns to"
        ),
        pay = quiet("# 2. Pay: open this in a browser and click Pay"),
        watch = quiet("# 3. Watch: \"created\", and \"completed\" once it is paid"),
        end = quiet("Ctrl-C ends it."),
    )
}

/// One line for each part: its name, its URL in a column as wide as the widest, and what it is for.
fn parts(
    places: &Places,
    app: Option<&OsString>,
    webhook: Option<(&str, &str)>,
    paint: Paint,
) -> String {
    let Places {
        api,
        admin,
        sandbox,
        moved,
    } = places;
    let (url, key) = webhook.unzip();
    let url = url.map(|url| url.escape_debug().to_string());
    let key = key.map(ToOwned::to_owned);
    let width = api.len().max(admin.len()).max(sandbox.len());
    let app = app.map(|app| app.display().to_string().escape_debug().to_string());
    let parts = [
        ("API", Some(api), "what your app calls, without a secret"),
        (
            "Admin",
            Some(admin),
            "the status page; also /readyz?verbose, /metrics, /status",
        ),
        (
            "Gateway",
            Some(sandbox),
            "the sandbox: its portal; also /dev/api, and /_sandbox/faults for bad days",
        ),
        (
            "App",
            app.as_ref(),
            "yours: finds the API at TILLGATE_URL; its lines begin with \"app |\"",
        ),
        ("Webhook", url.as_ref(), "where a completed payment is told"),
        (
            "Key",
            key.as_ref(),
            if app.is_some() {
                "what signs the webhooks; your app has it as TILLGATE_WEBHOOK_KEY"
            } else {
                "what signs the webhooks: give it to your app"
            },
        ),
    ];
    let line = |(name, place, what): (&str, Option<&String>, &str)| {
        Some(format!(
            "  {}  {}   {}\n",
            paint.bold(&format!("{name:<7}")),
            paint.cyan(&format!("{:<width$}", place?)),
            paint.quiet(what)
        ))
    };
    let mut text: String = parts.into_iter().filter_map(line).collect();
    for part in moved {
        text.push_str(&format!("\n  {part}\n"));
    }
    text
}

/// The arguments with which curl sends the first token of the file.
fn header(FilePath(file): &FilePath) -> String {
    // The other terminal may be in another directory.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
    let file = file.display().to_string().replace('\'', r"'\''");
    format!(r#" -H "Authorization: Bearer $(grep -m 1 . '{file}')""#)
}

/// Whether text is coloured.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn quiet(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

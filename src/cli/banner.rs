//! What `tillgate dev` greets with: where everything is, and lines to paste.

use std::ffi::OsString;

use super::dev::Places;
use crate::text::FilePath;

/// The whole of it; `app` is the program that runs beside it, and callers show a token of `token_file`.
pub(super) fn banner(
    places: &Places,
    token_file: Option<&FilePath>,
    app: Option<&OsString>,
    color: bool,
) -> String {
    let Places {
        api,
        admin,
        sandbox,
    } = places;
    let paint = |code: &str, text: &str| {
        if color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let (bold, quiet) = (|text: &str| paint("1", text), |text: &str| paint("2", text));
    // As wide as the widest, so that what they say stands below each other.
    let width = [api, admin, sandbox]
        .map(String::len)
        .into_iter()
        .max()
        .unwrap_or_default();
    let place = |name: &str, url: &str, what: &str| {
        format!(
            "  {}  {}   {}\n",
            bold(&format!("{name:<7}")),
            paint("36", &format!("{url:<width$}")),
            quiet(what)
        )
    };
    let mut parts = place("API", api, "what your app calls, without a secret");
    parts += &place(
        "Admin",
        admin,
        "the status page; also /readyz?verbose, /metrics, /status",
    );
    parts += &place(
        "Gateway",
        sandbox,
        "the sandbox: its portal; also /dev/api, and /_sandbox/faults for bad days",
    );
    if let Some(app) = app {
        let app = app.display().to_string().escape_debug().to_string();
        parts += &place(
            "App",
            &app,
            "yours: finds the API at TILLGATE_URL; its lines begin with \"app |\"",
        );
    }
    let token = token_file.map_or_else(String::new, |FilePath(file)| {
        // Another terminal may be in another directory.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        let file = file.display().to_string().replace('\'', r"'\''");
        format!(r#" -H "Authorization: Bearer $(grep -m 1 . '{file}')""#)
    });
    format!(
        r#"
  {title} {version} · dev: a sandbox gateway, no money moves

{parts}
  Paste these one after the other, in another terminal:

  {start}
  P=$(curl -s {api}/api/start_payment{token} -H 'Content-Type: application/json' -d '{{"amount": 1000, "redirect": "{sandbox}/"}}'); echo "$P"

  {pay}
  echo "$P" | sed 's/.*"pay_url":"\([^"]*\)".*/\1/'

  {watch}
  curl -s{token} {api}/watch/$(echo "$P" | sed 's/.*"watch_code":"\([^"]*\)".*/\1/'); echo

  {end}
"#,
        title = bold("tillgate"),
        version = env!("CARGO_PKG_VERSION"),
        start = quiet("# 1. Start a payment: only an amount, and where the payer returns to"),
        pay = quiet("# 2. Pay: open this in a browser and click Pay"),
        watch = quiet("# 3. Watch: \"created\", and \"completed\" once it is paid"),
        end = quiet("Ctrl-C ends it."),
    )
}

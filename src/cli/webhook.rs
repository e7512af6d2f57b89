//! `tillgate webhook`: posts a test message to the app, and makes keys.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::check;
use super::exit::Exit;
use super::output::{answer, complain, failed, misconfigured};
use crate::config::{self, Environment, Source};
use crate::webhook;

/// Posts one signed message about nothing, and prints what came back.
pub(super) async fn test(path: Option<&Path>, environment: &Environment) -> Exit {
    let loaded = match config::load(Source::File(path), environment) {
        Ok(loaded) => loaded,
        Err(diagnostics) => return misconfigured(&diagnostics),
    };
    let (Some(sender), Some(url)) = (&loaded.webhook, &loaded.config.webhook.url) else {
        complain("webhook.url is not set: there is nobody to post to");
        return Exit::Usage;
    };
    let gateway = check::gateway(&loaded);
    match sender.test(&|text| gateway.scrub(text)).await {
        Ok(said) => {
            answer(&format!("webhook.url: {url} took the message: {said}"));
            Exit::Fine
        }
        Err(why) => failed(&format!(
            "webhook.url: {url} did not take the message: {why}"
        )),
    }
}

/// Prints a fresh key, or writes it into a new file that only its owner can open.
pub(super) fn secret(out: Option<&Path>) -> Exit {
    let key = webhook::fresh_key();
    let Some(path) = out else {
        answer(&key);
        return Exit::Fine;
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| {
        file.write_all(format!("{key}\n").as_bytes())?;
        file.sync_all()
    });
    let path = path.display();
    match written {
        Ok(()) => {
            answer(&format!("a fresh key is in {path}"));
            Exit::Fine
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => failed(&format!(
            "{path} is there already, and is left as it is: name a new file"
        )),
        Err(error) => failed(&format!("{path} cannot be written: {error}")),
    }
}

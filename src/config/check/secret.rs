//! `[merchant]`: the secret itself, or the file that holds it.

use super::super::reading::{Reading, SECRET};
use super::super::sections::Config;
use crate::secret::Secret;
use crate::text::FilePath;

const FILE: &str = "merchant.secret_file";

impl Reading {
    /// Exactly one of the two keys must be set, and give a usable secret. A missing file is not an error: it may be
    /// mounted later.
    pub(super) fn check_secret(&mut self, config: &Config) -> Option<Secret> {
        let secret = self.find_secret(config)?;
        if secret.is_quoted() {
            let place = self.place(if secret.is_inline() { SECRET } else { FILE });
            self.remarks.warnings.push(format!(
                "the merchant secret ({place}) is in quotes, and they are sent as a part of it: write it without them (docker --env-file keeps the quotes that a shell removes)"
            ));
        }
        if secret.now().is_none() {
            let place = self.place(FILE);
            self.remarks.missing.push(format!("{FILE} ({place})"));
        }
        Some(secret)
    }

    fn find_secret(&mut self, config: &Config) -> Option<Secret> {
        match (self.secret.take(), &config.merchant.secret_file) {
            (None, None) => {
                let is_reported = self
                    .diagnostics
                    .iter()
                    .any(|diagnostic| diagnostic.key.starts_with("merchant."));
                if !is_reported {
                    let help =
                        "name the file that holds it: secret_file = \"/run/secrets/merchant\"";
                    self.report(FILE, self.unset(FILE), "there is no merchant secret", help);
                }
                None
            }
            (Some(_), Some(_)) => {
                let what = "merchant.secret_file is set too, and only one of the two may be";
                let help = "remove it, and keep secret_file";
                self.report(SECRET, self.place(SECRET), what, help);
                None
            }
            (Some(secret), None) => match Secret::inline(&secret) {
                Ok(secret) => Some(secret),
                Err(what) => {
                    let help = "copy it again from the gateway's /dev/api page, without quotes or spaces around it";
                    self.report(SECRET, self.place(SECRET), what, help);
                    None
                }
            },
            (None, Some(path)) => self.check_secret_file(path),
        }
    }

    fn check_secret_file(&mut self, path: &FilePath) -> Option<Secret> {
        if path.could_be_a_secret() {
            let what =
                "no file has that name, and it could be the secret itself, so it is not shown here";
            let help = "give the path of the file that holds the secret";
            self.report(FILE, self.place(FILE), what, help);
            return None;
        }
        match Secret::file(path) {
            Ok(secret) => Some(secret),
            Err(what) => {
                let help = "put the secret, and nothing else, into that file";
                self.report(FILE, self.named(path, FILE), what, help);
                None
            }
        }
    }
}

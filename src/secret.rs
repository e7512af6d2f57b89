//! The merchant secret: where it comes from, what form it has, who holds it.
//!
//! It lies in a buffer that is wiped when it is no longer held; the last few of a file are held on, to be taken out of
//! answers. Nothing here prints it, and the only rooms that read it are `gateway/inject.rs` and `gateway/scrub.rs`.
//!
//! Where else it stands: for the time of a start in its request (one buffer, wiped; TLS encrypts a copy in place); when
//! the gateway echoes it, in the buffer of that connection until it is used again or ends; and when it came by a variable,
//! in the environment of the process for good, where only root can read it (see [`crate::hardening`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::file::{Reload, ReloadableFile, Settle};
use crate::text::{self, FilePath};

/// The secret that the gateway's guide shows as an example.
const PLACEHOLDER: &str = "your_token_here";

/// `[merchant]`: exactly one of the two is set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// A file that holds the secret and nothing else. Preferred: it can change while we run.
    #[serde(with = "text")]
    pub(crate) secret_file: Option<FilePath>,
    /// Whether it is given inline. It never stands here itself, nor among the values that are parsed and may be quoted.
    #[serde(rename = "secret", skip_deserializing, serialize_with = "redacted")]
    pub(crate) is_inline: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn redacted<S: Serializer>(is_inline: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *is_inline { "[redacted]" } else { "" })
}

/// The secret as it is at any moment. Clones share it.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Source>);

enum Source {
    Inline {
        secret: Arc<SecretString>,
        loaded_at: Gauge,
    },
    File {
        file: ReloadableFile<SecretString>,
        /// Those that were in the file before: they never expire, so they are still worth taking out of answers.
        before: Mutex<VecDeque<Arc<SecretString>>>,
        /// Held while one takes the place of another.
        taking: Mutex<()>,
        /// Held by the one that looks because the gateway refused: the others wait without a thread.
        looking: Arc<tokio::sync::Mutex<()>>,
    },
}

/// How the secret is at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    /// When it was last loaded, in seconds since the epoch.
    pub(crate) loaded_at: Option<i64>,
    /// Looks at its file that found nothing usable.
    pub(crate) reload_failures: u64,
}

/// How many of them are kept.
const KEPT: usize = 8;

impl Secret {
    /// A secret that does not change.
    ///
    /// # Errors
    /// Says what is wrong with it, never what it is.
    pub(crate) fn inline(secret: &SecretString) -> Result<Self, String> {
        let secret = parse(secret.expose_secret().as_bytes())?;
        let loaded_at = Gauge::default();
        loaded_at.set(crate::clock::unix_seconds());
        Ok(Self(Arc::new(Source::Inline {
            secret: Arc::new(secret),
            loaded_at,
        })))
    }

    /// A secret that is read from a file, again whenever it changes.
    ///
    /// # Errors
    /// Says what is wrong with the content, never the content. A missing file is no error: it may be mounted late.
    pub(crate) fn file(path: &FilePath) -> Result<Self, String> {
        let file = ReloadableFile::open(&path.0, parse)?;
        Ok(Self(Arc::new(Source::File {
            file,
            before: Mutex::default(),
            taking: Mutex::default(),
            looking: Arc::default(),
        })))
    }

    /// The secret now; `None` while its file has not come.
    pub(crate) fn now(&self) -> Option<Arc<SecretString>> {
        match &*self.0 {
            Source::Inline { secret, .. } => Some(secret.clone()),
            Source::File { file, .. } => file.get(),
        }
    }

    /// The secret now, and those before it.
    pub(crate) fn ever_held(&self) -> Vec<Arc<SecretString>> {
        let mut held: Vec<_> = self.now().into_iter().collect();
        if let Source::File { before, .. } = &*self.0 {
            held.extend(
                before
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .cloned(),
            );
        }
        held
    }

    /// Looks again at once. True when there is another one than `old` now, whoever noticed first.
    pub(crate) async fn is_replaced(&self, old: &Arc<SecretString>) -> bool {
        let is_another = || self.now().is_some_and(|now| !Arc::ptr_eq(&now, old));
        let Source::File { looking, .. } = &*self.0 else {
            return false;
        };
        let turn = looking.clone().lock_owned().await;
        if is_another() {
            return true;
        }
        let this = self.clone();
        let reload = move || {
            // The thread may outlive whoever waits for it, on a mount that hangs.
            let _turn = turn;
            this.reload(Settle::Briefly)
        };
        tokio::task::spawn_blocking(reload).await.is_ok() && is_another()
    }

    /// It was given inline.
    pub(crate) fn is_inline(&self) -> bool {
        matches!(&*self.0, Source::Inline { .. })
    }

    /// Where it is read from, for people.
    pub(crate) fn source(&self) -> String {
        match &*self.0 {
            Source::Inline { .. } => "given inline".to_owned(),
            Source::File { file, .. } => format!("read from {}", file.path().display()),
        }
    }

    /// When it was last loaded, and how often looks at its file found nothing usable.
    fn metrics(&self) -> (Gauge, Counter) {
        match &*self.0 {
            Source::Inline { loaded_at, .. } => (loaded_at.clone(), Counter::default()),
            Source::File { file, .. } => (file.loaded_at.clone(), file.failures.clone()),
        }
    }

    /// How it is at this moment.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let (loaded_at, failures) = self.metrics();
        Snapshot {
            loaded_at: Some(loaded_at.get()).filter(|at| *at > 0),
            reload_failures: failures.get(),
        }
    }

    /// Adds the two metrics of the secret's file.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let (loaded_at, failures) = self.metrics();
        registry.register(
            "secret_loaded_timestamp_seconds",
            "When the merchant secret was last loaded",
            loaded_at,
        );
        registry.register(
            "secret_reload_failures",
            "Looks at the secret file that found nothing usable",
            failures,
        );
    }
}

impl Reload for Secret {
    fn is_loaded(&self) -> bool {
        self.now().is_some()
    }

    fn reload(&self, settle: Settle) -> bool {
        match &*self.0 {
            Source::Inline { .. } => false,
            Source::File {
                file,
                before,
                taking,
                ..
            } => {
                let _taking = taking.lock().unwrap_or_else(PoisonError::into_inner);
                let before = || before.lock().unwrap_or_else(PoisonError::into_inner);
                // Ahead of the look: between the two an answer with the old one in it may come.
                let old = file.get();
                if let Some(old) = &old {
                    before().push_front(old.clone());
                }
                let is_new = file.reload(settle);
                let mut before = before();
                if !is_new && old.is_some() {
                    before.pop_front();
                }
                before.truncate(KEPT);
                is_new
            }
        }
    }
}

/// Takes the bytes for a secret if they can be one.
///
/// # Errors
/// Says what is wrong, never what was read.
fn parse(bytes: &[u8]) -> Result<SecretString, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the secret is not UTF-8")?;
    match text.len() {
        0 => return Err("the secret is empty".to_owned()),
        1..8 => return Err("the secret is shorter than 8 bytes".to_owned()),
        8..=4096 => {}
        _ => return Err("the secret is longer than 4096 bytes".to_owned()),
    }
    // The last are invisible too: a byte order mark, and what is copied from web pages by mistake.
    let invisible = |c| matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}');
    if text
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || invisible(c))
    {
        return Err(
            "the secret has white space, control or invisible characters in it (one line end at the end is fine)"
                .to_owned(),
        );
    }
    if text == PLACEHOLDER {
        return Err("this is the placeholder of the guide: put your own merchant secret there (the gateway's /dev/api page shows it)".to_owned());
    }
    // Boxed as it is, without spare room: shrinking would leave a copy behind.
    Ok(SecretString::from(Box::<str>::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_secret_is_refused_without_being_quoted() {
        let long = "s".repeat(4097);
        for text in [
            "",
            "tiny-1",
            "with space",
            "line\nbreak",
            "tab\tulator",
            PLACEHOLDER,
            &long,
        ] {
            let why = parse(text.as_bytes()).unwrap_err();
            assert!(text.is_empty() || !why.contains(text), "{why}");
        }
        assert!(parse(b"\xff\xfe\xfd12345678").is_err());
        let secret = parse("gültig-12345".as_bytes()).unwrap();
        assert!(!format!("{secret:?}").contains("12345"));
    }
}

//! The merchant secret: its source, its form, and its owner.
//!
//! It is in a buffer that is wiped when the last reference is dropped. The last few secrets of a file are kept, so that they
//! can be removed from answers. Nothing here prints it, and only `gateway/inject.rs` and `gateway/scrub.rs` read it.
//!
//! Other copies exist in the request of a start for as long as that takes (one buffer, wiped; TLS encrypts a copy in place);
//! in the buffer of a connection on which the gateway echoed it, until that is used again or ends; and, if it was set by a
//! variable, in the environment of the process, where only root can read it (see [`crate::hardening`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::file::{Reload, ReloadableFile, Settle};
use crate::text::{self, FilePath};

/// The example in the guide of the gateway.
const PLACEHOLDER: &str = "your_token_here";

/// `[merchant]`: exactly one of the two keys is set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    /// A file that holds the secret and nothing else. Preferred, because it can change at run time.
    #[serde(with = "text")]
    pub(crate) secret_file: Option<FilePath>,
    /// Whether the secret is given inline. The secret itself is neither here nor among the parsed values, which may be
    /// quoted.
    #[serde(rename = "secret", skip_deserializing, serialize_with = "redacted")]
    pub(crate) is_inline: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn redacted<S: Serializer>(is_inline: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *is_inline { "[redacted]" } else { "" })
}

/// The current secret. Clones share it.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Source>);

enum Source {
    Inline {
        secret: Arc<SecretString>,
        loaded_at: Gauge,
    },
    File {
        file: ReloadableFile<SecretString>,
        /// The secrets that were in the file before. They never expire, so they are still removed from answers.
        before: Mutex<VecDeque<Arc<SecretString>>>,
        /// Locked while the file is read and `before` is updated.
        taking: Mutex<()>,
        /// Locked by the caller that reads the file again after a refusal. The other callers wait without a thread.
        looking: Arc<tokio::sync::Mutex<()>>,
    },
}

/// The secret's file at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    /// When it was last loaded, in seconds since the epoch.
    pub(crate) loaded_at: Option<i64>,
    /// Looks at its file that found nothing usable.
    pub(crate) reload_failures: u64,
}

/// How many earlier secrets are kept.
const KEPT: usize = 8;

impl Secret {
    /// A secret that does not change.
    ///
    /// # Errors
    /// Says what is wrong with it, without quoting it.
    pub(crate) fn inline(secret: &SecretString) -> Result<Self, String> {
        let secret = parse(secret.expose_secret().as_bytes())?;
        let loaded_at = Gauge::default();
        loaded_at.set(crate::clock::unix_seconds());
        Ok(Self(Arc::new(Source::Inline {
            secret: Arc::new(secret),
            loaded_at,
        })))
    }

    /// A secret that is read from a file, and again whenever the file changes.
    ///
    /// # Errors
    /// Says what is wrong with the content, without quoting it. A missing file is not an error: it may be mounted later.
    pub(crate) fn file(path: &FilePath) -> Result<Self, String> {
        let file = ReloadableFile::open(&path.0, parse)?;
        Ok(Self(Arc::new(Source::File {
            file,
            before: Mutex::default(),
            taking: Mutex::default(),
            looking: Arc::default(),
        })))
    }

    /// Returns the current secret; `None` before its file exists.
    pub(crate) fn now(&self) -> Option<Arc<SecretString>> {
        match &*self.0 {
            Source::Inline { secret, .. } => Some(secret.clone()),
            Source::File { file, .. } => file.get(),
        }
    }

    /// Returns the current secret and the earlier ones that are kept.
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

    /// Reads the file again at once. Returns true if the current secret is not `old`.
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
            // The thread may outlive its caller on a mount that hangs.
            let _turn = turn;
            this.reload(Settle::Briefly)
        };
        tokio::task::spawn_blocking(reload).await.is_ok() && is_another()
    }

    /// Returns whether the secret was given inline.
    pub(crate) fn is_inline(&self) -> bool {
        matches!(&*self.0, Source::Inline { .. })
    }

    /// Returns whether the secret begins and ends with the same quote: what a shell removes, other readers of variables
    /// keep.
    pub(crate) fn is_quoted(&self) -> bool {
        self.now().is_some_and(|secret| {
            let bytes = secret.expose_secret().as_bytes();
            matches!(bytes, [b'"', .., b'"'] | [b'\'', .., b'\''])
        })
    }

    /// Returns the source of the secret, for people.
    pub(crate) fn source(&self) -> String {
        match &*self.0 {
            Source::Inline { .. } => "given inline".to_owned(),
            Source::File { file, .. } => format!("read from {}", file.path().display()),
        }
    }

    /// Returns when it was last loaded, and how many looks at its file found nothing usable.
    fn metrics(&self) -> (Gauge, Counter) {
        match &*self.0 {
            Source::Inline { loaded_at, .. } => (loaded_at.clone(), Counter::default()),
            Source::File { file, .. } => (file.loaded_at.clone(), file.failures.clone()),
        }
    }

    /// Returns how it is at this moment.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let (loaded_at, failures) = self.metrics();
        Snapshot {
            loaded_at: Some(loaded_at.get()).filter(|at| *at > 0),
            reload_failures: failures.get(),
        }
    }

    /// Registers the metrics of the file.
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
                // Before the reload, because an answer with the old secret may come during it.
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

/// Parses a secret.
///
/// # Errors
/// Says what is wrong, without quoting the bytes.
fn parse(bytes: &[u8]) -> Result<SecretString, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the secret is not UTF-8")?;
    match text.len() {
        0 => return Err("the secret is empty".to_owned()),
        1..8 => return Err("the secret is shorter than 8 bytes".to_owned()),
        8..=4096 => {}
        _ => return Err("the secret is longer than 4096 bytes".to_owned()),
    }
    // A byte order mark, and characters that are copied from web pages by mistake.
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
    // Boxed at its exact size: shrinking a `String` would leave a copy behind.
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

//! Removes the secret from the answers of the gateway, so that one that echoes its request does not reveal it to callers.

mod forms;
mod needles;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::cmp::Reverse;
use std::mem;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use self::needles::{Needles, Part};
use crate::json::{Json, Object};

/// Fields of an answer in which only the whole secret counts, and makes the answer a bad one.
const STRICT: [&str; 4] = ["code", "watch_code", "status", "amount"];

/// Removes these secrets from one answer.
pub(super) struct Scrubber {
    secrets: Vec<Arc<SecretString>>,
    found: Cell<bool>,
}

impl Scrubber {
    pub(super) fn new(mut secrets: Vec<Arc<SecretString>>) -> Self {
        // The longest first: if one begins with another, the rest of it would be left otherwise.
        secrets.sort_by_key(|secret| (Reverse(secret.expose_secret().len()), Arc::as_ptr(secret)));
        secrets.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Self {
            secrets,
            found: Cell::new(false),
        }
    }

    /// Returns whether one of them was found.
    pub(super) fn has_found(&self) -> bool {
        self.found.get()
    }

    /// Removes them from every name and value: as they are, and as they occur in a text that quotes JSON, a URL, base64 or
    /// hex. The escapes of the JSON itself do not matter, since its texts are unescaped.
    pub(super) fn scrub(&self, value: &mut Json) {
        let needles = self.needles();
        value.rewrite(&mut |text| self.take_out(&needles, text, Part::Whole));
    }

    /// Removes what is left of a part of them from every name and value, but for the fields that are acted on.
    pub(super) fn scrub_parts(&self, object: &mut Object) {
        let is_strict = |(name, _): &&(String, Json)| STRICT.contains(&name.as_str());
        let strict: Vec<_> = object.iter().filter(is_strict).cloned().collect();
        let needles = self.needles();
        let mut value = Json::Object(mem::take(object));
        value.rewrite(&mut |text| self.take_out(&needles, text, Part::Half));
        if let Json::Object(members) = value {
            *object = members;
        }
        for (name, as_it_came) in strict {
            if let Some((_, value)) = object.iter_mut().find(|(other, _)| *other == name) {
                *value = as_it_came;
            }
        }
    }

    /// Removes them from a text.
    pub(super) fn text(&self, text: String) -> String {
        self.take_out(&self.needles(), &text, Part::Whole)
            .unwrap_or(text)
    }

    /// Removes them, and parts of them, from a text.
    pub(super) fn text_and_parts(&self, text: String) -> String {
        self.take_out(&self.needles(), &text, Part::Half)
            .unwrap_or(text)
    }

    fn needles(&self) -> Vec<Needles<'_>> {
        self.secrets
            .iter()
            .map(|secret| Needles::of(secret.expose_secret()))
            .collect()
    }

    fn take_out(&self, needles: &[Needles<'_>], text: &str, least: Part) -> Option<String> {
        let mut clean: Option<String> = None;
        for needles in needles {
            clean = needles
                .take_out(clean.as_deref().unwrap_or(text), least)
                .or(clean);
        }
        self.found.set(self.found.get() || clean.is_some());
        clean
    }
}

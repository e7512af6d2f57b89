//! Removes the secret from the answers of the gateway, so that one that echoes its request does not reveal it to callers.
//!
//! A text is searched as it is, and in every way in which it can be decoded, up to [`DEPTH`] times one after the other.
//! SECURITY.md lists what is not found.

mod codings;
mod decoded;
mod escapes;
mod needles;
mod proof;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::mem;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use secrecy::{ExposeSecret, SecretString};

use self::decoded::{Decoded, Source};
use self::needles::{Needles, Part};
use crate::json::{Json, Object};

/// Fields of an answer in which only the whole secret counts, and makes the answer a bad one.
const STRICT: [&str; 4] = ["code", "watch_code", "status", "amount"];

/// What takes the place of the secret.
const REDACTED: &str = "[redacted]";

/// A way to decode a text.
type Coding = fn(&Source<'_>, &mut Decoded);

const CODINGS: [Coding; 3] = [
    |text, decoded| escapes::unescape(text.bytes, decoded),
    codings::hex,
    codings::base64,
];

/// How many codings one around the other are removed: three, and one that the secret itself may look like.
const DEPTH: usize = 4;

/// The most bytes that are searched, decoded ones included: a constant, and a multiple of the length of the text. More are
/// only needed by a text that is made to be decoded over and over; it is taken out as a whole.
const MOST_DECODED: (usize, usize) = (4096, 10);

/// The needles for the secrets that are held, which are made when one of these changes.
#[derive(Default)]
pub(super) struct Finders(Mutex<(Vec<Weak<SecretString>>, Arc<Needles>)>);

impl Finders {
    /// Returns a scrubber for one answer.
    pub(super) fn scrubber(&self, secrets: &[Arc<SecretString>]) -> Scrubber {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |(made, secret): (&Weak<_>, &Arc<_>)| made.as_ptr() == Arc::as_ptr(secret);
        if made.0.len() != secrets.len() || !made.0.iter().zip(secrets).all(is_same) {
            *made = (
                secrets.iter().map(Arc::downgrade).collect(),
                Arc::new(needles(secrets)),
            );
        }
        Scrubber::of(made.1.clone())
    }
}

fn needles(secrets: &[Arc<SecretString>]) -> Needles {
    let secrets = secrets
        .iter()
        .map(|secret| secret.expose_secret().as_bytes());
    Needles::of(&secrets.collect::<Vec<_>>())
}

/// Checks that a made-up secret is found in each coding.
///
/// # Errors
/// Says in which one it is not.
pub(super) fn prove() -> Result<(), String> {
    proof::prove(|secret, text| {
        let scrubber = Scrubber::of(Arc::new(Needles::of(&[secret.as_bytes()])));
        scrubber.take_out(text, Part::Half).is_some()
    })
}

/// Removes these keys, as bytes, from a text as the secret is removed: decoded, and halves of them too.
pub(crate) fn scrub_keys(keys: &[&[u8]], text: String) -> String {
    Scrubber::of(Arc::new(Needles::of(keys))).text(text)
}

/// Removes the secrets from one answer.
pub(super) struct Scrubber {
    needles: Arc<Needles>,
    found: Cell<bool>,
}

impl Scrubber {
    /// Returns one for these secrets alone.
    #[cfg(any(test, fuzzing))]
    pub(super) fn new(secrets: &[Arc<SecretString>]) -> Self {
        Self::of(Arc::new(needles(secrets)))
    }

    fn of(needles: Arc<Needles>) -> Self {
        Self {
            needles,
            found: Cell::new(false),
        }
    }

    /// Returns whether one of them was found.
    pub(super) fn has_found(&self) -> bool {
        self.found.get()
    }

    /// Removes them, or what is left of them, from every name and value. Returns the name of a field that is acted on and
    /// had a whole one in it.
    pub(super) fn object(&self, object: &mut Object) -> Option<&'static str> {
        let mut strict = Vec::new();
        for (name, value) in &mut *object {
            if let Some(known) = STRICT.into_iter().find(|known| known == name) {
                strict.push((known, mem::replace(value, Json::null())));
            }
        }
        let mut value = Json::Object(mem::take(object));
        self.value(&mut value);
        if let Json::Object(members) = value {
            *object = members;
        }
        let mut echoed = None;
        for (name, mut value) in strict {
            value.rewrite(&mut |text| {
                let clean = self.take_out(text, Part::Whole);
                echoed = echoed.or(clean.as_ref().map(|_| name));
                clean
            });
            if let Some((_, place)) = object.iter_mut().find(|(other, _)| other == name) {
                *place = value;
            }
        }
        echoed
    }

    /// Removes them, or what is left of them, from every name and value. The escapes of the JSON itself do not matter,
    /// since its texts are unescaped.
    pub(super) fn value(&self, value: &mut Json) {
        value.rewrite(&mut |text| self.take_out(text, Part::Half));
    }

    /// Removes them, or what is left of them, from a text.
    pub(super) fn text(&self, text: String) -> String {
        self.take_out(&text, Part::Half).unwrap_or(text)
    }

    /// Returns the text without them; `None` if there is nothing of them in it.
    fn take_out(&self, text: &str, part: Part) -> Option<String> {
        let least = self.needles.least(part)?;
        let text_source = Source {
            bytes: text.as_bytes(),
            changed: None,
            found: &[],
            least,
            alphabet: self.needles.alphabet(),
        };
        let mut hits = Vec::new();
        // What takes too long to search is taken out as a whole.
        let mut left = MOST_DECODED.0 + MOST_DECODED.1 * text.len();
        if self
            .search(&text_source, part, DEPTH, &mut left, &mut hits)
            .is_none()
        {
            hits.clear();
            hits.push(0..text.len());
        }
        if hits.is_empty() {
            return None;
        }
        self.found.set(true);
        hits.sort_unstable_by_key(|hit| hit.start);
        let (mut clean, mut done) = (String::with_capacity(text.len()), 0);
        for hit in hits {
            // Both ends may be within a character.
            let is_boundary = |at: &usize| text.is_char_boundary(*at);
            let start = (done..=hit.start).rev().find(is_boundary).unwrap_or(done);
            // Hits that overlap or meet become one.
            if clean.is_empty() || start > done {
                clean.push_str(&text[done..start]);
                clean.push_str(REDACTED);
            }
            done = (hit.end.max(done)..text.len())
                .find(is_boundary)
                .unwrap_or(text.len());
        }
        clean.push_str(&text[done..]);
        Some(clean)
    }

    /// Adds the places where they are in the text, and in what it decodes to, up to `depth` times over. Returns `None` if
    /// more than `left` bytes would have to be searched.
    fn search(
        &self,
        text: &Source<'_>,
        part: Part,
        depth: usize,
        left: &mut usize,
        hits: &mut Vec<Range<usize>>,
    ) -> Option<()> {
        if text.bytes.len() < text.least {
            return Some(());
        }
        *left = left.checked_sub(text.bytes.len())?;
        let mut found = Vec::new();
        self.needles.find(text.bytes, part, &mut found);
        found.sort_unstable_by_key(|hit| hit.start);
        found.dedup_by(|hit, last| {
            let meets = hit.start <= last.end;
            last.end = if meets {
                last.end.max(hit.end)
            } else {
                last.end
            };
            meets
        });
        let text = Source {
            found: &found,
            ..*text
        };
        for decode in CODINGS.iter().filter(|_| depth > 0) {
            let mut decoded = Decoded::default();
            decode(&text, &mut decoded);
            let inner = Source {
                bytes: decoded.bytes(),
                changed: decoded.changed.as_deref(),
                ..text
            };
            let mut inner_hits = Vec::new();
            self.search(&inner, part, depth - 1, left, &mut inner_hits)?;
            if !inner_hits.is_empty() {
                let mut decoded = Decoded::with_spans();
                decode(&text, &mut decoded);
                hits.extend(inner_hits.into_iter().map(|hit| decoded.span(hit)));
            }
        }
        hits.append(&mut found);
        Some(())
    }
}

//! Finds one secret in a text, in each form that it can have there.

use std::cell::OnceCell;
use std::ops::Range;

use zeroize::Zeroizing;

use super::forms::{base64, forms, hex, spellings};

/// What takes the place of the secret.
pub(super) const REDACTED: &str = "[redacted]";

/// The shortest part of a secret that gives it away, in bytes.
const SHORTEST_PART: usize = 12;

/// How much of the secret has to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it, in any form.
    Whole,
    /// Half of it in a row is enough, as it is.
    Half,
}

/// The forms of one secret, which are derived for one answer and wiped after it.
pub(super) struct Needles<'a> {
    raw: &'a str,
    /// The secret in lower case, in which names of hosts come back.
    lower: Zeroizing<String>,
    /// Derived only if the text could be base64 or hex of the secret, which few are.
    base64: OnceCell<Vec<Zeroizing<String>>>,
    hex: OnceCell<Vec<Zeroizing<String>>>,
}

/// Finds a form of the secret in a text.
type Find<'a> = fn(&Needles<'a>, &str) -> Option<Range<usize>>;

impl<'a> Needles<'a> {
    pub(super) fn of(raw: &'a str) -> Self {
        let lower = Zeroizing::new(raw.to_ascii_lowercase());
        Self {
            raw,
            lower,
            base64: OnceCell::new(),
            hex: OnceCell::new(),
        }
    }

    /// Returns the text without the secret; `None` if the secret is not in it.
    pub(super) fn take_out(&self, text: &str, least: Part) -> Option<String> {
        let mut hits = Vec::new();
        let part = (least == Part::Half).then_some(Self::half_in as Find<'a>);
        let forms: [Find<'a>; 4] = [
            Self::raw_in,
            Self::spelled_in,
            Self::hex_in,
            Self::base64_in,
        ];
        for find in forms.into_iter().chain(part) {
            let mut done = 0;
            while let Some(hit) = find(self, &text[done..]) {
                hits.push(done + hit.start..done + hit.end);
                done += hit.end;
            }
        }
        hits.sort_unstable_by_key(|hit| hit.start);
        let (mut clean, mut done) = (String::new(), 0);
        for hit in &hits {
            // Hits that overlap or meet become one.
            if hit.start >= done {
                clean.push_str(&text[done..hit.start]);
                clean.push_str(REDACTED);
            }
            done = done.max(hit.end);
        }
        clean.push_str(&text[done..]);
        (!hits.is_empty()).then_some(clean)
    }

    /// Finds half of the secret in a row, in upper or lower case.
    fn half_in(&self, text: &str) -> Option<Range<usize>> {
        let (secret, bytes) = (self.raw.as_bytes(), text.as_bytes());
        let half = secret.len().div_ceil(2).max(SHORTEST_PART);
        if secret.len().min(bytes.len()) < half {
            return None;
        }
        // Each half of it has one of these bytes.
        let middles = [half - 1, half];
        for (middle, letter) in middles
            .iter()
            .filter_map(|at| Some((*at, secret.get(*at)?)))
        {
            let places = (0..bytes.len()).filter(|at| bytes[*at].eq_ignore_ascii_case(letter));
            for place in places {
                let is_same = |(a, b): &(&u8, &u8)| a.eq_ignore_ascii_case(b);
                let before = secret[..middle]
                    .iter()
                    .rev()
                    .zip(bytes[..place].iter().rev());
                let start = place - before.take_while(is_same).count();
                let after = secret[middle..].iter().zip(&bytes[place..]);
                let end = place + after.take_while(is_same).count();
                if end - start >= half {
                    // Both may be within a character.
                    let is_boundary = |at: &usize| text.is_char_boundary(*at);
                    let start = (0..=start).rev().find(is_boundary)?;
                    return Some(start..(end..=text.len()).find(is_boundary)?);
                }
            }
        }
        None
    }

    /// Finds the secret as it is, in upper or lower case. It is searched for apart from [`Self::spelled_in`], which could
    /// take the start of the next one for a part of an escape of its last character.
    fn raw_in(&self, text: &str) -> Option<Range<usize>> {
        if text.len() < self.raw.len() {
            return None;
        }
        // This keeps the length and the place of every byte.
        let text = Zeroizing::new(text.to_ascii_lowercase());
        text.find(&**self.lower)
            .map(|start| start..start + self.raw.len())
    }

    /// Finds the secret with any of its characters escaped as in JSON or in a URL, or lost because they were written in an
    /// encoding other than UTF-8.
    fn spelled_in(&self, text: &str) -> Option<Range<usize>> {
        let first = self.raw.bytes().next()?;
        // 0xef is the first byte of U+FFFD.
        let may_start =
            |(_, byte): &(usize, u8)| *byte == first || matches!(byte, b'\\' | b'%' | 0xef);
        text.bytes()
            .enumerate()
            .filter(may_start)
            .find_map(|(start, _)| {
                // The places where the characters so far can end: a backslash may be one of the secret, or an escape.
                let mut ends = vec![start];
                for c in self.raw.chars() {
                    let further = |at: usize| {
                        spellings(c, &text.as_bytes()[at..])
                            .into_iter()
                            .flatten()
                            .map(move |length| at + length)
                    };
                    ends = ends.into_iter().flat_map(further).collect::<Vec<_>>();
                    // Without duplicates, or the ways through a run of backslashes would grow without bound.
                    ends.sort_unstable();
                    ends.dedup();
                    if ends.is_empty() {
                        return None;
                    }
                }
                Some(start..ends.into_iter().max()?)
            })
    }

    /// Finds the secret in base64. The hit is the whole encoded text, which may hold the rest of the request.
    fn base64_in(&self, text: &str) -> Option<Range<usize>> {
        // Base64 is longer than what it encodes.
        let mut runs = runs(text, self.raw.len(), |c| {
            c.is_ascii_alphanumeric() || "+/-_=".contains(c)
        });
        runs.find(|run| {
            self.base64()
                .iter()
                .any(|needle| text[run.clone()].contains(&***needle))
        })
    }

    /// Finds the secret in hex, in upper or lower case. The hit is the whole encoded text.
    fn hex_in(&self, text: &str) -> Option<Range<usize>> {
        runs(text, 2 * self.raw.len(), |c| c.is_ascii_hexdigit()).find(|run| {
            let digits = text[run.clone()].to_ascii_lowercase();
            self.hex().iter().any(|needle| digits.contains(&***needle))
        })
    }

    fn base64(&self) -> &[Zeroizing<String>] {
        self.base64.get_or_init(|| {
            forms(self.raw)
                .iter()
                .flat_map(|form| base64(form.as_bytes()))
                .collect()
        })
    }

    fn hex(&self) -> &[Zeroizing<String>] {
        self.hex.get_or_init(|| {
            forms(self.raw)
                .iter()
                .map(|form| hex(form.as_bytes()))
                .collect()
        })
    }
}

/// Returns the parts of the text that have only such characters, and at least that many bytes.
fn runs(
    text: &str,
    least: usize,
    is_in: impl Fn(char) -> bool,
) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    let runs = text.split(move |c| !is_in(c)).map(move |run| {
        let range = start..start + run.len();
        start = range.end + text[range.end..].chars().next().map_or(0, char::len_utf8);
        range
    });
    runs.filter(move |run| run.len() >= least)
}

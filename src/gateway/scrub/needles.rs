//! Finds secrets, and halves of them, in a text, in a time that grows with its length alone.
//!
//! Of a secret nothing is kept but hashes with a random base: of all its pieces of eight bytes, of all its halves, and of
//! the whole. Where eight bytes of a text are no piece of a secret, no secret is. The few places that are left are
//! compared by a hash that rolls over them.

use std::iter;
use std::ops::Range;

use zeroize::Zeroizing;

use super::decoded::{Alphabet, Decoded};
use super::escapes;
use crate::random;

/// The shortest part of a secret that gives it away, in bytes.
const SHORTEST_PART: usize = 12;

/// The length of a piece, and of the shortest secret, in bytes.
const PIECE: usize = 8;

/// How much of the secret has to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// Half of it in a row, [`SHORTEST_PART`] at the least, is enough.
    Half,
}

/// What is looked for, for some secrets.
#[derive(Default)]
pub(super) struct Needles {
    base: u64,
    pieces: Sieve,
    /// The shortest first, as in the next list.
    whole: Vec<Needle>,
    half: Vec<Needle>,
    alphabet: Alphabet,
}

/// All needles of one length, as sorted hashes.
struct Needle {
    length: usize,
    hashes: Zeroizing<Vec<u64>>,
}

impl Needles {
    pub(super) fn of(secrets: &[&[u8]]) -> Self {
        let forms: Vec<_> = secrets.iter().copied().flat_map(forms).collect();
        let mut needles = Self {
            // An odd base, so that no byte of a text is lost.
            base: u64::from_le_bytes(random::bytes()) | 1,
            pieces: Sieve::with_room(forms.iter().map(|(form, _)| 3 * form.len()).sum()),
            alphabet: forms
                .iter()
                .map(|(form, _)| alphabet(form))
                .max()
                .unwrap_or_default(),
            ..Self::default()
        };
        for (form, half) in &forms {
            pieces(form).for_each(|piece| needles.pieces.add(piece));
            needles.add(form, *half, Part::Half);
            needles.add(form, form.len(), Part::Whole);
        }
        for all in [&mut needles.whole, &mut needles.half] {
            all.sort_unstable_by_key(|needle| needle.length);
            for needle in all {
                needle.hashes.sort_unstable();
            }
        }
        needles
    }

    fn add(&mut self, form: &[u8], length: usize, part: Part) {
        let needles = match part {
            Part::Whole => &mut self.whole,
            Part::Half => &mut self.half,
        };
        let at = needles.iter().position(|needle| needle.length == length);
        let at = at.unwrap_or_else(|| {
            let hashes = Zeroizing::default();
            needles.push(Needle { length, hashes });
            needles.len() - 1
        });
        for (_, hash) in windows(form, length, self.base) {
            self.pieces.add(hash);
            needles[at].hashes.push(hash);
        }
    }

    fn all(&self, part: Part) -> &[Needle] {
        match part {
            Part::Whole => &self.whole,
            Part::Half => &self.half,
        }
    }

    /// Returns the length of the shortest text that can be found; `None` if nothing is looked for.
    pub(super) fn least(&self, part: Part) -> Option<usize> {
        self.all(part).first().map(|needle| needle.length)
    }

    /// Returns which bytes what is looked for is made of.
    pub(super) fn alphabet(&self) -> Alphabet {
        self.alphabet
    }

    /// Adds the places where a secret is in the text.
    pub(super) fn find(&self, text: &[u8], part: Part, hits: &mut Vec<Range<usize>>) {
        let mut start = 0;
        for (at, piece) in pieces(text).enumerate() {
            if !self.pieces.may_have(piece) {
                self.find_within(text, start..at + PIECE - 1, part, hits);
                start = at + 1;
            }
        }
        self.find_within(text, start..text.len(), part, hits);
    }

    /// Does this within a range that has pieces of secrets alone in it.
    fn find_within(
        &self,
        text: &[u8],
        range: Range<usize>,
        part: Part,
        hits: &mut Vec<Range<usize>>,
    ) {
        let fits = |needle: &&Needle| needle.length <= range.len();
        for Needle { length, hashes } in self.all(part).iter().take_while(fits) {
            for (at, hash) in windows(&text[range.clone()], *length, self.base) {
                if self.pieces.may_have(hash) && hashes.binary_search(&hash).is_ok() {
                    let hit = range.start + at..range.start + at + length;
                    match hits.last_mut() {
                        Some(last) if last.start <= hit.start && hit.start <= last.end => {
                            last.end = last.end.max(hit.end);
                        }
                        _ => hits.push(hit),
                    }
                }
            }
            // Longer ones are in there, too.
            if hits.last() == Some(&range) {
                return;
            }
        }
    }
}

fn alphabet(form: &[u8]) -> Alphabet {
    match str::from_utf8(form) {
        _ if form.iter().any(|byte| byte.is_ascii_control()) => Alphabet::All,
        Ok(text) if text.is_ascii() => Alphabet::Ascii,
        // Text in UTF-8, or what was read as Latin-1.
        _ => Alphabet::Text,
    }
}

/// A secret as it may come back, and how many bytes of it in a row give it away.
type Form = (Zeroizing<Vec<u8>>, usize);

/// Returns the secret in all the letters that it may come back in. ASCII letters are compared without their case anyway.
fn forms(raw: &[u8]) -> Vec<Form> {
    let mut forms = Vec::new();
    add(&mut forms, raw, half(raw));
    // The key of a webhook need not be text.
    if let Some(secret) = str::from_utf8(raw).ok().filter(|text| !text.is_ascii()) {
        let lost = secret.replace(|c: char| !c.is_ascii(), "\u{fffd}");
        for form in [secret.to_lowercase(), secret.to_uppercase(), lost] {
            add(&mut forms, form.as_bytes(), half(form.as_bytes()));
        }
        // It was sent or read as Latin-1.
        let latin = secret.chars().map(|c| u8::try_from(u32::from(c)));
        if let Ok(latin) = latin.collect::<Result<Vec<_>, _>>() {
            add(&mut forms, &latin, half(&latin));
        }
    }
    // What looks like an escape in it is decoded together with the others. All of them may be in the same half.
    let mut form = unescaped(raw);
    while !form.bytes().is_empty() {
        let shorter = raw.len() - form.bytes().len();
        add(&mut forms, form.bytes(), half(raw).saturating_sub(shorter));
        form = unescaped(form.bytes());
    }
    forms
}

fn unescaped(text: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    escapes::unescape(text, &mut decoded);
    decoded
}

/// Adds a form, unless it is there, or so short that it would be found everywhere.
fn add(forms: &mut Vec<Form>, form: &[u8], half: usize) {
    let is_known = forms
        .iter()
        .any(|(known, _)| known.eq_ignore_ascii_case(form));
    if form.len() >= PIECE && !is_known {
        let half = half.max(PIECE).min(form.len());
        forms.push((Zeroizing::new(form.to_vec()), half));
    }
}

fn half(secret: &[u8]) -> usize {
    secret.len().div_ceil(2).max(SHORTEST_PART)
}

/// Returns each piece of the text in lower case, as a number.
fn pieces(text: &[u8]) -> impl Iterator<Item = u64> {
    let mut piece = 0;
    let pieces = text.iter().map(move |byte| {
        piece = piece << 8 | u64::from(byte.to_ascii_lowercase());
        piece
    });
    pieces.skip(PIECE - 1)
}

/// Returns the place and the hash of each part of this length, in lower case.
fn windows(text: &[u8], length: usize, base: u64) -> impl Iterator<Item = (usize, u64)> {
    let value = |byte: &u8| u64::from(byte.to_ascii_lowercase()) + 1;
    let power = iter::repeat_n(base, length).fold(1, u64::wrapping_mul);
    let mut hash = 0_u64;
    let hashes = text.iter().enumerate().map(move |(at, byte)| {
        hash = hash.wrapping_mul(base).wrapping_add(value(byte));
        if let Some(old) = at.checked_sub(length) {
            hash = hash.wrapping_sub(power.wrapping_mul(value(&text[old])));
        }
        hash
    });
    hashes.skip(length - 1).enumerate()
}

/// Says quickly what is surely not in a set of numbers.
#[derive(Default)]
struct Sieve {
    bits: Zeroizing<Vec<u64>>,
    key: u64,
    shift: u32,
}

impl Sieve {
    fn with_room(numbers: usize) -> Self {
        let bits = (16 * numbers).next_power_of_two().clamp(1 << 12, 1 << 20);
        Self {
            bits: Zeroizing::new(vec![0; bits / 64]),
            key: u64::from_le_bytes(random::bytes()) | 1,
            shift: 64 - bits.ilog2(),
        }
    }

    fn place(&self, number: u64) -> (usize, u64) {
        // The upper bits of a product depend on all bits of the number.
        let bit = number.wrapping_mul(self.key) >> self.shift;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn add(&mut self, number: u64) {
        let (word, bit) = self.place(number);
        self.bits[word] |= bit;
    }

    fn may_have(&self, number: u64) -> bool {
        let (word, bit) = self.place(number);
        self.bits.get(word).is_some_and(|word| word & bit != 0)
    }
}

//! The forms that a secret can have in a text.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// Returns how many bytes at the start of the text spell this character: as it is, with each kind of escape, and as the
/// U+FFFD that takes the place of a byte that is not UTF-8.
pub(super) fn spellings(c: char, text: &[u8]) -> [Option<usize>; 5] {
    let hex = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let (mut utf8, mut utf16) = ([0; 4], [0; 2]);
    let utf8 = c.encode_utf8(&mut utf8).as_bytes();
    let units = c.encode_utf16(&mut utf16);
    // The length of the byte at this place, as it is or percent-encoded.
    let byte = |at: usize, byte: u8| match text.get(at..)? {
        [b'%', high, low, ..] if hex(&[*high, *low]) == Some(u32::from(byte)) => Some(3),
        [first, ..] => (*first == byte).then_some(1),
        [] => None,
    };
    let bytes = |at: usize, all: &[u8]| all.iter().try_fold(at, |at, it| Some(at + byte(at, *it)?));
    let json_units = units.iter().try_fold(0, |at, unit| {
        let digits = bytes(at, b"\\u")?;
        (hex(text.get(digits..digits + 4)?) == Some(u32::from(*unit))).then_some(digits + 4)
    });
    let json_short = bytes(0, b"\\")
        .filter(|_| matches!(c, '"' | '\\' | '/'))
        .and_then(|at| bytes(at, utf8));
    let lost = (!c.is_ascii() && text.starts_with("\u{fffd}".as_bytes())).then_some(3);
    [
        text.starts_with(utf8).then_some(utf8.len()),
        json_short,
        json_units,
        bytes(0, utf8),
        lost,
    ]
}

/// Returns the base64 of the secret in both alphabets and at each of the three offsets in a group of three bytes: those
/// characters that depend on the secret alone.
pub(super) fn base64(secret: &[u8]) -> Vec<Zeroizing<String>> {
    let mut needles = Vec::with_capacity(6);
    for before in 0..3 {
        let mut bytes = Zeroizing::new(vec![0; before + secret.len()]);
        bytes[before..].copy_from_slice(secret);
        // The first characters also hold bits of the bytes before the secret, and the last one bits of those after it.
        let (first, last) = (before.div_ceil(3) * (before + 1), bytes.len() * 8 / 6);
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let whole = Zeroizing::new(engine.encode(&*bytes));
            needles.push(Zeroizing::new(whole[first..last].to_owned()));
        }
    }
    needles
}

/// Returns two lower-case digits for each byte, in a wiped buffer of the exact size.
pub(super) fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut hex = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for half in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        hex.extend(char::from_digit(half.into(), 16));
    }
    hex
}

/// Returns the secret as it is, and as it occurs in a JSON text, because a request may come back encoded as a whole: PHP
/// escapes each slash, and Python everything that is not ASCII. Each form occurs once, in a wiped buffer.
pub(super) fn forms(secret: &str) -> Vec<Zeroizing<String>> {
    let mut forms = vec![Zeroizing::new(secret.to_owned())];
    for (slash, ascii) in [(false, false), (true, false), (false, true), (true, true)] {
        // An escape has at most six times the bytes of its character.
        let mut form = Zeroizing::new(String::with_capacity(6 * secret.len()));
        for c in secret.chars() {
            if ascii && !c.is_ascii() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a `String` cannot fail.
                    let _ = write!(*form, "\\u{unit:04x}");
                }
            } else {
                form.extend((matches!(c, '"' | '\\') || slash && c == '/').then_some('\\'));
                form.push(c);
            }
        }
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

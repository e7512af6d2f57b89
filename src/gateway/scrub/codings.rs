//! Hexadecimal digits and base64, wherever they begin.

use std::ops::Range;

use super::decoded::{Decoded, Source};

/// Decodes what can be pairs of hexadecimal digits, with or without something between the pairs.
pub(super) fn hex(text: &Source<'_>, decoded: &mut Decoded) {
    let mut at = 0;
    while at < text.bytes.len() {
        let run = hex_run(text, at);
        if run.is_empty() {
            at += 1;
            continue;
        }
        decode_hex(text, &run, decoded);
        // The first digit may belong to what stands before.
        decode_hex(text, &hex_run(text, at + 1), decoded);
        at = run.end;
    }
}

/// Returns the range of the pairs from here on.
fn hex_run(text: &Source<'_>, start: usize) -> Range<usize> {
    let (mut at, mut end) = (start, start);
    while pair(text.bytes, at).is_some() {
        end = at + 2;
        at = separated(text.bytes, end);
    }
    start..end
}

fn decode_hex(text: &Source<'_>, run: &Range<usize>, decoded: &mut Decoded) {
    if run.len() < 2 * text.least || !text.is_new(run) {
        return;
    }
    let mut at = run.start;
    while at < run.end
        && let Some(byte) = pair(text.bytes, at)
    {
        if text.is_text(byte) {
            decoded.push(byte, at..at + 2);
        } else {
            decoded.end_piece(text.least);
        }
        at = separated(text.bytes, at + 2);
    }
    decoded.end_piece(text.least);
}

/// Returns the byte that two digits here stand for.
fn pair(bytes: &[u8], at: usize) -> Option<u8> {
    let digits = bytes.get(at..at + 2)?;
    let [high, low] = [digits[0], digits[1]].map(|digit| DIGITS[usize::from(digit)]);
    (high != NONE && low != NONE).then_some(high << 4 | low)
}

/// Returns where the next pair can begin: here, or behind a separator.
fn separated(bytes: &[u8], at: usize) -> usize {
    const LONGEST: usize = 4;
    let rest = &bytes[at..];
    let is_separator = |byte: &&u8| b" \t\r\n,:;-_.\"'".contains(byte);
    let after = rest.iter().take(LONGEST).take_while(is_separator).count();
    let is_marked = matches!(rest[after..], [b'0', b'x' | b'X', ..]);
    at + after + if is_marked { 2 } else { 0 }
}

/// Decodes what can be base64 in either alphabet, also in lines.
pub(super) fn base64(text: &Source<'_>, decoded: &mut Decoded) {
    let bytes = text.bytes;
    let shortest = (8 * text.least).div_ceil(6);
    let (mut at, mut run) = (0, Vec::with_capacity(bytes.len()));
    while at < bytes.len() {
        run.clear();
        let start = at;
        while let Some(byte) = bytes.get(at) {
            match SEXTETS[usize::from(*byte)] {
                NONE => break,
                SKIPPED => {}
                _ => run.push(u32::try_from(at).unwrap_or(u32::MAX)),
            }
            at += 1;
        }
        if run.len() >= shortest && text.is_new(&(start..at)) {
            // The first characters may belong to what stands before.
            for before in 0..4 {
                decode_base64(text, &run[before..], decoded);
            }
        }
        at += 1;
    }
}

/// Decodes base64, given as the place of each character.
fn decode_base64(text: &Source<'_>, run: &[u32], decoded: &mut Decoded) {
    let sextet = |at: usize| SEXTETS[usize::from(text.bytes[at])];
    for group in run.chunks(4) {
        for (place, pair) in group.windows(2).enumerate() {
            let [start, end] = [pair[0], pair[1]].map(|at| at as usize);
            let byte = sextet(start) << (2 + 2 * place) | sextet(end) >> (4 - 2 * place);
            if text.is_text(byte) {
                decoded.push(byte, start..end + 1);
            } else {
                decoded.end_piece(text.least);
            }
        }
    }
    decoded.end_piece(text.least);
}

/// Not a digit, or not a character of base64.
const NONE: u8 = 255;
/// A character that may stand between those of base64.
const SKIPPED: u8 = 254;

/// The value of each hexadecimal digit.
static DIGITS: [u8; 256] = digits();

const fn digits() -> [u8; 256] {
    const LOWER: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [NONE; 256];
    let mut value = 0;
    while value < 16 {
        digits[LOWER[value as usize] as usize] = value;
        digits[LOWER[value as usize].to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    digits
}

/// The value of each character of base64, in both alphabets.
static SEXTETS: [u8; 256] = sextets();

const fn sextets() -> [u8; 256] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut sextets = [NONE; 256];
    let mut value = 0;
    while value < 64 {
        sextets[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    sextets[b'-' as usize] = 62;
    sextets[b'_' as usize] = 63;
    sextets[b' ' as usize] = SKIPPED;
    sextets[b'\t' as usize] = SKIPPED;
    sextets[b'\r' as usize] = SKIPPED;
    sextets[b'\n' as usize] = SKIPPED;
    sextets
}

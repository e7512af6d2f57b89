//! The escapes of JSON and its relatives, of URLs and of HTML.

use super::decoded::Decoded;

/// A character in UTF-8, and how many bytes of that count.
type Letter = ([u8; 4], usize);

/// The names that HTML has for ASCII characters.
const NAMES: [(&str, u8); 36] = [
    ("amp", b'&'),
    ("lt", b'<'),
    ("gt", b'>'),
    ("quot", b'"'),
    ("apos", b'\''),
    ("sol", b'/'),
    ("bsol", b'\\'),
    ("plus", b'+'),
    ("equals", b'='),
    ("lowbar", b'_'),
    ("underbar", b'_'),
    ("num", b'#'),
    ("percnt", b'%'),
    ("dollar", b'$'),
    ("excl", b'!'),
    ("quest", b'?'),
    ("colon", b':'),
    ("semi", b';'),
    ("comma", b','),
    ("period", b'.'),
    ("lpar", b'('),
    ("rpar", b')'),
    ("lsqb", b'['),
    ("lbrack", b'['),
    ("rsqb", b']'),
    ("rbrack", b']'),
    ("lcub", b'{'),
    ("lbrace", b'{'),
    ("rcub", b'}'),
    ("rbrace", b'}'),
    ("vert", b'|'),
    ("verbar", b'|'),
    ("grave", b'`'),
    ("ast", b'*'),
    ("commat", b'@'),
    ("hat", b'^'),
];

/// Decodes every escape in the text once. Leaves the text empty if there is none.
pub(super) fn unescape(bytes: &[u8], decoded: &mut Decoded) {
    let mut changed = Vec::new();
    let (mut at, mut done) = (0, 0);
    while at < bytes.len() {
        let found = match bytes[at] {
            b'\\' | b'%' | b'&' => escape(&bytes[at..]),
            _ => None,
        };
        if let Some(((letter, size), length)) = found {
            decoded.copy(bytes, done..at);
            for byte in &letter[..size] {
                changed.push(decoded.bytes().len());
                decoded.push(*byte, at..at + length);
            }
            at += length;
            done = at;
        } else {
            at += 1;
        }
    }
    if !changed.is_empty() {
        decoded.copy(bytes, done..bytes.len());
        decoded.changed = Some(changed);
    }
}

/// Returns what the escape at the start of the text stands for, and its length.
fn escape(text: &[u8]) -> Option<(Letter, usize)> {
    match text {
        [b'%', digits @ ..] => Some((byte(number(digits.get(..2)?, 16)?), 3)),
        [b'&', b'#', rest @ ..] => entity_number(rest).map(|(letter, length)| (letter, 2 + length)),
        [b'&', rest @ ..] => entity_name(rest).map(|(letter, length)| (letter, 1 + length)),
        [b'\\', b'x' | b'X', digits @ ..] => Some((byte(number(digits.get(..2)?, 16)?), 4)),
        [b'\\', b'u', ..] => Some(match (unit(text)?, text.get(6..).and_then(unit)) {
            (high @ 0xd800..0xdc00, Some(low @ 0xdc00..0xe000)) => {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                (character(code), 12)
            }
            (unit, _) => (character(unit), 6),
        }),
        [b'\\', kind, ..] => {
            let stands_for = match kind {
                b'"' | b'\\' | b'/' | b'\'' => *kind,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                _ => return None,
            };
            Some((raw(stands_for), 2))
        }
        _ => None,
    }
}

/// Returns the UTF-16 code unit at the start of the text, if that is `\u` and four digits.
fn unit(text: &[u8]) -> Option<u32> {
    number(text.strip_prefix(b"\\u")?.get(..4)?, 16)
}

/// Reads what follows `&#`.
fn entity_number(text: &[u8]) -> Option<(Letter, usize)> {
    let (start, radix) = match text {
        [b'x' | b'X', ..] => (1, 16),
        _ => (0, 10),
    };
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
    // Zeros in front are allowed, within reason.
    let digits = text[start..].iter().take(12).take_while(is_digit).count();
    let end = start + digits;
    let code = number(&text[start..end], radix)?;
    Some((
        character(code),
        end + usize::from(text.get(end) == Some(&b';')),
    ))
}

/// Reads what follows `&`. The oldest four names are known without their semicolon, too.
fn entity_name(text: &[u8]) -> Option<(Letter, usize)> {
    NAMES.iter().enumerate().find_map(|(place, (name, byte))| {
        let (start, rest) = text.split_at_checked(name.len())?;
        let ends = rest.first() == Some(&b';');
        (start.eq_ignore_ascii_case(name.as_bytes()) && (ends || place < 4))
            .then(|| (raw(*byte), name.len() + usize::from(ends)))
    })
}

/// Reads at least one digit, and nothing else.
fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let digit = |byte: &u8| char::from(*byte).to_digit(radix);
    let add = |number: u32, byte| Some(number.wrapping_mul(radix).wrapping_add(digit(byte)?));
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, add))?
}

fn byte(number: u32) -> Letter {
    raw(number.to_le_bytes()[0])
}

fn raw(byte: u8) -> Letter {
    ([byte, 0, 0, 0], 1)
}

fn character(code: u32) -> Letter {
    let mut bytes = [0; 4];
    let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    let length = c.encode_utf8(&mut bytes).len();
    (bytes, length)
}

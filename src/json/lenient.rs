//! Repairs text that is almost JSON, where that takes no guess.

use std::borrow::Cow;

/// The escape that takes the place of one that cannot be read.
const REPLACEMENT: &str = "\\ufffd";

/// Returns the text without a byte order mark, with U+FFFD in place of bytes that are not UTF-8 and of halves of surrogate
/// pairs, and with control characters escaped in strings. Text that is malformed in another way stays malformed.
pub(super) fn repaired(bytes: &[u8]) -> String {
    let text = decoded(bytes);
    let mut repaired = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (&*text, false);
    while let Some(at) = rest.find(|c: char| c == '"' || in_string && (c == '\\' || c < ' ')) {
        repaired.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut length = 1;
        match rest.as_bytes() {
            [b'"', ..] => {
                in_string = !in_string;
                repaired.push('"');
            }
            [b'\\', ..] => {
                let is_readable;
                (length, is_readable) = escape(rest);
                repaired.push_str(if is_readable {
                    &rest[..length]
                } else {
                    REPLACEMENT
                });
            }
            [control, ..] => repaired.push_str(&format!("\\u{control:04x}")),
            [] => {}
        }
        rest = &rest[length..];
    }
    repaired.push_str(rest);
    repaired
}

/// Decodes the bytes as text, without a byte order mark.
pub(super) fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))
}

/// Returns the length of the escape at the start of the text, and whether it stands for a character. The two halves of a
/// surrogate pair count as one escape.
fn escape(text: &str) -> (usize, bool) {
    match unit(text) {
        Some(0xd800..0xdc00) if matches!(text.get(6..).and_then(unit), Some(0xdc00..0xe000)) => {
            (12, true)
        }
        Some(0xd800..0xe000) => (6, false),
        Some(_) => (6, true),
        None => (1 + text[1..].chars().next().map_or(0, char::len_utf8), true),
    }
}

/// Returns the UTF-16 code unit at the start of the text, if that is `\u` and four hexadecimal digits.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u16::from_str_radix(digits, 16).ok())?
}

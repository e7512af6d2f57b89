//! The lines of the chunked coding (RFC 9112, section 7.1).

use std::io;

/// Longest line that gives the size of a chunk.
const MAX_CHUNK_LINE: usize = 256;

/// How long the line at the start of `bytes` is, its end included; `None` while it is not whole.
pub(super) fn line(bytes: &[u8]) -> io::Result<Option<usize>> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    // Whether the rest of it is there already must not matter.
    if end.unwrap_or(bytes.len()) > MAX_CHUNK_LINE {
        return Err(bad_body("a line of the chunked coding is too long"));
    }
    match end {
        Some(end) if end > 0 && bytes[end - 1] == b'\r' => Ok(Some(end + 1)),
        Some(_) => Err(bad_body("a bare line feed in the chunked coding")),
        None => Ok(None),
    }
}

/// The size that a chunk's line gives; extensions may follow it, of visible characters.
pub(super) fn chunk_size(line: &[u8]) -> io::Result<u64> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (size, extension) = line.split_at(digits);
    let extension_ok = match extension {
        [] => true,
        [b';', rest @ ..] => {
            !rest.is_empty()
                && rest
                    .iter()
                    .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
        }
        _ => false,
    };
    let size = std::str::from_utf8(size)
        .ok()
        .and_then(|size| u64::from_str_radix(size, 16).ok());
    size.filter(|_| extension_ok)
        .ok_or_else(|| bad_body("a chunk's size is not one"))
}

pub(super) fn bad_body(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

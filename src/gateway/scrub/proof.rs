//! The proof that a secret is found, which is given at each start.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::random;

/// What can stand before and after the two hexadecimal digits of a byte.
const HEX: [(&str, &str); 7] = [
    ("", ""),
    ("", ":"),
    ("0x", ", "),
    ("%", ""),
    ("\\x", ""),
    ("\\u00", ""),
    ("&#x", ";"),
];

/// Checks that a made-up secret is found in each coding, once and three times over, and each half of it, too.
/// `has` says whether there is something of the secret, which comes first, in a text.
///
/// # Errors
/// Says in which coding it is not.
pub(super) fn prove(has: impl Fn(&str, &str) -> bool) -> Result<(), String> {
    let secret = format!("{}&/", random::token(26));
    let (first, last) = secret.split_at(secret.len() / 2);
    for part in [&secret, first, last] {
        for coding in 0..codings("").len() {
            let mut text = part.to_owned();
            for depth in 1..=3 {
                let (name, coded) = codings(&text).swap_remove(coding);
                if !has(&secret, &coded) {
                    return Err(format!("{name}, {depth} deep"));
                }
                text = coded;
            }
        }
    }
    Ok(())
}

/// Returns the text in each coding, with the name of that.
fn codings(text: &str) -> Vec<(String, String)> {
    let decimal = text.bytes().map(|byte| format!("&#{byte};")).collect();
    let lines = STANDARD.encode(text).into_bytes();
    let lines: Vec<_> = lines.chunks(20).map(String::from_utf8_lossy).collect();
    let mut codings: Vec<_> = [
        ("upper case", text.to_uppercase()),
        ("JSON", text.replace('\\', "\\\\").replace('/', "\\/")),
        ("HTML", text.replace('&', "&amp;")),
        ("decimal HTML", decimal),
        ("base64 in lines", lines.join("\r\n")),
        ("base64 for URLs", URL_SAFE_NO_PAD.encode(text)),
    ]
    .map(|(name, coded)| (name.to_owned(), coded))
    .into();
    for (before, after) in HEX {
        let mut coded = String::new();
        for byte in text.bytes() {
            // Writing to a `String` cannot fail.
            let _ = write!(coded, "{before}{byte:02x}{after}");
        }
        codings.push((format!("{before}41{after}"), coded));
    }
    codings
}

//! A gateway that echoes the secret in some coding, in the midst of anything. Whatever of the answer is passed on,
//! decoded in any of these ways, has the secret in it no more.
#![no_main]

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{
    GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD, URL_SAFE_NO_PAD,
};
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use tillgate::fuzz::gateway;

const SECRETS: [&str; 4] = [
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "a\"b\\c/d%41+e=",
    "gr\u{fc}\u{df}e-\u{1f511}-key",
    "aaaaaaaa",
];

fuzz_target!(|data: &[u8]| {
    let Some(([secret, coding, at], around)) = data.split_first_chunk() else {
        return;
    };
    let Ok(around) = std::str::from_utf8(around) else {
        return;
    };
    let secret = SECRETS[usize::from(*secret) % SECRETS.len()];
    let at = (0..=around.len())
        .filter(|i| around.is_char_boundary(*i))
        .nth(usize::from(*at))
        .unwrap_or(around.len());
    let (before, after) = around.split_at(at);
    let text = match coding % 6 {
        0 => format!("{before}{secret}{after}"),
        // What stands right beside it must not make another escape of its first or last characters.
        1 => format!("{before} {} {after}", quoted(secret)),
        2 => format!(
            "{before} {} {after}",
            utf8_percent_encode(secret, NON_ALPHANUMERIC)
        ),
        3 => format!(
            " {} ",
            STANDARD_NO_PAD.encode(format!("{before}{secret}{after}"))
        ),
        4 => format!(
            " {} ",
            URL_SAFE_NO_PAD.encode(format!("{before}{}{after}", quoted(secret)))
        ),
        // Without any help of ours.
        _ => around.to_owned(),
    };
    let body = format!(
        "{{\"status\":\"created\",\"amount\":1,\"echo\":{}}}",
        Value::from(text.as_str())
    );
    let Ok((_, answer, _)) = gateway::watched(200, body.as_bytes(), secret) else {
        return;
    };
    let value: Value = serde_json::from_str(&answer).expect("JSON");
    let echo = value["echo"].as_str().expect("a text");
    if coding % 6 < 5 {
        assert!(echo.contains("[redacted]"), "it went unseen: {text:?}");
    }
    for (way, decoded) in decodings(echo) {
        assert!(!contains(&decoded, secret.as_bytes()), "{way}: {echo:?}");
    }
});

/// As it stands between the quotes of a JSON text.
fn quoted(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// What readers may make of a text.
fn decodings(text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![
        ("as it is", text.as_bytes().to_vec()),
        ("percent-decoded", percent_decode_str(text).collect()),
        ("unescaped", unescaped(text).into_bytes()),
    ];
    // Bits that do not fill a byte may be anything.
    let lax = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
    let lax = lax.with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    for (way, alphabet) in [("base64", &STANDARD), ("base64 for URLs", &URL_SAFE)] {
        let engine = GeneralPurpose::new(alphabet, lax);
        let may_stand = |c: char| alphabet.as_str().contains(c);
        for run in text
            .split(|c: char| !may_stand(c))
            .filter(|run| run.len() >= 10)
        {
            // It may begin anywhere in a run of such characters.
            for start in 0..4 {
                let run = &run[start..];
                // One character too many is no base64.
                let run = if run.len() % 4 == 1 {
                    &run[..run.len() - 1]
                } else {
                    run
                };
                if let Ok(decoded) = engine.decode(run) {
                    all.push((way, decoded));
                }
            }
        }
    }
    all
}

/// A text as JSON has it, leniently: what is no escape stays.
fn unescaped(text: &str) -> String {
    let mut units = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let escaped = rest.strip_prefix('\\').and_then(|escape| {
            let kind = escape.chars().next()?;
            match kind {
                '"' | '\\' | '/' => Some((u16::try_from(u32::from(kind)).ok()?, 2)),
                'u' => Some((
                    u16::from_str_radix(escape.get(1..5).filter(|hex| !hex.starts_with('+'))?, 16)
                        .ok()?,
                    6,
                )),
                _ => None,
            }
        });
        match escaped {
            Some((unit, length)) => {
                units.push(unit);
                rest = &rest[length..];
            }
            None => {
                units.extend(c.encode_utf16(&mut [0; 2]).iter());
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    String::from_utf16_lossy(&units)
}

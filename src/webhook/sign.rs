//! Signatures as Standard Webhooks 1.0 has them, and the keys they are made with.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::gateway;

/// What the text of a key starts with.
const PREFIX: &str = "whsec_";
/// Bytes of a key: "between 24 bytes (192 bits) and 64 bytes (512 bits)".
const SIZE: std::ops::RangeInclusive<usize> = 24..=64;

/// The keys that sign, all of them: while one takes the place of another, both do.
pub(crate) struct Keys(Vec<Zeroizing<Vec<u8>>>);

impl Keys {
    /// One key a line; empty lines are left out.
    ///
    /// # Errors
    /// Says which line is wrong, never what stands in it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (i, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let key = line
                .strip_prefix(PREFIX.as_bytes())
                .and_then(|text| STANDARD.decode(text).ok());
            let key = key
                .map(Zeroizing::new)
                .filter(|key| SIZE.contains(&key.len()));
            let wrong = || {
                format!(
                    "line {} is not a key: whsec_ and the base64 of 24 to 64 bytes",
                    i + 1
                )
            };
            keys.push(key.ok_or_else(wrong)?);
        }
        if keys.is_empty() {
            Err("there is no key in it (one a line)".to_owned())
        } else {
            Ok(Self(keys))
        }
    }

    /// The same text without the keys, in whatever coding the app shows them.
    pub(super) fn redact(&self, text: String) -> String {
        let keys: Vec<_> = self.0.iter().map(|key| key.as_slice()).collect();
        gateway::scrub_keys(&keys, text)
    }

    /// A signature for each key, as the header has them.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let signatures = self.0.iter().filter_map(|key| {
            // Keys of any length are taken.
            let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
            for part in [id, ".", &timestamp.to_string(), ".", body] {
                mac.update(part.as_bytes());
            }
            Some(format!(
                "v1,{}",
                STANDARD.encode(mac.finalize().into_bytes())
            ))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

/// The text of a fresh key.
pub(crate) fn fresh_key() -> String {
    format!("{PREFIX}{}", STANDARD.encode(crate::random::bytes::<32>()))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::random;

    #[test]
    fn the_specifications_own_example_comes_out() {
        // Standard Webhooks, spec/standard-webhooks.md: "Verifying signatures".
        let keys = Keys::parse(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\r\n").unwrap();
        let signed = keys.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_key_is_found_however_the_app_shows_it() {
        let bytes: [u8; 32] = random::bytes();
        let text = format!("{PREFIX}{}", STANDARD.encode(bytes));
        let keys = Keys::parse(format!("{}\n{text}", fresh_key()).as_bytes()).unwrap();
        let each = |before: &str, after: &str, upper: bool| {
            let byte = |byte: &u8| match upper {
                true => format!("{before}{byte:02X}{after}"),
                false => format!("{before}{byte:02x}{after}"),
            };
            bytes.iter().map(byte).collect::<String>()
        };
        for shown in [
            text.clone(),
            text.trim_end_matches('=').to_owned(),
            text.trim_start_matches(PREFIX).to_owned(),
            URL_SAFE_NO_PAD.encode(bytes),
            each("", "", false),
            each("", "", true),
            each("", ":", true),
            // <Buffer 0a 1b …>, as Node.js shows it.
            each(" ", "", false),
            // b'\x0a\x1b…', as Python and Ruby show it.
            each("\\x", "", false),
            each("%", "", true),
            STANDARD.encode(&text),
        ] {
            let redacted = keys.redact(format!("bad key <{shown}> here"));
            assert!(
                redacted.contains("[redacted]") && redacted.len() < 40,
                "{redacted}"
            );
        }
        let public = "bad signature v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(keys.redact(public.to_owned()), public);
    }

    #[test]
    fn two_keys_make_two_signatures_and_bad_ones_are_told_by_their_line() {
        let (a, b) = (fresh_key(), fresh_key());
        let keys = Keys::parse(format!("{a}\n\n{b}").as_bytes()).unwrap();
        let signed = keys.sign("id", 1, "{}");
        assert_eq!(
            signed
                .split(' ')
                .filter(|signature| signature.starts_with("v1,"))
                .count(),
            2
        );
        for (text, line) in [
            ("whsec_AAAA", "line 1"),
            ("", "no key"),
            ("\nabc", "line 2"),
            ("whsec_!", "line 1"),
        ] {
            let error = Keys::parse(text.as_bytes()).err().unwrap();
            assert!(error.contains(line) && !error.contains("AAAA"), "{error}");
        }
    }
}

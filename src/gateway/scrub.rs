//! Takes the secret out of what the gateway says: an answer that echoes the request must not carry it on to callers.

use std::cell::{Cell, OnceCell};
use std::cmp::Reverse;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::json::Json;

/// What stands in its place.
const REDACTED: &str = "[redacted]";

/// Looks for these secrets in one answer.
pub(super) struct Scrubber {
    secrets: Vec<Arc<SecretString>>,
    found: Cell<bool>,
}

impl Scrubber {
    pub(super) fn new(mut secrets: Vec<Arc<SecretString>>) -> Self {
        // The longest first: of one that begins with another the rest would be left.
        secrets.sort_by_key(|secret| (Reverse(secret.expose_secret().len()), Arc::as_ptr(secret)));
        secrets.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Self {
            secrets,
            found: Cell::new(false),
        }
    }

    /// One of them was found.
    pub(super) fn has_found(&self) -> bool {
        self.found.get()
    }

    /// Takes them out of every name and value, raw, or as a text that quotes JSON, a URL, base64 or hex has them. (How
    /// JSON wrote the values themselves is no matter: they are unescaped.)
    pub(super) fn scrub(&self, value: &mut Json) {
        let needles = self.needles();
        value.rewrite(&mut |text| self.take_out(&needles, text));
    }

    /// The text without them.
    pub(super) fn text(&self, text: String) -> String {
        self.take_out(&self.needles(), &text).unwrap_or(text)
    }

    fn needles(&self) -> Vec<Needles<'_>> {
        self.secrets
            .iter()
            .map(|secret| Needles::of(secret.expose_secret()))
            .collect()
    }

    fn take_out(&self, needles: &[Needles<'_>], text: &str) -> Option<String> {
        let mut clean: Option<String> = None;
        for needles in needles {
            clean = needles.take_out(clean.as_deref().unwrap_or(text)).or(clean);
        }
        self.found.set(self.found.get() || clean.is_some());
        clean
    }
}

/// The forms that it can have; derived for one answer, and wiped after it.
struct Needles<'a> {
    raw: &'a str,
    /// In small letters: names of hosts come back so.
    lower: Zeroizing<String>,
    /// Few answers have a text in them that could be base64 of it, or hex.
    base64: OnceCell<Vec<Zeroizing<String>>>,
    hex: OnceCell<Vec<Zeroizing<String>>>,
}

impl<'a> Needles<'a> {
    fn of(raw: &'a str) -> Self {
        let lower = Zeroizing::new(raw.to_ascii_lowercase());
        Self {
            raw,
            lower,
            base64: OnceCell::new(),
            hex: OnceCell::new(),
        }
    }

    /// The text without it, if it was in there.
    fn take_out(&self, text: &str) -> Option<String> {
        let mut hits = Vec::new();
        for find in [
            Self::raw_in,
            Self::spelled_in,
            Self::hex_in,
            Self::base64_in,
        ] {
            let mut done = 0;
            while let Some(hit) = find(self, &text[done..]) {
                hits.push(done + hit.start..done + hit.end);
                done += hit.end;
            }
        }
        hits.sort_unstable_by_key(|hit| hit.start);
        let (mut clean, mut done) = (String::new(), 0);
        for hit in &hits {
            // Where one form runs into another, both are taken out as one.
            if hit.start >= done {
                clean.push_str(&text[done..hit.start]);
                clean.push_str(REDACTED);
            }
            done = done.max(hit.end);
        }
        clean.push_str(&text[done..]);
        (!hits.is_empty()).then_some(clean)
    }

    /// Where it stands as it is, in capitals or not: what follows may be another, and no part of an escape of its last
    /// character.
    fn raw_in(&self, text: &str) -> Option<Range<usize>> {
        if text.len() < self.raw.len() {
            return None;
        }
        // As long as the text itself, byte for byte.
        let text = Zeroizing::new(text.to_ascii_lowercase());
        text.find(&**self.lower)
            .map(|start| start..start + self.raw.len())
    }

    /// Where it stands with whatever characters of it escaped as JSON or a URL does it, or lost because they were written
    /// in an encoding that is not UTF-8.
    fn spelled_in(&self, text: &str) -> Option<Range<usize>> {
        let first = self.raw.bytes().next()?;
        // The last one: of U+FFFD.
        let may_start =
            |(_, byte): &(usize, u8)| *byte == first || matches!(byte, b'\\' | b'%' | 0xef);
        text.bytes()
            .enumerate()
            .filter(may_start)
            .find_map(|(start, _)| {
                // Where the characters so far can end: a backslash may be one of the secret's, or an escape for it.
                let mut ends = vec![start];
                for c in self.raw.chars() {
                    let further = |at: usize| {
                        spellings(c, &text.as_bytes()[at..])
                            .into_iter()
                            .flatten()
                            .map(move |length| at + length)
                    };
                    ends = ends.into_iter().flat_map(further).collect::<Vec<_>>();
                    // Sorted, or a run of backslashes would have ever more ways to end at the same places.
                    ends.sort_unstable();
                    ends.dedup();
                    if ends.is_empty() {
                        return None;
                    }
                }
                Some(start..ends.into_iter().max()?)
            })
    }

    /// Where it stands in base64: all of the coded text, the rest of which may be the rest of the request.
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

    /// The same in hex, in capitals or not.
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

/// The parts of the text that have only such characters, and at least that many bytes.
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

/// How many bytes at the start of the text spell this character: as it is, with each kind of escape, and as what is left
/// of a byte that is not UTF-8.
fn spellings(c: char, text: &[u8]) -> [Option<usize>; 5] {
    let hex = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let (mut utf8, mut utf16) = ([0; 4], [0; 2]);
    let utf8 = c.encode_utf8(&mut utf8).as_bytes();
    let units = c.encode_utf16(&mut utf16);
    // How long the byte is there, as it is or as a URL has it.
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

/// What base64 makes of it in either alphabet, wherever it starts in what is encoded: the characters that depend on it
/// alone, for each of the three ways to fall into groups of three bytes.
fn base64(secret: &[u8]) -> Vec<Zeroizing<String>> {
    let mut needles = Vec::with_capacity(6);
    for before in 0..3 {
        let mut bytes = Zeroizing::new(vec![0; before + secret.len()]);
        bytes[before..].copy_from_slice(secret);
        // Bits of the bytes before stand in the first characters, and bits of what follows in the last.
        let (first, last) = (before.div_ceil(3) * (before + 1), bytes.len() * 8 / 6);
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let whole = Zeroizing::new(engine.encode(&*bytes));
            needles.push(Zeroizing::new(whole[first..last].to_owned()));
        }
    }
    needles
}

/// Two small digits a byte, in a wiped buffer of the exact size.
fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let mut hex = Zeroizing::new(String::with_capacity(2 * bytes.len()));
    for half in bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
        hex.extend(char::from_digit(half.into(), 16));
    }
    hex
}

/// As it is, and as it stands between the quotes of a JSON text: a request that comes back encoded has it as JSON wrote
/// it, PHP with each slash escaped, Python with all that is not ASCII. Each of them once, in wiped buffers.
fn forms(secret: &str) -> Vec<Zeroizing<String>> {
    let mut forms = vec![Zeroizing::new(secret.to_owned())];
    for (slash, ascii) in [(false, false), (true, false), (false, true), (true, true)] {
        // No escape is longer than six times what it stands for.
        let mut form = Zeroizing::new(String::with_capacity(6 * secret.len()));
        for c in secret.chars() {
            if ascii && !c.is_ascii() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Into a text: that cannot fail.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json;

    #[test]
    fn neither_form_of_the_secret_is_left() {
        let secret = r#"sec"ret\1234"#;
        let scrubber = Scrubber::new(vec![Arc::new(SecretString::from(secret))]);
        let request = format!("{{\"merchant_secret\":{}}}", json::quoted(secret));
        let answer = format!(
            r#"{{"a":{},"b":["x\u0073ec\"ret\\1234"],{}:1,"request":{}}}"#,
            json::quoted(secret),
            json::quoted(secret),
            json::quoted(&request)
        );
        let mut value = Json::Object(json::parse_object(answer.as_bytes()).unwrap());
        scrubber.scrub(&mut value);
        assert_eq!(
            value.to_string(),
            r#"{"a":"[redacted]","b":["x[redacted]"],"[redacted]":1,"request":"{\"merchant_secret\":\"[redacted]\"}"}"#
        );
        assert!(scrubber.has_found());
    }

    #[test]
    fn no_name_occurs_twice_when_it_is_out() {
        let secret = "a-secret-of-18-byt";
        let scrubber = Scrubber::new(vec![Arc::new(SecretString::from(secret))]);
        let answer = format!(
            r#"{{"{secret}":1,"a":[{{"[redacted]":2,"b":3,"{secret}":4}}],"{}":5}}"#,
            hex(secret.as_bytes()).as_str()
        );
        let mut value = Json::Object(json::parse_object(answer.as_bytes()).unwrap());
        scrubber.scrub(&mut value);
        assert_eq!(value.to_string(), r#"{"a":[{"b":3}]}"#);
    }

    #[test]
    fn nothing_is_left_of_a_secret_that_begins_with_another_nor_where_two_forms_meet() {
        let secrets = ["sk_live_abcdef", "sk_live_abcdef_2026-xyz"]
            .map(|secret| Arc::new(SecretString::from(secret)));
        for _ in 0..20 {
            // Where they are in memory is no matter.
            let secrets = secrets
                .iter()
                .map(|secret| Arc::new((**secret).clone()))
                .collect();
            assert_eq!(
                Scrubber::new(secrets).text("<sk_live_abcdef_2026-xyz>".to_owned()),
                "<[redacted]>"
            );
        }
        assert_eq!(
            Needles::of("25abcdef%")
                .take_out("25abcdef%25abcdef%")
                .as_deref(),
            Some("[redacted]")
        );
        let secret = "begin:the-rest";
        let meeting = format!("{}{secret}!", STANDARD_NO_PAD.encode(format!("0{secret}0")));
        assert_eq!(
            Needles::of(secret).take_out(&meeting).as_deref(),
            Some("[redacted]!")
        );
    }

    #[test]
    fn nothing_is_left_of_a_secret_in_another_encoding() {
        let latin = |secret: &str| {
            secret
                .chars()
                .map(|c| u8::try_from(u32::from(c)).unwrap())
                .collect::<Vec<_>>()
        };
        for secret in [
            "gr\u{fc}\u{df}e-key",
            "\u{e9}t\u{e9}-2026-key",
            "the-key-of-caf\u{e9}",
        ] {
            let text = String::from_utf8_lossy(&latin(&format!("<{secret}>"))).into_owned();
            assert_eq!(
                Needles::of(secret).take_out(&text).as_deref(),
                Some("<[redacted]>"),
                "{text}"
            );
            assert!(
                Needles::of(secret)
                    .take_out(&"\u{fffd}".repeat(20))
                    .is_none()
            );
        }
    }

    /// Each of them may be one of the secret's, or the escape of another.
    #[test]
    fn a_secret_of_backslashes_takes_no_longer_than_another() {
        let secret = "\\".repeat(40);
        assert_eq!(
            Needles::of(&secret)
                .take_out(&format!("x{}", "\\".repeat(80)))
                .as_deref(),
            Some("x[redacted]")
        );
    }

    /// As the query of a URL has it.
    fn percent_of(text: &str) -> String {
        let coded = |byte: u8| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        };
        text.bytes().map(coded).collect()
    }

    /// As Python's JSON has it.
    fn ascii(text: &str) -> String {
        let unit = |unit: u16| match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
            _ => format!("\\u{unit:04x}"),
        };
        text.encode_utf16().map(unit).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_coding_hides_it(
            secret in "[!-~\u{a1}-\u{24f}]{8,40}",
            before in any::<String>(),
            after in any::<String>(),
            encode in prop::collection::vec(any::<bool>(), 200),
        ) {
            let needles = Needles::of(&secret);
            let plain = format!("{before}{secret}{after}");
            let mut encode = encode.into_iter().cycle();
            let percent: String = secret
                .bytes()
                .map(|byte| match (byte.is_ascii() && encode.next() == Some(false), encode.next()) {
                    (true, _) => char::from(byte).to_string(),
                    (false, Some(true)) => format!("%{byte:02x}"),
                    (false, _) => format!("%{byte:02X}"),
                })
                .collect();
            let forms = [
                plain.clone(),
                json::quoted(&plain),
                json::quoted(&plain).replace('/', r"\/"),
                plain.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect(),
                STANDARD_NO_PAD.encode(json::quoted(&plain)),
                STANDARD_NO_PAD.encode(json::quoted(&plain).replace('/', r"\/")),
                hex(ascii(&json::quoted(&plain)).as_bytes()).to_string(),
                URL_SAFE_NO_PAD.encode(ascii(&json::quoted(&plain).replace('/', r"\/"))),
                format!("{before}{percent}{after}"),
                format!("{before} {}", STANDARD_NO_PAD.encode(&plain)),
                format!("{}%{after}", URL_SAFE_NO_PAD.encode(&plain)),
                format!("{before}{}{after}", &*hex(secret.as_bytes())),
                format!("{before}{}", hex(json::quoted(&plain).as_bytes()).to_uppercase()),
                format!("0x{}", hex(plain.as_bytes()).replace('b', "B")),
                percent_of(&json::quoted(&plain)),
                percent_of(&plain.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>()),
            ];
            for form in forms {
                let clean = needles.take_out(&form);
                prop_assert!(clean.is_some(), "{:?}", form);
                let again = clean.and_then(|clean| needles.take_out(&clean));
                prop_assert!(again.is_none() || REDACTED.contains(&secret), "{:?}", again);
            }
        }
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        assert!(
            Needles::of("redacted")
                .take_out("redacted %72edacted")
                .is_some(),
            "it ends"
        );
        assert!(
            Needles::of("a_secret_of_1234")
                .take_out("100% of nothing: c3VjaCBhIHRleHQ a_secret_of_123")
                .is_none()
        );
    }
}

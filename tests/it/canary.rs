//! A secret to look for, in every form that something could have written it in, and a part of it is enough.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// So many bytes of it in a row are it.
const WINDOW: usize = 12;

/// What is looked for.
pub struct Canary {
    pub secret: String,
    needles: Vec<(&'static str, Vec<u8>)>,
    /// Which needles begin with these two bytes.
    beginning: Vec<Vec<usize>>,
}

/// Where it was seen: one for as much of it as stands there in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub form: &'static str,
    pub at: usize,
    pub length: usize,
}

impl Canary {
    /// One with characters that JSON and URLs escape.
    pub fn new() -> Self {
        Self::of("canary-Q7w9E2r4T6y8-\"quoted\\U1i3O5p0")
    }

    /// Another for each number.
    pub fn numbered(number: u64) -> Self {
        Self::of(&numbered(number))
    }

    /// This one, of ASCII characters.
    pub fn of(secret: &str) -> Self {
        let mut needles: Vec<(&'static str, Vec<u8>)> = Vec::new();
        for window in secret.as_bytes().windows(WINDOW) {
            for (form, needle) in forms(window) {
                if !needles.iter().any(|(_, other)| *other == needle) {
                    needles.push((form, needle));
                }
            }
        }
        let mut beginning = vec![Vec::new(); 1 << 16];
        for (i, (_, needle)) in needles.iter().enumerate() {
            beginning[begin(needle[0], needle[1])].push(i);
        }
        Self {
            secret: secret.to_owned(),
            needles,
            beginning,
        }
    }

    /// Everywhere that it stands in these bytes.
    pub fn sightings(&self, bytes: &[u8]) -> Vec<Sighting> {
        let mut seen: Vec<Sighting> = Vec::new();
        for (at, pair) in bytes.windows(2).enumerate() {
            for i in &self.beginning[begin(pair[0], pair[1])] {
                let (form, needle) = &self.needles[*i];
                if !bytes[at..].starts_with(needle) {
                    continue;
                }
                match seen
                    .iter_mut()
                    .rev()
                    .find(|before| before.form == *form && at < before.at + before.length)
                {
                    Some(before) => before.length = at + needle.len() - before.at,
                    None => seen.push(Sighting {
                        form,
                        at,
                        length: needle.len(),
                    }),
                }
            }
        }
        seen
    }

    /// All of it in each form, to plant.
    pub fn planted(&self) -> Vec<(&'static str, Vec<u8>)> {
        forms(self.secret.as_bytes())
    }
}

/// Letters and digits that follow from the number alone.
pub fn numbered(number: u64) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    let letter = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(LETTERS[(state >> 33) as usize % LETTERS.len()])
    };
    (0..32).map(letter).collect()
}

fn begin(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// What programs write texts as. In base64 only what depends on these bytes alone, wherever they begin in what is encoded.
fn forms(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let each =
        |write: &dyn Fn(&u8) -> String| bytes.iter().map(write).collect::<String>().into_bytes();
    let mut forms = vec![
        ("raw", bytes.to_vec()),
        ("in lower case", bytes.to_ascii_lowercase()),
        ("in upper case", bytes.to_ascii_uppercase()),
        ("JSON escapes", each(&|byte| format!("\\u{byte:04x}"))),
        (
            "JSON escapes in upper case",
            each(&|byte| format!("\\u{byte:04X}")),
        ),
        ("percent", each(&|byte| format!("%{byte:02X}"))),
        (
            "percent in lower case",
            each(&|byte| format!("%{byte:02x}")),
        ),
        ("hex", each(&|byte| format!("{byte:02x}"))),
        ("hex in upper case", each(&|byte| format!("{byte:02X}"))),
        (
            "numbers",
            bytes
                .iter()
                .map(u8::to_string)
                .collect::<Vec<_>>()
                .join(", ")
                .into_bytes(),
        ),
        ("backwards", bytes.iter().rev().copied().collect()),
    ];
    for (before, names) in [
        ["base64", "base64 for URLs"],
        [
            "base64 from its second byte",
            "base64 for URLs from its second byte",
        ],
        [
            "base64 from its third byte",
            "base64 for URLs from its third byte",
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let padded = [&[0; 2][..before], bytes].concat();
        let (first, last) = (before + before.min(1), padded.len() * 8 / 6);
        for (name, engine) in names.into_iter().zip([STANDARD_NO_PAD, URL_SAFE_NO_PAD]) {
            forms.push((
                name,
                engine.encode(&padded).as_bytes()[first..last].to_vec(),
            ));
        }
    }
    forms
}

#[test]
fn the_search_for_the_secret_finds_each_form_and_parts_of_it() {
    let canary = Canary::of("canary-0123456789-abcdefghij");
    for text in [
        "a canary-0123456789-abcdefghij b",
        "CANARY-0123456789-ABCDEFGHIJ",
        "cut off: canary-01234",
        "Y2FuYXJ5LTAxMjM0NTY3ODktYWJjZGVmZ2hpag==",
        "xxdjYW5hcnktMDEyMzQ1Njc4OS1hYmNkZWZnaGlq",
        "63616e6172792d303132333435363738392d6162636465666768696a",
        "63616E6172792D30313233343536",
        "%63%61%6E%61%72%79%2D%30%31%32%33%34",
        r"\u0063\u0061\u006e\u0061\u0072\u0079\u002d\u0030\u0031\u0032\u0033\u0034",
        "jihgfedcba-9876543210",
    ] {
        assert!(!canary.sightings(text.as_bytes()).is_empty(), "{text}");
    }
    for (form, needle) in canary.planted() {
        assert!(
            !canary
                .sightings(&[b"<", &*needle, b">"].concat())
                .is_empty(),
            "{form}"
        );
    }
    assert_eq!(canary.sightings(b"canary-0123 nothing here 789-abcdef"), []);
    let twice = canary.sightings(b"canary-0123456789-abcdefghijcanary-0123456789-abcdefghij");
    assert!(twice.iter().map(|seen| seen.at).eq([0, 28]), "{twice:?}");
}

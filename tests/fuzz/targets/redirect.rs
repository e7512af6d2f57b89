//! A redirect. What is allowed begins, letter for letter, with what the operator allows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tillgate::fuzz::start::redirect;

const ALLOWED: &[&str] = &[
    "https://shop.example/back",
    "http://[::1]:8080",
    "https://b\u{fc}cher.example:444",
];
/// As a browser would print them.
const BEGINNINGS: &[&str] = &[
    "https://shop.example/back",
    "http://[::1]:8080",
    "https://xn--bcher-kva.example:444",
];

fuzz_target!(|text: &str| {
    let Ok(url) = redirect(text, ALLOWED) else {
        return;
    };
    assert!(
        url.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\'),
        "{text:?} became {url}"
    );
    let rest = BEGINNINGS
        .iter()
        .find_map(|beginning| url.strip_prefix(beginning));
    let rest = rest.unwrap_or_else(|| panic!("{text:?} became {url}"));
    assert!(
        rest.is_empty() || rest.starts_with(['/', '?', '#']),
        "{text:?} became {url}"
    );
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let dots = |segment: &str| {
        ["..", ".", "%2e", "%2e%2e", ".%2e", "%2e."].contains(&&*segment.to_ascii_lowercase())
    };
    assert!(!path.split('/').any(dots), "{text:?} became {url}");
    assert_eq!(
        redirect(&url, ALLOWED).as_ref(),
        Ok(&url),
        "read once more it is another one"
    );
});

//! A configuration file. Whatever stands in it, it is explained or every fault has its four parts, and the secret is in
//! neither.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tillgate::fuzz::config;

const SECRET: &str = "canary-of-the-merchant";

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    std::env::temp_dir().join(format!("tillgate-fuzz-{}.toml", std::process::id()))
});

fuzz_target!(|text: &[u8]| {
    // Files that it names are read: no devices. And the fuzzer learns the secret from our own comparisons.
    let has = |needle: &[u8]| text.windows(needle.len()).any(|window| window == needle);
    if has(b"/dev/") || has(b"/proc") || has(SECRET.as_bytes()) {
        return;
    }
    let mut file = text.to_vec();
    file.extend_from_slice(format!("\n[merchant]\nsecret = \"{SECRET}\"\n").as_bytes());
    std::fs::write(&*FILE, file).expect("a place for it");
    match config::file(&FILE) {
        Ok(explained) => assert!(
            !explained.contains(SECRET) && explained.contains("[redacted]"),
            "{explained}"
        ),
        Err(faults) => {
            assert!(!faults.is_empty());
            for fault in faults {
                assert!(fault.iter().all(|part| !part.is_empty()), "{fault:?}");
                assert!(!fault.iter().any(|part| part.contains(SECRET)), "{fault:?}");
            }
        }
    }
});

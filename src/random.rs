//! The only source of randomness: that of the operating system.

use std::time::Duration;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Returns `len` characters of `[0-9A-Za-z]` with almost six bits of randomness each, for ids and codes.
pub(crate) fn token(len: usize) -> String {
    let mut bytes = vec![0; len];
    fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(BASE62[usize::from(*byte) % BASE62.len()]))
        .collect()
}

/// Returns random bytes, for a key.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// Returns a number from 0 (inclusive) to 1 (exclusive).
pub(crate) fn fraction() -> f64 {
    let mut bytes = [0; 4];
    fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// Returns a duration between zero and `ceiling` ("full jitter"), so that callers that failed together do not retry together.
pub(crate) fn jitter(ceiling: Duration) -> Duration {
    ceiling.mul_f64(fraction())
}

fn fill(bytes: &mut [u8]) {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one source of randomness"
    )]
    #[expect(
        clippy::expect_used,
        reason = "a kernel that has no randomness left to give cannot run TLS either"
    )]
    getrandom::fill(bytes).expect("the operating system gives randomness");
}

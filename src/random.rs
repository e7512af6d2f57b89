//! The one source of randomness: the operating system's.

use std::time::Duration;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `len` characters of `[0-9A-Za-z]`, about six bits each: for ids and codes.
pub(crate) fn token(len: usize) -> String {
    let mut bytes = vec![0; len];
    fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(BASE62[usize::from(*byte) % BASE62.len()]))
        .collect()
}

/// Bytes for a key.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A number from 0 up to, but not, 1.
pub(crate) fn fraction() -> f64 {
    let mut bytes = [0; 4];
    fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// A wait anywhere between nothing and `ceiling`: "full jitter", so that many who failed together do not return together.
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

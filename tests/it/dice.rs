//! Random choices that a seed repeats.

use std::io::Write;
use std::time::Duration;

/// Small, and the same for the same seed (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed that is asked for, or a new one; told in any case.
    pub fn seed(what: &str) -> u64 {
        let asked = std::env::var("TILLGATE_TEST_SEED")
            .ok()
            .map(|seed| seed.parse().expect("a number"));
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let seed = asked.unwrap_or(u64::from(now.subsec_nanos()));
        // Not by `println`, which is only shown when a test fails.
        let _ = writeln!(std::io::stderr(), "{what}: TILLGATE_TEST_SEED={seed}");
        seed
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    pub fn milliseconds(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// An index into something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    /// Takes one out, if there is any.
    pub fn take<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        (!from.is_empty()).then(|| from.swap_remove(self.index(from.len())))
    }
}

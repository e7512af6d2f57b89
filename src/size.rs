//! Sizes as people write them.

use std::fmt::{self, Display};
use std::str::FromStr;

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];

/// A number of bytes, written like `"128MiB"`. The unit is required, so that nobody has to guess it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(u64);

impl ByteSize {
    /// This many times 2^10 bytes.
    pub(crate) const fn kibibytes(count: u64) -> Self {
        Self(count << 10)
    }

    /// This many times 2^20 bytes.
    pub(crate) const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// This many bytes.
    pub(crate) const fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let unit = UNITS
            .iter()
            .find(|(name, _)| unit.eq_ignore_ascii_case(name));
        let size = unit.and_then(|(_, unit)| number.parse::<u64>().ok()?.checked_mul(*unit));
        size.map(Self).ok_or_else(|| {
            format!("{text:?} is not a size: write it like \"64KiB\", \"128MiB\" or \"1GiB\"")
        })
    }
}

impl Display for ByteSize {
    /// Writes the same number of bytes, in the largest unit of which it is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, u64)| self.0 >= *unit && self.0.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = |text: &str| text.parse().map(ByteSize::bytes);
        assert_eq!(read("128MiB"), Ok(128 << 20));
        assert_eq!(read("1 gib"), Ok(1 << 30));
        assert_eq!(read("5MB"), Ok(5_000_000));
        assert_eq!(read("70000B"), Ok(70_000));
        for bad in [
            "",
            "128",
            "MiB",
            "1.5GiB",
            "-1MiB",
            "1TiB",
            "1MiB ",
            "99999999999GiB",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(bytes: u64) {
            let size = ByteSize(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}

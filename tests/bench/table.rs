//! How figures are shown.

/// The head of a table of figures, each with what is aimed at.
pub(crate) fn head(title: &str) {
    println!("\n{title:<64}{:>14}{:>14}", "measured", "aim");
}

pub(crate) fn row(what: &str, measured: &str, aim: &str) {
    println!("{what:<64}{measured:>14}{aim:>14}");
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact enough for one decimal place"
)]
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// What each of so many takes of the memory that came on top.
pub(crate) fn each(before: u64, after: u64, count: usize) -> u64 {
    after.saturating_sub(before) / u64::try_from(count).unwrap_or(u64::MAX).max(1)
}

//! Numbers and texts as people read them.

use maud::{Markup, html};

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;

/// `1,204`
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `12 s`, `3 min`, `2 h 14 min`, `3 d 4 h`: the two largest units, and no false precision.
pub(super) fn age(seconds: f64) -> String {
    let (large, unit, small, unit_below) = match seconds {
        ..MINUTE => return format!("{} s", seconds.floor()),
        ..HOUR => return format!("{} min", (seconds / MINUTE).floor()),
        ..DAY => (HOUR, "h", MINUTE, "min"),
        _ => (DAY, "d", HOUR, "h"),
    };
    let rest = (seconds % large / small).floor();
    let whole = format!("{} {unit}", (seconds / large).floor());
    if rest > 0.0 {
        format!("{whole} {rest} {unit_below}")
    } else {
        whole
    }
}

/// `just now`, `12 s ago`
pub(super) fn ago(seconds: f64) -> String {
    if seconds < 1.0 {
        "just now".to_owned()
    } else {
        format!("{} ago", age(seconds))
    }
}

/// `0.6 ms`, `48 ms`, `1.25 s`
pub(super) fn latency(seconds: f64) -> String {
    let milliseconds = seconds * 1000.0;
    match milliseconds {
        ..9.95 => format!("{milliseconds:.1} ms"),
        ..999.5 => format!("{milliseconds:.0} ms"),
        _ => format!("{seconds:.2} s"),
    }
}

/// `96%`; never a hundred of what is not all.
pub(super) fn percent(share: f64) -> String {
    format!("{}%", (share * 100.0).floor())
}

/// `not_sent` of a label is `not sent` of a sentence.
pub(super) fn plain(label: &str) -> String {
    label.replace('_', " ")
}

/// These in one line, which is broken between them alone.
pub(super) fn sentence(parts: impl IntoIterator<Item = String>) -> Markup {
    html! {
        @for (place, part) in parts.into_iter().enumerate() {
            @if place > 0 { " · " }
            span { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_easily() {
        assert_eq!(
            [0, 999, 1204, 1_000_000].map(count),
            ["0", "999", "1,204", "1,000,000"]
        );
        assert_eq!(
            [0.4, 59.9, 60.0, 3599.0, 3600.0, 8040.0, 86_400.0, 273_600.0].map(age),
            [
                "0 s",
                "59 s",
                "1 min",
                "59 min",
                "1 h",
                "2 h 14 min",
                "1 d",
                "3 d 4 h"
            ]
        );
        assert_eq!(
            [0.0006, 0.048, 0.9999, 12.5].map(latency),
            ["0.6 ms", "48 ms", "1.00 s", "12.50 s"]
        );
        assert_eq!(
            [0.0, 0.965, 0.9999, 1.0].map(percent),
            ["0%", "96%", "99%", "100%"]
        );
    }
}

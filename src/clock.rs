//! The one clock: a steady one for intervals, a wall clock for timestamps, and durations as people write them.
//!
//! The steady clock is tokio's, so that tests with paused time move everything at once.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use serde::{Deserialize, Deserializer, Serializer, de};
pub(crate) use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

const A_YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// The steady clock: never goes back, knows no date.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock: for timestamps that people and other programs read, never for intervals.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// What both clocks show at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) now: Instant,
    pub(crate) wall: Timestamp,
}

impl Reading {
    /// Reads both clocks.
    pub(crate) fn take() -> Self {
        Self {
            now: now(),
            wall: wall(),
        }
    }

    /// What the wall clock shows at that moment, to the millisecond, if nobody sets it in between.
    pub(crate) fn wall_at(&self, moment: Instant) -> Timestamp {
        let at = self
            .wall
            .as_millisecond()
            .saturating_add(milliseconds_between(self.now, moment));
        Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// From the first moment to the second; negative if the second is the earlier one.
pub(crate) fn milliseconds_between(from: Instant, to: Instant) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    ms(to - from) - ms(from - to)
}

/// What the wall clock showed at that moment, to the millisecond: as it tells the time now, should it have been set
/// meanwhile.
pub(crate) fn wall_at(moment: Instant) -> Timestamp {
    Reading::take().wall_at(moment)
}

/// Seconds since the epoch, for metrics.
pub(crate) fn unix_seconds() -> i64 {
    wall().as_second()
}

/// Reads `"250ms"`, `"2s"`, `"10m"`, `"24h"`. A number without a unit is refused: nobody should have to guess it.
///
/// # Errors
/// A sentence that says how to write one.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = SpanParser::new()
        .parse_unsigned_duration(text)
        .map_err(|_| {
            format!(
                "{text:?} is not a duration: write it like \"250ms\", \"2s\", \"10m\" or \"24h\""
            )
        })?;
    // Any longer, and adding it to a moment may leave the range of the clock.
    if duration > A_YEAR {
        Err(format!("{text:?} is longer than a year"))
    } else {
        Ok(duration)
    }
}

/// The shortest text that [`parse_duration`] reads back to the same duration.
pub(crate) fn format_duration(duration: Duration) -> String {
    SpanPrinter::new()
        .unsigned_duration_to_string(&duration)
        .replace(' ', "")
}

/// What a `Retry-After` asks for (RFC 9110, section 10.2.3: seconds or a date); `None` when it cannot be read.
pub(crate) fn parse_retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time too.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    Some(Duration::try_from(parse_http_date(text)?.duration_since(wall())).unwrap_or_default())
}

/// A date as HTTP writes it, in each of its three forms (RFC 9110, section 5.6.7); `None` when it cannot be read.
pub(crate) fn parse_http_date(text: &str) -> Option<Timestamp> {
    httpdate::parse_http_date(text.trim()).ok()?.try_into().ok()
}

/// Whole seconds, rounded up and at least one: what our own `Retry-After` says.
pub(crate) fn retry_after_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// For `#[serde(with = "clock::text")]`: a duration as text.
pub(crate) mod text {
    use super::{Deserialize, Deserializer, Duration, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        match super::parse_duration(&text) {
            Ok(Duration::ZERO) => Err(de::Error::custom(
                "a duration of nothing: give at least \"1ms\"",
            )),
            other => other.map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_a_round_trip() {
        for text in ["250ms", "2s", "10m", "24h", "1h30m"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["", "10", "-1s", "soon", "10 parsecs"] {
            assert!(parse_duration(text).unwrap_err().contains("\"2s\""));
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        for date in [
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "Wednesday, 21-Oct-15 07:28:00 GMT",
            "Wed Oct 21 07:28:00 2015",
        ] {
            assert_eq!(parse_retry_after(date), Some(Duration::ZERO), "{date}");
        }
        assert_eq!(parse_retry_after("soon"), None);
        assert_eq!(retry_after_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(retry_after_seconds(Duration::ZERO), 1);
    }
}

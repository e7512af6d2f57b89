//! The only access to clocks: a steady one for intervals, a wall clock for timestamps. Also durations as people write them.
//!
//! The steady clock is that of tokio, so that tests with paused time control everything at once.

use std::time::Duration;

use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use jiff::{SignedDuration, SpanRelativeTo, Timestamp};
use serde::{Deserialize, Deserializer, Serializer, de};
pub(crate) use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

const A_YEAR: Duration = Duration::from_secs(366 * 24 * 3600);

/// Returns the time of the steady clock, which never goes back and has no date.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the time of the wall clock, for timestamps that people and other programs read. Not for intervals.
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// The times of both clocks at one moment.
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

    /// Returns the time of the wall clock at this moment, in milliseconds, provided that nobody sets the clock in between.
    pub(crate) fn wall_at(&self, moment: Instant) -> Timestamp {
        let at = self.precise_wall_at(moment);
        Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The same in full.
    pub(crate) fn precise_wall_at(&self, moment: Instant) -> Timestamp {
        let between = |from: Instant, to: Instant| {
            SignedDuration::try_from(to - from).unwrap_or(SignedDuration::MAX)
        };
        // One of them is zero.
        let since = between(self.now, moment) - between(moment, self.now);
        self.wall
            .saturating_add(since)
            .unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Returns the milliseconds from one moment to the other; negative if `to` is earlier.
pub(crate) fn milliseconds_between(from: Instant, to: Instant) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    ms(to - from) - ms(from - to)
}

/// Returns the time of the wall clock at this moment, in milliseconds, by the present setting of the clock.
pub(crate) fn wall_at(moment: Instant) -> Timestamp {
    Reading::take().wall_at(moment)
}

/// Returns the seconds since the epoch, for metrics.
pub(crate) fn unix_seconds() -> i64 {
    wall().as_second()
}

/// Parses `"250ms"`, `"2s"`, `"10m"`, `"24h"`. The unit is required, so that nobody has to guess it.
///
/// # Errors
/// Says how to write a duration.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = SpanParser::new()
        .parse_span(text)
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .and_then(Duration::try_from)
        .map_err(|_| {
            format!(
                "{text:?} is not a duration: write it like \"250ms\", \"2s\", \"10m\", \"24h\" or \"30d\""
            )
        })?;
    // Adding a longer one to a moment could leave the range of the clock.
    if duration > A_YEAR {
        Err(format!("{text:?} is longer than a year"))
    } else {
        Ok(duration)
    }
}

/// Formats a duration as text that [`parse_duration`] parses to the same duration.
pub(crate) fn format_duration(duration: Duration) -> String {
    SpanPrinter::new()
        .unsigned_duration_to_string(&duration)
        .replace(' ', "")
}

/// Parses the value of a `Retry-After` field, seconds or a date (RFC 9110, section 10.2.3); `None` if it is malformed.
pub(crate) fn parse_retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit is a very long time.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    Some(Duration::try_from(parse_http_date(text)?.duration_since(wall())).unwrap_or_default())
}

/// Parses a date of HTTP in any of its three forms (RFC 9110, section 5.6.7); `None` if it is malformed.
pub(crate) fn parse_http_date(text: &str) -> Option<Timestamp> {
    httpdate::parse_http_date(text.trim()).ok()?.try_into().ok()
}

/// Returns the value for a `Retry-After` field of ours: whole seconds, rounded up, at least one.
pub(crate) fn retry_after_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// For `#[serde(with = "clock::text_or_zero")]`: a duration as text, where zero means never or at once.
pub(crate) mod text_or_zero {
    pub(crate) use super::text::serialize;
    use super::{Deserialize, Deserializer, Duration, de};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        super::parse_duration(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// For `#[serde(with = "clock::text")]`: a duration as text. Zero is refused.
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
            Ok(Duration::ZERO) => Err(de::Error::custom(format!(
                "{text:?} makes no sense here: give at least \"1ms\""
            ))),
            other => other.map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_a_round_trip() {
        for text in ["0s", "250ms", "2s", "10m", "24h", "1h30m"] {
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

//! Which of two forms of an answer a caller wants (RFC 9110, section 12.5.1).

use hyper::header::{ACCEPT, HeaderMap};

/// Returns whether this kind of answer is wanted, and rather than JSON: a caller who names both as good, or none, gets
/// JSON.
pub(super) fn prefers(headers: &HeaderMap, kind: &str) -> bool {
    let values = headers.get_all(ACCEPT).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let ranges: Vec<_> = values
        .flat_map(|value| value.split(','))
        .map(media_range)
        .collect();
    let quality = |kind: &str| {
        let mut ranges = ranges.iter();
        ranges
            .find(|(name, _)| name.eq_ignore_ascii_case(kind))
            .map(|(_, quality)| *quality)
    };
    let (wanted, json) = (quality(kind).unwrap_or(0.0), quality("application/json"));
    let any = quality("application/*").or(quality("*/*")).unwrap_or(0.0);
    wanted > 0.0 && json.map_or(wanted >= any, |json| wanted > json)
}

/// A media range and its quality (RFC 9110, section 12.5.1).
fn media_range(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
    (
        kind,
        quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)),
    )
}

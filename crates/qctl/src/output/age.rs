//! Ages of the API's times.

use jiff::Timestamp;

/// Returns the age of a time of the API, or `<unknown>` if it is absent or malformed.
#[must_use]
pub fn age_since(time: Option<&str>, now: Timestamp) -> String {
    quorate_api::duration::age(time.and_then(parse_time), now)
}

/// Parses a time of the API (RFC 3339).
#[must_use]
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_ages() {
        let now = parse_time("2026-01-01T00:05:30Z").expect("a time");
        assert_eq!(age_since(Some("2026-01-01T00:00:00Z"), now), "5m30s");
        assert_eq!(age_since(Some("2026-01-01T00:05:29.250000Z"), now), "0s");
        assert_eq!(age_since(None, now), "<unknown>");
    }
}

//! How long ago the API's times were.

use jiff::Timestamp;

/// How long ago a time of the API was; `<unknown>` when it is absent or unreadable.
#[must_use]
pub fn age_since(time: Option<&str>, now: Timestamp) -> String {
    quorate_api::duration::age(time.and_then(parse_time), now)
}

/// A time as the API writes it (RFC 3339).
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

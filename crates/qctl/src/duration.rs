//! Durations of flags: Go's `1h30m` and `500ms`, or plain seconds.

use std::time::Duration;

/// Parses a duration. A number without a unit is in seconds.
///
/// # Errors
/// A message with the expected form.
pub fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration \"{text}\": use a number with a unit, such as 30s, 5m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits =
            rest.find(|character: char| !character.is_ascii_digit() && character != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|character: char| !character.is_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        total += Duration::try_from_secs_f64(number * unit).map_err(|_| invalid())?;
        rest = &rest[letters..];
    }
    if text.is_empty() { Err(invalid()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, milliseconds) in [("5", 5_000), ("0", 0), ("500ms", 500), ("1h2m3s", 3_723_000), ("1.5s", 1_500)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "5x", "1h2", "-1s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}

//! Times in the text forms of `metav1.Time` and `metav1.MicroTime`.

use jiff::Timestamp;
use jiff::civil::DateTime;

/// Parses an RFC 3339 time: `2006-01-02T15:04:05Z`, with any fraction and any offset.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let number = |from: usize, length: usize| -> Option<i64> {
        let digits = bytes.get(from..from + length)?;
        digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
    };
    for (index, mark) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if bytes.get(index) != Some(&mark) {
            return None;
        }
    }
    let small = |value: i64| i8::try_from(value).ok();
    let (mut nanos, mut at) = (0, 19);
    if matches!(bytes.get(at), Some(b'.' | b',')) {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let kept = digits.min(9);
        nanos = number(at + 1, kept)? * 10_i64.pow(9 - u32::try_from(kept).ok()?);
        at += 1 + digits;
        if digits == 0 {
            return None;
        }
    }
    let offset = match bytes.get(at..)? {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if hours > 24 || minutes > 60 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let local = DateTime::new(
        i16::try_from(number(0, 4)?).ok()?,
        small(number(5, 2)?)?,
        small(number(8, 2)?)?,
        small(number(11, 2)?)?,
        small(number(14, 2)?)?,
        small(number(17, 2)?)?,
        i32::try_from(nanos).ok()?,
    )
    .ok()?;
    let timestamp = local.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    timestamp.checked_sub(jiff::SignedDuration::from_secs(offset)).ok()
}

pub(super) fn problem(text: &str) -> String {
    format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse it")
}

/// Formats a time as `metav1.Time` does.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Formats a time as `metav1.MicroTime` does.
pub(crate) fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

//! The type of a scalar, by the rules of YAML 1.1 as Kubernetes' YAML library applies them.

use serde_json::{Number, Value};

/// The resolved type of a scalar. Floats and integers differ because Kubernetes writes an integral float as an integer.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Null,
    Bool(bool),
    Int(Number),
    Float(f64),
    Text(String),
}

/// Resolves a plain scalar without a tag.
pub fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => float(text).map(Scalar::Float),
        b'+' | b'-' | b'0'..=b'9' => {
            let plain = text.replace('_', "");
            integer(&plain).or_else(|| float(&plain).map(Scalar::Float))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

/// Resolves a scalar with one of YAML's own tags (`int`, `str`, …), quoted or not. `None` when the text does not fit
/// the tag.
pub fn resolve_as(tag: &str, text: &str) -> Option<Scalar> {
    let resolved = resolve(text);
    match (tag, resolved) {
        ("null", Scalar::Null) => Some(Scalar::Null),
        ("bool", Scalar::Bool(value)) => Some(Scalar::Bool(value)),
        ("int", Scalar::Int(value)) => Some(Scalar::Int(value)),
        ("float", Scalar::Float(value)) => Some(Scalar::Float(value)),
        ("float", Scalar::Int(value)) => value.as_f64().map(Scalar::Float),
        ("null" | "bool" | "int" | "float", _) => None,
        _ => Some(Scalar::Text(text.to_owned())),
    }
}

impl Scalar {
    /// Returns the JSON form; `None` for a float that is not finite.
    pub fn into_json(self) -> Option<Value> {
        Some(match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => Value::Bool(value),
            Scalar::Int(value) => Value::Number(value),
            Scalar::Float(value) => match integral(value) {
                Some(integer) => Value::from(integer),
                None => Value::Number(Number::from_f64(value)?),
            },
            Scalar::Text(text) => Value::String(text),
        })
    }

    /// Returns the field name for a scalar key; `None` for null, which cannot be a key.
    pub fn into_key(self) -> Option<String> {
        match self {
            Scalar::Null => None,
            Scalar::Bool(value) => Some(value.to_string()),
            Scalar::Int(value) => Some(value.to_string()),
            Scalar::Float(value) => Some(value.to_string()),
            Scalar::Text(text) => Some(text),
        }
    }
}

/// Parses an integer with an optional sign and a radix prefix; a leading zero makes it octal.
fn integer(text: &str) -> Option<Scalar> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would accept a second sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -magnitude } else { magnitude };
    let number = i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from));
    // A number too large for a JSON integer becomes a float, which keeps its size but not all of its digits.
    #[expect(clippy::cast_precision_loss, reason = "the number has no exact form here")]
    Some(number.map_or(Scalar::Float(value as f64), Scalar::Int))
}

/// Parses `[-+]?(.digits | digits[.digits])([eE][-+]?digits)?`.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fits = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent));
    let value = if fits { text.parse().ok()? } else { return None };
    f64::is_finite(value).then_some(value)
}

/// Returns a float as an integer, if the float represents one exactly.
fn integral(value: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "it is a whole number within the exact range")]
    (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_are_resolved_by_yaml_1_1() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("NULL", json!(null)),
            ("nUll", json!("nUll")),
            ("yes", json!(true)),
            ("On", json!(true)),
            ("y", json!(true)),
            ("n", json!(false)),
            ("OFF", json!(false)),
            ("oN", json!("oN")),
            ("0400", json!(256)),
            ("0o400", json!(256)),
            ("0644", json!(420)),
            ("-010", json!(-8)),
            ("08", json!(8)),
            ("0x1F90", json!(8080)),
            ("0b101", json!(5)),
            ("1_000", json!(1000)),
            ("+12", json!(12)),
            ("--1", json!("--1")),
            ("-", json!("-")),
            ("0x", json!("0x")),
            ("1e3", json!(1000)),
            ("1.50", json!(1.5)),
            (".5", json!(0.5)),
            (".", json!(".")),
            ("1.", json!(1)),
            ("1.2.3", json!("1.2.3")),
            ("1e", json!("1e")),
            ("12:30:00", json!("12:30:00")),
            ("2026-01-01", json!("2026-01-01")),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("v1", json!("v1")),
            ("inf", json!("inf")),
            ("1Gi", json!("1Gi")),
        ] {
            assert_eq!(resolve(text).into_json(), Some(value), "{text}");
        }
        assert_eq!(resolve("-.inf").into_json(), None);
        assert_eq!(resolve(".nan").into_json(), None);
    }

    #[test]
    fn tags_override_the_plain_type() {
        assert_eq!(resolve_as("str", "0400"), Some(Scalar::Text("0400".to_owned())));
        assert_eq!(resolve_as("int", "0400").and_then(Scalar::into_json), Some(json!(256)));
        assert_eq!(resolve_as("float", "2"), Some(Scalar::Float(2.0)));
        assert_eq!(resolve_as("int", "two"), None);
        assert_eq!(resolve_as("timestamp", "2026-01-01"), Some(Scalar::Text("2026-01-01".to_owned())));
    }
}

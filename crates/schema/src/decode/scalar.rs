//! Values without fields: their types, ranges and canonical forms.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use quorate_api::Quantity;
use serde::de::{Error, Expected, Unexpected};
use serde_json::{Map, Number, Value};

use super::time;
use crate::model::{Kind, Model, Shape};

/// Base64 as Go's `encoding/base64` reads it: with padding, and with any bits behind the last byte.
pub(crate) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

struct Message(String);

impl Expected for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the message for a value of another type, in serde's words.
pub(super) fn invalid_type(found: Unexpected<'_>, model: &Model, kind: &Kind) -> String {
    serde::de::value::Error::invalid_type(found, &Message(expected(model, kind))).to_string()
}

pub(super) fn out_of_range(found: Unexpected<'_>, kind: &Kind) -> String {
    let expected = if matches!(kind, Kind::Int64) { "i64" } else { "i32" };
    serde::de::value::Error::invalid_value(found, &expected).to_string()
}

/// Returns what a kind accepts.
pub(super) fn expected(model: &Model, kind: &Kind) -> String {
    let name = |id| model.get(id).name.clone().into_owned();
    match kind {
        Kind::Any | Kind::Raw(_) => "any value".to_owned(),
        Kind::Bool => "a boolean".to_owned(),
        Kind::Int32 => "i32".to_owned(),
        Kind::Int64 => "i64".to_owned(),
        Kind::Double => "f64".to_owned(),
        Kind::String => "a string".to_owned(),
        Kind::Bytes => "a base64-encoded string".to_owned(),
        Kind::Time | Kind::MicroTime => "an RFC 3339 time".to_owned(),
        Kind::Quantity => "a quantity".to_owned(),
        Kind::IntOrString => "an integer or a string".to_owned(),
        Kind::Strings | Kind::List(_) => "a sequence".to_owned(),
        Kind::Map(_) => "a map".to_owned(),
        Kind::Object(id) | Kind::SchemaOr(id) => name(*id),
    }
}

/// Decodes an integer; `None` when the kind accepts none.
pub(super) fn integer(kind: &Kind, value: i64) -> Option<Result<Value, String>> {
    Some(match kind {
        Kind::Int64 => Ok(value.into()),
        Kind::Double => Ok(value.into()),
        Kind::Int32 | Kind::IntOrString if i32::try_from(value).is_ok() => Ok(value.into()),
        Kind::Int32 | Kind::IntOrString => Err(out_of_range(Unexpected::Signed(value), kind)),
        Kind::Quantity => quantity(&value.to_string()),
        _ => return None,
    })
}

/// Decodes a string; `None` when the kind accepts none.
pub(super) fn text(kind: &Kind, text: &str) -> Option<Result<Value, String>> {
    Some(match kind {
        Kind::String | Kind::IntOrString => Ok(text.into()),
        Kind::Bytes => bytes(text),
        Kind::Time => time::parse(text).map(|at| time::seconds(at).into()).ok_or_else(|| time::problem(text)),
        Kind::MicroTime => time::parse(text).map(|at| time::micros(at).into()).ok_or_else(|| time::problem(text)),
        Kind::Quantity => quantity(text),
        _ => return None,
    })
}

/// Returns the canonical form of a quantity, because Kubernetes parses quantities while it decodes an object.
pub(super) fn quantity(text: &str) -> Result<Value, String> {
    Quantity::parse(text).map(|quantity| quantity.to_string().into()).map_err(|error| error.to_string())
}

/// Returns a number's notation. A JSON parser does not distinguish `1e3` from `1000.0`, so an integral float is taken
/// for an exponent, the likelier notation.
pub(super) fn notation(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 => format!("{float:e}"),
        _ => number.to_string(),
    }
}

/// Decodes base64 and encodes it again. Go ignores line breaks in it.
fn bytes(text: &str) -> Result<Value, String> {
    let decoded =
        if text.contains(['\r', '\n']) { BASE64.decode(text.replace(['\r', '\n'], "")) } else { BASE64.decode(text) };
    decoded.map(|bytes| BASE64.encode(bytes).into()).map_err(|error| format!("illegal base64 data: {error}"))
}

/// Returns the value of a null in a list or a map, which Go decodes to zero.
pub(super) fn zero(shape: &Shape) -> Value {
    match &shape.kind {
        _ if shape.rules.as_ref().is_some_and(|rules| rules.is_nullable) => Value::Null,
        Kind::Bool => false.into(),
        Kind::Int32 | Kind::Int64 | Kind::Double | Kind::IntOrString => 0.into(),
        Kind::String | Kind::Bytes => "".into(),
        Kind::Quantity => "0".into(),
        Kind::Strings | Kind::List(_) => Value::Array(Vec::new()),
        Kind::Object(_) | Kind::Map(_) => Value::Object(Map::new()),
        Kind::Any | Kind::Raw(_) | Kind::SchemaOr(_) | Kind::Time | Kind::MicroTime => Value::Null,
    }
}

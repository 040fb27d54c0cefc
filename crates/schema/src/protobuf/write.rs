//! Encodes JSON as the bytes that Kubernetes' generated code writes: fields in the order of their numbers, maps in the
//! order of their keys, and every field that is not a pointer in Go, even if it is zero.

use base64::Engine;
use serde_json::Value;

use super::wire::Writer;
use super::{Fault, MAX_DEPTH, special};
use crate::decode::scalar::BASE64;
use crate::model::{Field, Kind, Model, TypeId, WireTarget};

/// Encodes an object as the message of a type.
pub(super) fn message(model: &Model, ty: TypeId, object: &Value) -> Result<Vec<u8>, Fault> {
    let mut out = Writer::default();
    fields(model, ty, &mut out, Some(object), MAX_DEPTH)?;
    Ok(out.into())
}

/// Encodes an object as a message field. An absent object is written as one without fields.
pub(super) fn nested(
    model: &Model,
    ty: TypeId,
    out: &mut Writer,
    number: u32,
    object: Option<&Value>,
    depth: u32,
) -> Result<(), Fault> {
    let begun = out.begin(number);
    fields(model, ty, out, object, depth)?;
    out.end(begun);
    Ok(())
}

fn fields(model: &Model, ty: TypeId, out: &mut Writer, object: Option<&Value>, depth: u32) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Depth)?;
    let message_type = model.get(ty);
    let map = match object {
        None => None,
        Some(value) => Some(value.as_object().ok_or(Fault::Value)?),
    };
    for entry in &message_type.wire {
        let written = match entry.target {
            WireTarget::Field(index) => {
                let field = &message_type.fields[usize::from(index)];
                let value = map.and_then(|map| map.get(field.name.as_ref())).filter(|value| !value.is_null());
                self::field(model, field, out, entry.number, value, depth)
            }
            WireTarget::Inline(inner) => {
                let begun = out.begin(entry.number);
                let written = fields(model, inner, out, object, depth);
                out.end(begun);
                written
            }
        };
        written.map_err(|fault| fault.within(message_type, entry.number))?;
    }
    Ok(())
}

fn field(
    model: &Model,
    field: &Field,
    out: &mut Writer,
    number: u32,
    given: Option<&Value>,
    depth: u32,
) -> Result<(), Fault> {
    match (&field.shape.kind, given) {
        (Kind::List(_) | Kind::Map(_) | Kind::Strings | Kind::Bytes, None) => Ok(()),
        (_, None) if field.is_pointer => Ok(()),
        (Kind::List(list), Some(Value::Array(items))) => {
            items.iter().try_for_each(|item| value(model, &list.item.kind, out, number, Some(item), depth))
        }
        (Kind::Map(shape), Some(Value::Object(entries))) => entries.iter().try_for_each(|(key, entry)| {
            let begun = out.begin(number);
            out.put_bytes(1, key.as_bytes());
            value(model, &shape.kind, out, 2, Some(entry), depth)?;
            out.end(begun);
            Ok(())
        }),
        (kind, given) => value(model, kind, out, number, given, depth),
    }
}

/// Encodes a value; zero where there is none.
fn value(
    model: &Model,
    kind: &Kind,
    out: &mut Writer,
    number: u32,
    given: Option<&Value>,
    depth: u32,
) -> Result<(), Fault> {
    // A null in a list or a map is zero, except where null is JSON that is kept.
    let given = given.filter(|given| !given.is_null() || matches!(kind, Kind::Raw(_)));
    match (kind, given) {
        (Kind::Bool, given) => {
            let flag = given.map_or(Some(false), Value::as_bool).ok_or(Fault::Value)?;
            out.put_varint(number, flag.into());
        }
        (Kind::Int32 | Kind::Int64, given) => {
            let integer = given.map_or(Some(0), Value::as_i64).ok_or(Fault::Value)?;
            out.put_varint(number, integer as u64);
        }
        (Kind::Double, given) => out.put_double(number, given.map_or(Some(0.0), Value::as_f64).ok_or(Fault::Value)?),
        (Kind::String, given) => {
            out.put_bytes(number, given.map_or(Some(""), Value::as_str).ok_or(Fault::Value)?.as_bytes());
        }
        (Kind::Bytes, given) => {
            let text = given.map_or(Some(""), Value::as_str).ok_or(Fault::Value)?;
            out.put_bytes(number, &BASE64.decode(text).map_err(|_| Fault::Value)?);
        }
        // A zero time is an empty message.
        (Kind::Time | Kind::MicroTime, None) => out.put_bytes(number, &[]),
        (Kind::Time, Some(given)) => special::put_time(out, number, given, false)?,
        (Kind::MicroTime, Some(given)) => special::put_time(out, number, given, true)?,
        (Kind::Quantity, given) => {
            let text = given.map_or(Some("0"), Value::as_str).ok_or(Fault::Value)?;
            out.put_bytes(number, Writer::default().bytes(1, text).as_ref());
        }
        (Kind::IntOrString, given) => special::put_int_or_string(out, number, given)?,
        (Kind::Strings, Some(given)) => special::put_strings(out, number, given)?,
        (Kind::Strings, None) => out.put_bytes(number, &[]),
        (Kind::Raw(_), given) => special::put_raw(out, number, given)?,
        (Kind::SchemaOr(id), Some(given)) => special::put_schema_or(model, *id, out, number, given, depth)?,
        (Kind::SchemaOr(_), None) => out.put_bytes(number, &[]),
        (Kind::Object(id), given) => nested(model, *id, out, number, given, depth)?,
        (Kind::Any | Kind::List(_) | Kind::Map(_), _) => return Err(Fault::NoForm),
    }
    Ok(())
}

//! Decodes the bytes of a message into the equivalent JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::wire::{Reader, Wire};
use super::{Fault, special};
use crate::model::{Field, Kind, Model, TypeId, WireTarget};

/// Decodes `bytes` and adds the message's fields to `object`. A repeated field that is not a list is merged, as everywhere
/// in Protocol Buffers.
///
/// A field that the type does not have is refused, so that nothing in the document is lost. Zero is accepted, because
/// newer clients write the fields that they do not use.
pub(super) fn message(
    model: &Model,
    ty: TypeId,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Depth)?;
    let message_type = model.get(ty);
    for entry in Reader::new(bytes) {
        let (number, wire) = entry.map_err(Fault::Wire)?;
        let known = message_type.wire.binary_search_by_key(&number, |entry| entry.number);
        let decoded = match known.map(|index| message_type.wire[index].target) {
            Ok(WireTarget::Field(index)) => field(model, &message_type.fields[usize::from(index)], wire, object, depth),
            Ok(WireTarget::Inline(inner)) => {
                bytes_of(wire).and_then(|bytes| message(model, inner, bytes, object, depth))
            }
            Err(_) if is_zero(wire, depth) => Ok(()),
            Err(_) => Err(Fault::Unknown { message: message_type.qualified_name() }),
        };
        decoded.map_err(|fault| fault.within(message_type, number))?;
    }
    Ok(())
}

fn field(
    model: &Model,
    field: &Field,
    wire: Wire<'_>,
    object: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), Fault> {
    let name = field.name.as_ref();
    match &field.shape.kind {
        Kind::Object(inner) => {
            if let Value::Object(inner_object) = slot(object, name, || Value::Object(Map::new())) {
                message(model, *inner, bytes_of(wire)?, inner_object, depth)?;
            }
        }
        Kind::List(list) => {
            if let Value::Array(items) = slot(object, name, || Value::Array(Vec::new())) {
                list_items(model, &list.item.kind, wire, items, depth)?;
            }
        }
        Kind::Map(shape) => {
            let (key, entry) = map_entry(bytes_of(wire)?)?;
            let value = value(model, &shape.kind, entry.unwrap_or_else(|| zero(&shape.kind)), depth)?;
            if let Value::Object(map) = slot(object, name, || Value::Object(Map::new())) {
                map.insert(key.to_owned(), value);
            }
        }
        kind => {
            // Go's JSON leaves a zero out where neither a pointer nor a missing `omitempty` keeps it.
            let keeps_zero = field.is_pointer || field.is_always_written;
            let value = value(model, kind, wire, depth)?;
            if value.is_null() || (!keeps_zero && is_zero_value(kind, &value)) {
                object.remove(name);
            } else {
                object.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn slot<'a>(object: &'a mut Map<String, Value>, name: &str, empty: impl FnOnce() -> Value) -> &'a mut Value {
    object.entry(name).or_insert_with(empty)
}

/// Decodes a value; null where Kubernetes' JSON has null.
pub(super) fn value(model: &Model, kind: &Kind, wire: Wire<'_>, depth: u32) -> Result<Value, Fault> {
    Ok(match kind {
        Kind::Bool => (varint(wire)? != 0).into(),
        Kind::Int32 => (varint(wire)? as i32).into(),
        Kind::Int64 => (varint(wire)? as i64).into(),
        Kind::Double => match wire {
            Wire::Fixed64(bits) => Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number),
            _ => return Err(Fault::WireType),
        },
        Kind::String => text(wire)?.into(),
        Kind::Bytes => STANDARD.encode(bytes_of(wire)?).into(),
        Kind::Strings => special::strings(bytes_of(wire)?)?,
        Kind::Time => special::time(bytes_of(wire)?, crate::decode::time::seconds)?,
        Kind::MicroTime => special::time(bytes_of(wire)?, crate::decode::time::micros)?,
        Kind::Quantity => special::quantity(bytes_of(wire)?)?,
        Kind::IntOrString => special::int_or_string(bytes_of(wire)?)?,
        Kind::Raw(_) => special::raw(model, bytes_of(wire)?, depth)?,
        Kind::SchemaOr(id) => special::schema_or(model, *id, bytes_of(wire)?, depth)?,
        Kind::Object(id) => {
            let mut object = Map::new();
            message(model, *id, bytes_of(wire)?, &mut object, depth)?;
            Value::Object(object)
        }
        Kind::Any | Kind::List(_) | Kind::Map(_) => return Err(Fault::NoForm),
    })
}

/// Decodes one item of a list, or several packed numbers.
fn list_items(model: &Model, kind: &Kind, wire: Wire<'_>, items: &mut Vec<Value>, depth: u32) -> Result<(), Fault> {
    match (kind, wire) {
        (Kind::Bool | Kind::Int32 | Kind::Int64, Wire::Bytes(packed)) => {
            let mut packed = Reader::new(packed);
            while let Some(number) = packed.packed() {
                items.push(value(model, kind, Wire::Varint(number.map_err(Fault::Wire)?), depth)?);
            }
        }
        _ => items.push(value(model, kind, wire, depth)?),
    }
    Ok(())
}

/// Returns whether Go's `omitempty` leaves a value out; it never leaves out messages.
fn is_zero_value(kind: &Kind, value: &Value) -> bool {
    match kind {
        Kind::Bool => value == &Value::Bool(false),
        Kind::Int32 | Kind::Int64 | Kind::Double => value.as_f64() == Some(0.0),
        Kind::String | Kind::Bytes => value.as_str() == Some(""),
        _ => false,
    }
}

/// Returns the value of a map's entry that has none.
fn zero(kind: &Kind) -> Wire<'static> {
    match kind {
        Kind::Bool | Kind::Int32 | Kind::Int64 => Wire::Varint(0),
        Kind::Double => Wire::Fixed64(0),
        _ => Wire::Bytes(&[]),
    }
}

pub(super) fn bytes_of(wire: Wire<'_>) -> Result<&[u8], Fault> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err(Fault::WireType),
    }
}

pub(super) fn text(wire: Wire<'_>) -> Result<&str, Fault> {
    str::from_utf8(bytes_of(wire)?).map_err(|_| Fault::Utf8)
}

pub(super) fn varint(wire: Wire<'_>) -> Result<u64, Fault> {
    match wire {
        Wire::Varint(number) => Ok(number),
        _ => Err(Fault::WireType),
    }
}

/// Returns the key and the value of a map's entry.
fn map_entry(bytes: &[u8]) -> Result<(&str, Option<Wire<'_>>), Fault> {
    let (mut key, mut value) = ("", None);
    for field in Reader::new(bytes) {
        match field.map_err(Fault::Wire)? {
            (1, wire) => key = text(wire)?,
            (2, wire) => value = Some(wire),
            _ => {}
        }
    }
    Ok((key, value))
}

/// Returns whether an unknown field is zero, or a message of zeros only.
fn is_zero(wire: Wire<'_>, depth: u32) -> bool {
    match wire {
        Wire::Varint(number) | Wire::Fixed64(number) => number == 0,
        Wire::Fixed32(number) => number == 0,
        Wire::Bytes(bytes) => {
            depth > 0 && Reader::new(bytes).all(|field| field.is_ok_and(|(_, wire)| is_zero(wire, depth - 1)))
        }
    }
}

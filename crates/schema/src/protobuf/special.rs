//! Messages whose JSON is not an object of their fields, in both directions.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::read::{bytes_of, text, varint};
use super::wire::{Reader, Writer};
use super::{Fault, PREFIX, ProtobufError, document_at, read, write};
use crate::decode::time;
use crate::model::{Form, Kind, Model, SchemaOr, TypeId};

/// The years 0 to 9999, which RFC 3339 covers, in seconds.
const RFC_3339: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_207_200;

const SCHEMA: &str = "apiextensions.v1.JSONSchemaProps";

/// Decodes a message that wraps a list of strings.
pub(super) fn strings(bytes: &[u8]) -> Result<Value, Fault> {
    let mut items = Vec::new();
    for field in Reader::new(bytes) {
        if let (1, wire) = field.map_err(Fault::Wire)? {
            items.push(Value::from(text(wire)?));
        }
    }
    Ok(Value::Array(items))
}

pub(super) fn put_strings(out: &mut Writer, number: u32, value: &Value) -> Result<(), Fault> {
    let begun = out.begin(number);
    for item in value.as_array().ok_or(Fault::Value)? {
        out.put_bytes(1, item.as_str().ok_or(Fault::Value)?.as_bytes());
    }
    out.end(begun);
    Ok(())
}

/// Decodes a timestamp. An empty message decodes to no timestamp.
pub(super) fn time(bytes: &[u8], format: fn(Timestamp) -> String) -> Result<Value, Fault> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in Reader::new(bytes) {
        match field.map_err(Fault::Wire)? {
            (1, wire) => seconds = varint(wire)? as i64,
            (2, wire) => nanoseconds = varint(wire)? as i32,
            _ => {}
        }
    }
    if !RFC_3339.contains(&seconds) || !(0..1_000_000_000).contains(&nanoseconds) {
        return Err(Fault::Time);
    }
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| Fault::Time)?;
    Ok(format(time).into())
}

/// Encodes a time; `keeps_micros` for `MicroTime`. Kubernetes writes both fields, even if they are zero.
pub(super) fn put_time(out: &mut Writer, number: u32, value: &Value, keeps_micros: bool) -> Result<(), Fault> {
    let time = value.as_str().and_then(time::parse).ok_or(Fault::Value)?;
    // Nanoseconds count from the second before, also before 1970.
    let nanos = time.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| Fault::Value)?;
    let fraction = u64::try_from(nanos.rem_euclid(1_000_000_000)).map_err(|_| Fault::Value)?;
    let fraction = if keeps_micros { fraction / 1000 * 1000 } else { 0 };
    out.put_bytes(number, Writer::default().varint(1, seconds as u64).varint(2, fraction).as_ref());
    Ok(())
}

pub(super) fn quantity(bytes: &[u8]) -> Result<Value, Fault> {
    let mut quantity = "0";
    for field in Reader::new(bytes) {
        if let (1, wire) = field.map_err(Fault::Wire)? {
            quantity = text(wire)?;
        }
    }
    Ok(quantity.into())
}

pub(super) fn int_or_string(bytes: &[u8]) -> Result<Value, Fault> {
    let (mut kind, mut number, mut string) = (0, 0, "");
    for field in Reader::new(bytes) {
        match field.map_err(Fault::Wire)? {
            (1, wire) => kind = varint(wire)?,
            (2, wire) => number = varint(wire)? as i32,
            (3, wire) => string = text(wire)?,
            _ => {}
        }
    }
    match kind {
        0 => Ok(number.into()),
        1 => Ok(string.into()),
        _ => Err(Fault::IntOrString),
    }
}

pub(super) fn put_int_or_string(out: &mut Writer, number: u32, value: Option<&Value>) -> Result<(), Fault> {
    let message = match value {
        None => Writer::default().varint(1, 0).varint(2, 0).bytes(3, ""),
        Some(Value::String(text)) => Writer::default().varint(1, 1).varint(2, 0).bytes(3, text),
        Some(other) => {
            let integer = other.as_i64().ok_or(Fault::Value)?;
            Writer::default().varint(1, 0).varint(2, integer as u64).bytes(3, "")
        }
    };
    out.put_bytes(number, message.as_ref());
    Ok(())
}

/// Decodes a message that wraps JSON, or a whole document.
pub(super) fn raw(model: &Model, bytes: &[u8], depth: u32) -> Result<Value, Fault> {
    let mut value = Value::Null;
    for field in Reader::new(bytes) {
        if let (1, wire) = field.map_err(Fault::Wire)? {
            let raw = bytes_of(wire)?;
            value = match raw {
                [] => Value::Null,
                _ if raw.starts_with(PREFIX) => {
                    let depth = depth.checked_sub(1).ok_or(Fault::Depth)?;
                    document_at(model, raw, depth).map_err(|error| match error {
                        ProtobufError::Message(fault) => fault,
                        _ => Fault::NoForm,
                    })?
                }
                _ => serde_json::from_slice(raw).map_err(Fault::Json)?,
            };
        }
    }
    Ok(value)
}

pub(super) fn put_raw(out: &mut Writer, number: u32, value: Option<&Value>) -> Result<(), Fault> {
    let begun = out.begin(number);
    if let Some(value) = value {
        out.put_bytes(1, &serde_json::to_vec(value).map_err(Fault::Json)?);
    }
    out.end(begun);
    Ok(())
}

/// Decodes a schema or its alternative, of which Kubernetes' JSON has the one that is set.
pub(super) fn schema_or(model: &Model, ty: TypeId, bytes: &[u8], depth: u32) -> Result<Value, Fault> {
    let schema_type = model.named(SCHEMA).ok_or(Fault::NoForm)?;
    let Form::SchemaOr(alternative) = model.get(ty).form else { return Err(Fault::NoForm) };
    // The bool is field 1 and the schema field 2; the lists come behind the schema.
    let (schema_number, other_number) = if alternative == SchemaOr::Bool { (2, 1) } else { (1, 2) };
    let (mut schema, mut allows, mut list) = (None, false, Vec::new());
    for field in Reader::new(bytes) {
        let (number, wire) = field.map_err(Fault::Wire)?;
        if number == schema_number {
            let object = schema.get_or_insert_with(Map::new);
            read::message(model, schema_type, bytes_of(wire)?, object, depth)?;
        } else if number == other_number {
            match alternative {
                SchemaOr::Bool => allows = varint(wire)? != 0,
                SchemaOr::Schemas => list.push(read::value(model, &Kind::Object(schema_type), wire, depth)?),
                SchemaOr::Strings => list.push(text(wire)?.into()),
            }
        } else {
            return Err(Fault::Unknown { message: model.get(ty).qualified_name() });
        }
    }
    Ok(match (alternative, schema) {
        (SchemaOr::Schemas | SchemaOr::Strings, _) if !list.is_empty() => Value::Array(list),
        (_, Some(schema)) => Value::Object(schema),
        (SchemaOr::Bool, None) => allows.into(),
        (SchemaOr::Schemas | SchemaOr::Strings, None) => Value::Null,
    })
}

pub(super) fn put_schema_or(
    model: &Model,
    ty: TypeId,
    out: &mut Writer,
    number: u32,
    value: &Value,
    depth: u32,
) -> Result<(), Fault> {
    let schema_type = model.named(SCHEMA).ok_or(Fault::NoForm)?;
    let Form::SchemaOr(alternative) = model.get(ty).form else { return Err(Fault::NoForm) };
    let begun = out.begin(number);
    match (alternative, value) {
        (SchemaOr::Bool, Value::Bool(allows)) => out.put_varint(1, (*allows).into()),
        (SchemaOr::Bool, Value::Object(_)) => {
            out.put_varint(1, 1);
            write::nested(model, schema_type, out, 2, Some(value), depth)?;
        }
        (SchemaOr::Schemas | SchemaOr::Strings, Value::Object(_)) => {
            write::nested(model, schema_type, out, 1, Some(value), depth)?;
        }
        (SchemaOr::Schemas, Value::Array(schemas)) => {
            for schema in schemas {
                write::nested(model, schema_type, out, 2, Some(schema), depth)?;
            }
        }
        (SchemaOr::Strings, Value::Array(texts)) => {
            for text in texts {
                out.put_bytes(2, text.as_str().ok_or(Fault::Value)?.as_bytes());
            }
        }
        _ => return Err(Fault::Value),
    }
    out.end(begun);
    Ok(())
}

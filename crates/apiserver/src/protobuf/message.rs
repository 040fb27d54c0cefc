//! Decodes the bytes of a message into the equivalent JSON, by the message's table.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{Reader, Wire, WireError};

/// Maximum nesting depth of unknown fields. No message of the tables contains itself, so known fields need no limit.
const MAX_DEPTH: u32 = 32;

/// A message: its qualified name, and its fields.
#[derive(Debug)]
pub(super) struct Message {
    pub name: &'static str,
    pub fields: &'static [Field],
}

/// A field: its number on the wire, its name in JSON, and its shape.
#[derive(Debug)]
pub(super) struct Field {
    pub number: u32,
    pub name: &'static str,
    /// Zero and empty are values of this field. Kubernetes writes every field that is not a pointer, even if it is
    /// zero, while its JSON leaves such a field out.
    pub keeps_zero: bool,
    pub shape: Shape,
}

/// The cardinality of a field's value.
#[derive(Debug)]
pub(super) enum Shape {
    One(Kind),
    List(Kind),
    /// A map from strings.
    Map(Kind),
    /// A message whose fields take this field's place.
    Inline(&'static Message),
}

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Bool,
    Int32,
    Int64,
    String,
    /// Base64 in JSON.
    Bytes,
    /// A message that wraps a list of strings; the list in JSON.
    Strings,
    /// `meta/v1 Time`, to the second.
    Time,
    /// `meta/v1 MicroTime`.
    MicroTime,
    /// `resource.Quantity`.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// A message that wraps JSON: `FieldsV1`, `RawExtension`.
    Raw,
    Message(&'static Message),
}

/// The reason why a message cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{message} field {number}: {fault}")]
    Field { message: &'static str, number: u32, fault: Box<Fault> },
    #[error("{message} has no such field")]
    Unknown { message: &'static str },
    #[error("{0}")]
    Wire(WireError),
    #[error("wrong wire type")]
    WireType,
    #[error("invalid UTF-8")]
    Utf8,
    #[error("the time is out of range")]
    Time,
    #[error("neither a number nor a string")]
    IntOrString,
    #[error("not JSON: {0}")]
    Json(serde_json::Error),
}

impl Message {
    /// Returns the name without its package.
    pub fn kind(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// Decodes `bytes` and adds its fields to `object`. A repeated field that is not a list is merged, as everywhere in
    /// Protocol Buffers.
    ///
    /// A field that the table does not have is refused, so that nothing in the body is lost. Zero is accepted, because
    /// newer clients write the fields that they do not use.
    ///
    /// # Errors
    /// For malformed bytes, unknown fields, and values outside of their type.
    pub fn decode(&self, bytes: &[u8], object: &mut Map<String, Value>) -> Result<(), Fault> {
        for field in Reader::new(bytes) {
            let (number, wire) = field.map_err(Fault::Wire)?;
            let decoded = match self.fields.binary_search_by_key(&number, |field| field.number) {
                Ok(index) => self.fields[index].decode(wire, object),
                Err(_) if is_zero(wire, MAX_DEPTH) => Ok(()),
                Err(_) => Err(Fault::Unknown { message: self.name }),
            };
            decoded.map_err(|fault| Fault::Field { message: self.name, number, fault: Box::new(fault) })?;
        }
        Ok(())
    }
}

impl Field {
    fn decode(&self, wire: Wire<'_>, object: &mut Map<String, Value>) -> Result<(), Fault> {
        match &self.shape {
            Shape::Inline(message) => message.decode(bytes(wire)?, object)?,
            Shape::One(Kind::Message(message)) => {
                let inner = object.entry(self.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(inner) = inner {
                    message.decode(bytes(wire)?, inner)?;
                }
            }
            Shape::One(kind) => {
                let value = kind.decode(wire)?;
                if value.is_null() || (!self.keeps_zero && kind.is_zero(&value)) {
                    object.remove(self.name);
                } else {
                    object.insert(self.name.to_owned(), value);
                }
            }
            Shape::List(kind) => {
                let list = object.entry(self.name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    kind.decode_items(wire, list)?;
                }
            }
            Shape::Map(kind) => {
                let (key, value) = entry(bytes(wire)?)?;
                let value = kind.decode(value.unwrap_or_else(|| kind.zero()))?;
                let map = object.entry(self.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key.to_owned(), value);
                }
            }
        }
        Ok(())
    }
}

impl Kind {
    /// Decodes the value; null where Kubernetes' JSON has null.
    fn decode(self, wire: Wire<'_>) -> Result<Value, Fault> {
        Ok(match self {
            Kind::Bool => (varint(wire)? != 0).into(),
            Kind::Int32 => (varint(wire)? as i32).into(),
            Kind::Int64 => (varint(wire)? as i64).into(),
            Kind::String => text(wire)?.into(),
            Kind::Bytes => STANDARD.encode(bytes(wire)?).into(),
            Kind::Strings => strings(bytes(wire)?)?,
            Kind::Time => time(bytes(wire)?, "%Y-%m-%dT%H:%M:%SZ")?,
            Kind::MicroTime => time(bytes(wire)?, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
            Kind::Quantity => quantity(bytes(wire)?)?,
            Kind::IntOrString => int_or_string(bytes(wire)?)?,
            Kind::Raw => raw(bytes(wire)?)?,
            Kind::Message(message) => {
                let mut object = Map::new();
                message.decode(bytes(wire)?, &mut object)?;
                Value::Object(object)
            }
        })
    }

    /// Decodes one item of a list, or several packed numbers.
    fn decode_items(self, wire: Wire<'_>, list: &mut Vec<Value>) -> Result<(), Fault> {
        match (self, wire) {
            (Kind::Bool | Kind::Int32 | Kind::Int64, Wire::Bytes(packed)) => {
                let mut packed = Reader::new(packed);
                while let Some(number) = packed.packed() {
                    list.push(self.decode(Wire::Varint(number.map_err(Fault::Wire)?))?);
                }
            }
            _ => list.push(self.decode(wire)?),
        }
        Ok(())
    }

    /// Returns whether Go's `omitempty` leaves `value` out; it never leaves out messages.
    fn is_zero(self, value: &Value) -> bool {
        match self {
            Kind::Bool => value == &Value::Bool(false),
            Kind::Int32 | Kind::Int64 => value.as_i64() == Some(0),
            Kind::String | Kind::Bytes => value.as_str() == Some(""),
            _ => false,
        }
    }

    fn zero(self) -> Wire<'static> {
        match self {
            Kind::Bool | Kind::Int32 | Kind::Int64 => Wire::Varint(0),
            _ => Wire::Bytes(&[]),
        }
    }
}

fn bytes(wire: Wire<'_>) -> Result<&[u8], Fault> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err(Fault::WireType),
    }
}

fn text(wire: Wire<'_>) -> Result<&str, Fault> {
    str::from_utf8(bytes(wire)?).map_err(|_| Fault::Utf8)
}

fn varint(wire: Wire<'_>) -> Result<u64, Fault> {
    match wire {
        Wire::Varint(number) => Ok(number),
        _ => Err(Fault::WireType),
    }
}

/// Returns the key and the value of a map's entry.
fn entry(bytes: &[u8]) -> Result<(&str, Option<Wire<'_>>), Fault> {
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

fn strings(bytes: &[u8]) -> Result<Value, Fault> {
    let mut items = Vec::new();
    for field in Reader::new(bytes) {
        if let (1, wire) = field.map_err(Fault::Wire)? {
            items.push(Value::from(text(wire)?));
        }
    }
    Ok(Value::Array(items))
}

/// Decodes a timestamp. An empty message decodes to no timestamp.
fn time(bytes: &[u8], format: &str) -> Result<Value, Fault> {
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
    // RFC 3339 covers the years 0 to 9999.
    let years = -62_167_219_200..=253_402_207_200;
    if !years.contains(&seconds) || !(0..1_000_000_000).contains(&nanoseconds) {
        return Err(Fault::Time);
    }
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| Fault::Time)?;
    Ok(time.strftime(format).to_string().into())
}

fn quantity(bytes: &[u8]) -> Result<Value, Fault> {
    let mut quantity = "0";
    for field in Reader::new(bytes) {
        if let (1, wire) = field.map_err(Fault::Wire)? {
            quantity = text(wire)?;
        }
    }
    Ok(quantity.into())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Fault> {
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

fn raw(bytes: &[u8]) -> Result<Value, Fault> {
    let mut value = Value::Null;
    for field in Reader::new(bytes) {
        if let (1, wire) = field.map_err(Fault::Wire)? {
            let json = self::bytes(wire)?;
            value = if json.is_empty() { Value::Null } else { serde_json::from_slice(json).map_err(Fault::Json)? };
        }
    }
    Ok(value)
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

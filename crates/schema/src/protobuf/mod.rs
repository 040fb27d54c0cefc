//! Kubernetes' Protocol Buffers in both directions, by the model.
//!
//! [`wire`] splits bytes into fields and writes them, [`read`] turns messages into JSON, [`write`] turns JSON into the
//! very bytes that Kubernetes' generated code writes. A document is the prefix `k8s\0` and a `runtime.Unknown`, which holds
//! the object's type and its message.

mod read;
mod special;
pub mod wire;
mod write;

use serde_json::{Map, Value};

use self::wire::{Reader, Wire, Writer};
use crate::model::{Model, TypeId};

/// The media type of such documents.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The prefix of every document.
pub const PREFIX: &[u8] = b"k8s\0";

/// Maximum nesting depth of messages.
const MAX_DEPTH: u32 = 100;

/// The reason why a document cannot be decoded or encoded.
#[derive(Debug, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {PREFIX:?}")]
    Prefix,
    #[error("the body has no {0}")]
    Untyped(&'static str),
    /// A kind without a message, such as those of CustomResourceDefinitions.
    #[error("no message for kind {kind:?} of version {api_version:?}")]
    Kind { api_version: String, kind: String },
    #[error("protobuf: {0}")]
    Message(Fault),
}

/// The fault of a message or of a value.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("{message} field {number}: {fault}")]
    Field { message: String, number: u32, fault: Box<Fault> },
    #[error("{message} has no such field")]
    Unknown { message: String },
    #[error("{0}")]
    Wire(wire::WireError),
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
    #[error("messages are nested too deeply")]
    Depth,
    /// A value that its type does not allow, which decoding would have refused.
    #[error("the value does not have the type of its field")]
    Value,
    #[error("the type has no protobuf form")]
    NoForm,
}

impl Fault {
    fn within(self, message: &crate::model::Type, number: u32) -> Fault {
        Fault::Field { message: message.qualified_name(), number, fault: Box::new(self) }
    }
}

/// Decodes a document of a built-in kind.
///
/// # Errors
/// For kinds without a message, and for malformed bytes.
pub fn decode(model: &Model, document: &[u8]) -> Result<Value, ProtobufError> {
    document_at(model, document, MAX_DEPTH)
}

fn document_at(model: &Model, document: &[u8], depth: u32) -> Result<Value, ProtobufError> {
    let malformed = ProtobufError::Message;
    let document = document.strip_prefix(PREFIX).ok_or(ProtobufError::Prefix)?;
    let (mut object, mut raw) = (Map::new(), &[][..]);
    for field in Reader::new(document) {
        match field.map_err(|error| malformed(Fault::Wire(error)))? {
            (1, Wire::Bytes(bytes)) => type_meta(bytes, &mut object).map_err(malformed)?,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            // The encoding and the content type of the raw object. The document's own media type already gives them.
            (3 | 4, Wire::Bytes(_)) => {}
            (number, _) => {
                let (message, fault) = ("runtime.Unknown".to_owned(), Box::new(Fault::WireType));
                return Err(malformed(Fault::Field { message, number, fault }));
            }
        }
    }
    let named = |field| object.get(field).and_then(Value::as_str).ok_or(ProtobufError::Untyped(field));
    let (api_version, kind) = (named("apiVersion")?, named("kind")?);
    let message = find(model, api_version, kind)?;
    read::message(model, message, raw, &mut object, depth).map_err(malformed)?;
    Ok(Value::Object(object))
}

/// Encodes an object of a built-in kind, which its `apiVersion` and `kind` name. The object has been decoded, so its
/// values have the right types.
///
/// # Errors
/// For kinds without a message, and for values of a wrong type.
pub fn encode(model: &Model, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    let named = |field| object.get(field).and_then(Value::as_str).ok_or(ProtobufError::Untyped(field));
    let (api_version, kind) = (named("apiVersion")?, named("kind")?);
    let message = find(model, api_version, kind)?;
    let raw = write::message(model, message, object).map_err(ProtobufError::Message)?;
    let type_meta = Writer::default().bytes(1, api_version).bytes(2, kind);
    let unknown = Writer::default().bytes(1, type_meta).bytes(2, raw).bytes(3, "").bytes(4, "");
    Ok([PREFIX, unknown.as_ref()].concat())
}

/// Decodes the message of a type, without the document around it.
///
/// # Errors
/// For malformed bytes, unknown fields, and values outside of their type.
pub fn decode_message(model: &Model, ty: TypeId, bytes: &[u8]) -> Result<Value, Fault> {
    let mut object = Map::new();
    read::message(model, ty, bytes, &mut object, MAX_DEPTH)?;
    Ok(Value::Object(object))
}

/// Encodes an object of a type as a message, without the document around it.
///
/// # Errors
/// For values of a wrong type, and for types without a protobuf form.
pub fn encode_message(model: &Model, ty: TypeId, object: &Value) -> Result<Vec<u8>, Fault> {
    write::message(model, ty, object)
}

fn find(model: &Model, api_version: &str, kind: &str) -> Result<TypeId, ProtobufError> {
    // `Table` and its like are kinds without a protobuf form.
    let found = model.kind(api_version, kind).filter(|id| !model.get(*id).wire.is_empty());
    found.ok_or_else(|| ProtobufError::Kind { api_version: api_version.to_owned(), kind: kind.to_owned() })
}

/// Decodes `runtime.TypeMeta`.
fn type_meta(bytes: &[u8], object: &mut Map<String, Value>) -> Result<(), Fault> {
    for field in Reader::new(bytes) {
        let (number, wire) = field.map_err(Fault::Wire)?;
        let name = match number {
            1 => "apiVersion",
            2 => "kind",
            _ => continue,
        };
        match read::text(wire)? {
            "" => object.remove(name),
            text => object.insert(name.to_owned(), text.into()),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests;

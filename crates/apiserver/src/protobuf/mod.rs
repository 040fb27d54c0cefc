//! Bodies in Kubernetes' Protocol Buffers, which typed Go clients (kubectl since 1.32 among them) send by default. A
//! body is decoded into the JSON that another client would have sent.
//!
//! `wire` splits bytes into fields, `tables` describes the fields of each message, and `message` turns both into JSON.
//! Responses are JSON, which all such clients accept.

mod message;
mod tables;
mod wire;

use serde_json::{Map, Value};

use message::{Fault, Field, Kind, Message, Shape};
pub(crate) use wire::Writer;

/// The media type of bodies that [`decode`] understands.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// The prefix of every such body.
const PREFIX: &[u8] = b"k8s\0";

/// The reason why a body cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {PREFIX:?}")]
    Prefix,
    #[error("the body has no {0}")]
    Untyped(&'static str),
    /// A kind without a message, such as those of CustomResourceDefinitions.
    #[error("no message for kind {kind:?} of version {api_version:?}")]
    Kind { api_version: String, kind: String },
    #[error("protobuf: {0}")]
    Message(String),
}

/// `runtime.TypeMeta`.
static TYPE_META: Message = Message {
    name: "runtime.TypeMeta",
    fields: &[
        Field { number: 1, name: "apiVersion", keeps_zero: false, shape: Shape::One(Kind::String) },
        Field { number: 2, name: "kind", keeps_zero: false, shape: Shape::One(Kind::String) },
    ],
};

/// Decodes a body: the prefix, and a `runtime.Unknown` that holds the object's type and the object.
///
/// # Errors
/// For kinds without a message, and for malformed bytes.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let malformed = |fault: Fault| ProtobufError::Message(fault.to_string());
    let body = body.strip_prefix(PREFIX).ok_or(ProtobufError::Prefix)?;
    let (mut object, mut raw) = (Map::new(), &[][..]);
    for field in wire::Reader::new(body) {
        match field.map_err(|error| malformed(Fault::Wire(error)))? {
            (1, wire::Wire::Bytes(bytes)) => TYPE_META.decode(bytes, &mut object).map_err(malformed)?,
            (2, wire::Wire::Bytes(bytes)) => raw = bytes,
            // The encoding and the content type of the raw object. The body's own content type already gives them.
            (3 | 4, wire::Wire::Bytes(_)) => {}
            (number, _) => {
                let fault = Box::new(Fault::WireType);
                return Err(malformed(Fault::Field { message: "runtime.Unknown", number, fault }));
            }
        }
    }
    let named = |field| object.get(field).and_then(Value::as_str).ok_or(ProtobufError::Untyped(field));
    let (api_version, kind) = (named("apiVersion")?, named("kind")?);
    let message = tables::find(api_version, kind)
        .ok_or_else(|| ProtobufError::Kind { api_version: api_version.to_owned(), kind: kind.to_owned() })?;
    message.decode(raw, &mut object).map_err(malformed)?;
    Ok(Value::Object(object))
}

#[cfg(test)]
mod tests;

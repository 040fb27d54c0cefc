//! Decodes JSON into the JSON of a type, in one pass over the bytes or over a value.
//!
//! The pass checks every value's type, drops nulls and the fields that the type does not have, and brings quantities, times
//! and bytes into their canonical form. It notes unknown and duplicate fields, as Kubernetes' strict decoder
//! (`sigs.k8s.io/json`) does.
//!
//! [`walk`] visits values, [`scalar`] checks those without fields, [`report`] collects what the pass finds.

mod report;
pub(crate) mod scalar;
pub(crate) mod time;
mod walk;

use serde::de::DeserializeSeed;
use serde_json::Value;

use self::report::Report;
pub use self::report::{DecodeError, StrictError};
use self::walk::Walk;
use crate::model::{Kind, Model, Shape, TypeId};

/// An object in the shape of its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    pub object: Value,
    /// Unknown and duplicate fields in the order of the document, at most 100.
    pub strict: Vec<StrictError>,
}

/// The reason why bytes are not an object of a type.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("{0}")]
    Syntax(serde_json::Error),
    #[error("{0}")]
    Type(DecodeError),
}

/// Decodes a JSON document. Of duplicate fields, the last one counts.
///
/// # Errors
/// When the bytes are not JSON, or a value has the wrong type; the error names the first such value.
pub fn json(model: &Model, ty: TypeId, bytes: &[u8]) -> Result<Decoded, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let mut report = Report::default();
    let shape = Shape { kind: root(model, ty), ..Shape::default() };
    let result = Walk::new(model, &shape, &mut report).deserialize(&mut deserializer);
    let result = result.and_then(|object| deserializer.end().map(|()| object));
    match (result, report.error) {
        (Ok(object), _) => Ok(Decoded { object, strict: report.strict }),
        (Err(_), Some(error)) => Err(JsonError::Type(error)),
        (Err(error), None) => Err(JsonError::Syntax(error)),
    }
}

/// Decodes a value that was parsed from another format, or patched.
///
/// # Errors
/// When a value has the wrong type; the error names the first one.
pub fn value(model: &Model, ty: TypeId, object: Value) -> Result<Decoded, DecodeError> {
    let mut report = Report::default();
    let shape = Shape { kind: root(model, ty), ..Shape::default() };
    match (Walk::new(model, &shape, &mut report).deserialize(object), report.error) {
        (Ok(object), _) => Ok(Decoded { object, strict: report.strict }),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(DecodeError { path: String::new(), message: error.to_string() }),
    }
}

fn root(model: &Model, ty: TypeId) -> Kind {
    use crate::model::Form;
    match model.get(ty).form {
        Form::Object | Form::Scalar => Kind::Object(ty),
        Form::Raw => Kind::Raw(ty),
        Form::SchemaOr(_) => Kind::SchemaOr(ty),
    }
}

#[cfg(test)]
mod tests;

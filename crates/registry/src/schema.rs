//! The type of a kind's objects: what the pipeline asks of the schema.

use std::collections::HashSet;

use quorate_api::{FieldError, GroupVersionKind};
use quorate_schema::decode::JsonError;
use quorate_schema::{DecodeError, Decoded, Model, TypeId, builtin, decode, defaults, validate};
use serde_json::Value;

/// The type of an object in a model.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    model: &'static Model,
    ty: TypeId,
}

impl Schema {
    /// Returns the type of a built-in kind; `None` for other kinds.
    #[must_use]
    pub fn of(kind: &GroupVersionKind) -> Option<Self> {
        Self::named(&kind.api_version(), &kind.kind)
    }

    /// Like [`Schema::of`], by the texts of a document.
    #[must_use]
    pub fn named(api_version: &str, kind: &str) -> Option<Self> {
        let model = builtin();
        model.kind(api_version, kind).map(|ty| Schema { model, ty })
    }

    #[must_use]
    pub fn model(&self) -> &'static Model {
        self.model
    }

    #[must_use]
    pub fn ty(&self) -> TypeId {
        self.ty
    }

    /// Returns whether objects of the type have a field at this path.
    #[must_use]
    pub fn has(&self, path: &[&str]) -> bool {
        self.model.field_at(self.ty, path).is_some()
    }

    /// Decodes a JSON document in one pass.
    ///
    /// # Errors
    /// When the bytes are not JSON, or a value has the wrong type.
    pub fn decode_json(&self, bytes: &[u8]) -> Result<Decoded, JsonError> {
        decode::json(self.model, self.ty, bytes)
    }

    /// Decodes a value that was parsed from another format, or patched.
    ///
    /// # Errors
    /// When a value has the wrong type; the error names the first one.
    pub fn decode(&self, object: Value) -> Result<Decoded, DecodeError> {
        decode::value(self.model, self.ty, object)
    }

    /// Sets the absent fields that have a declared default; idempotent.
    pub fn default(&self, object: &mut Value) {
        defaults::apply(self.model, self.ty, object);
    }

    /// Adds the errors of single fields, except for fields that already have one: the kind's own rule about a field says
    /// more than the declared one.
    pub fn check(&self, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        let found = validate::check(self.model, self.ty, object, old);
        let known: HashSet<String> = errors.iter().map(|error| error.path.as_str().to_owned()).collect();
        errors.extend(found.into_iter().filter(|error| !known.contains(error.path.as_str())));
    }
}

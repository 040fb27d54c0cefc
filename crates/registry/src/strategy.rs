//! What is special about a kind. The pipeline calls these in a fixed order and never asks which kind it has.
//!
//! create: `decode → default → prepare_create → fit → validate`;
//! update and patch: `decode → default → prepare_update → fit → validate → validate_update`;
//! status: `decode → default → prepare_status_update → validate_status_update`.
//!
//! `fit`, for the kinds that take from a pool, is in [`Pooled`].

use jiff::Timestamp;
use quorate_api::{FieldError, name};
use serde_json::Value;

use crate::pool::Pooled;

/// An object that has the shape of its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Without the fields that the type does not have.
    pub object: Value,
    /// Paths of fields that were dropped because the type does not have them, as `spec.template.spec.foo`.
    pub unknown_fields: Vec<String>,
}

/// The body does not have the shape of the type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DecodeError {
    pub path: String,
    pub message: String,
}

/// How a kind's object goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Removed in the request (unless finalizers hold it).
    Immediate,
    /// `deletionTimestamp` is set this many seconds ahead, and somebody else removes it later with grace period 0.
    Graceful { seconds: i64 },
}

/// The parts of an object that its `scale` subresource shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    pub spec_replicas: i32,
    pub status_replicas: i32,
    /// The label selector in string form.
    pub selector: String,
}

/// The behaviour of one kind.
pub trait Strategy: Send + Sync {
    /// Checks `object` against the type and drops what the type does not have.
    ///
    /// # Errors
    /// With the first field whose type is wrong.
    fn decode(&self, object: Value) -> Result<Decoded, DecodeError>;

    /// Fills in what the user left out; idempotent.
    fn default(&self, object: &mut Value);

    /// Clears what a user may not set on creation (status) and sets what the server sets (generation).
    fn prepare_create(&self, object: &mut Value);

    /// Carries over what this endpoint may not change (status) and raises the generation when the spec changed.
    fn prepare_update(&self, new: &mut Value, old: &Value);

    /// Carries over everything but the status and the metadata that may change with it.
    fn prepare_status_update(&self, new: &mut Value, old: &Value);

    /// Everything but the generic metadata, which the pipeline checks.
    fn validate(&self, object: &Value) -> Vec<FieldError>;

    /// What may not change.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError>;

    fn validate_status_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with an object's name; [`crate::metadata`] calls it.
    fn check_name(&self, name: &str) -> Vec<String> {
        name::dns1123_subdomain(name)
    }

    /// The fields that field selectors may name besides `metadata.name` and `metadata.namespace`, with their values.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The names that [`Strategy::selectable_fields`] can yield, to refuse unknown ones on an empty collection too.
    fn selectable_field_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// The cells under the descriptor's columns. `now` is for ages.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;

    /// How `object` goes away when the request asks for `requested` seconds of grace (`None`: the kind's default).
    fn deletion(&self, _object: &Value, _requested: Option<i64>) -> Deletion {
        Deletion::Immediate
    }

    /// Called when a deletion cannot finish at once and `deletionTimestamp` is being set: a namespace begins to terminate.
    fn prepare_delete(&self, _object: &mut Value) {}

    /// Whether something besides `metadata.finalizers` keeps a deleted object from being removed: a namespace's
    /// `spec.finalizers`.
    fn is_held(&self, _object: &Value) -> bool {
        false
    }

    /// `None` for a kind without a scale.
    fn scale(&self, _object: &Value) -> Option<Scale> {
        None
    }

    fn set_scale(&self, _object: &mut Value, _replicas: i32) {}

    /// How objects of this kind take from the cluster's pools; `None` for a kind that takes nothing.
    fn pooled(&self) -> Option<&dyn Pooled> {
        None
    }
}

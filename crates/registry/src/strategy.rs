//! The behaviour of a kind, on objects that the schema has decoded. The pipeline calls these methods in a fixed order and
//! never asks which kind it has. [`Descriptor`](crate::Descriptor) adds to defaults and validation what the schema knows.
//!
//! create: `default → prepare_create → fit → validate → validate_create`;
//! update and patch: `default → prepare_update → fit → validate → validate_update`;
//! an update through a subresource: `default`, then the steps of the [row](crate::subresource).
//!
//! `fit`, for the kinds that take from a pool, is in [`Pooled`].

use jiff::Timestamp;
use quorate_api::{FieldError, name};
use serde_json::Value;

use crate::pool::Pooled;

/// The way in which a kind's object is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The request removes the object, unless finalizers hold it.
    Immediate,
    /// `deletionTimestamp` is set this many seconds ahead. Another client later removes the object with grace period 0.
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
    /// Sets the fields that the user left out; idempotent.
    fn default(&self, object: &mut Value);

    /// Clears fields that a user may not set on creation (status), and sets the server's (generation).
    fn prepare_create(&self, object: &mut Value);

    /// Completes an object that is being created and has its final name.
    fn named(&self, _object: &mut Value) {}

    /// Carries over fields that this endpoint may not change (status), and raises the generation when the spec changed.
    fn prepare_update(&self, new: &mut Value, old: &Value);

    /// Carries over everything except the status and the metadata that may change with it.
    fn prepare_status_update(&self, new: &mut Value, old: &Value);

    /// Checks everything except the generic metadata, which the pipeline checks.
    fn validate(&self, object: &Value) -> Vec<FieldError>;

    /// Checks what holds only for an object that is about to be created.
    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Checks the fields that may not change.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError>;

    /// Checks an object that is about to be created: [`Strategy::validate`] and [`Strategy::validate_create`] in one.
    fn validate_new(&self, object: &Value) -> Vec<FieldError> {
        [self.validate(object), self.validate_create(object)].concat()
    }

    /// Checks the successor of an object: [`Strategy::validate`] and [`Strategy::validate_update`] in one.
    fn validate_successor(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        [self.validate(new), self.validate_update(new, old)].concat()
    }

    fn validate_status_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Returns the problems of an object's name; [`crate::metadata`] calls it.
    fn check_name(&self, name: &str) -> Vec<String> {
        name::dns1123_subdomain(name)
    }

    /// Returns the fields that field selectors may name besides `metadata.name` and `metadata.namespace`, with their
    /// values.
    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Returns the names that [`Strategy::selectable_fields`] can yield, so that unknown ones are refused even on an
    /// empty collection.
    fn selectable_field_names(&self) -> &[&'static str] {
        &[]
    }

    /// Returns the cells under the descriptor's columns. Ages are computed from `now`.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;

    /// Returns how `object` is deleted when the request asks for `requested` seconds of grace (`None`: the kind's
    /// default).
    fn deletion(&self, _object: &Value, _requested: Option<i64>) -> Deletion {
        Deletion::Immediate
    }

    /// Prepares an object whose deletion cannot finish at once, when `deletionTimestamp` is set. A namespace begins to
    /// terminate.
    fn prepare_delete(&self, _object: &mut Value) {}

    /// Returns whether a rule other than `metadata.finalizers` keeps a deleted object, such as a namespace's
    /// `spec.finalizers`.
    fn is_held(&self, _object: &Value) -> bool {
        false
    }

    /// Returns the scale of an object; `None` for a kind without one.
    fn scale(&self, _object: &Value) -> Option<Scale> {
        None
    }

    fn set_scale(&self, _object: &mut Value, _replicas: i32) {}

    /// Returns how objects of this kind take items from the cluster's pools; `None` for a kind that takes none.
    fn pooled(&self) -> Option<&dyn Pooled> {
        None
    }
}

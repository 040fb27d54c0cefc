//! The scheme of built-in kinds: [`Kind`] holds their differences, [`Builtin`] their common behaviour.

use std::marker::PhantomData;

use jiff::Timestamp;
use quorate_api::{FieldError, FieldPath, name};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::descriptor::Column;
use crate::pool::Pooled;
use crate::strategy::{Deletion, Scale, Strategy};
use crate::value::{carry_over, child, equal, int};

/// The differences between built-in kinds.
///
/// Defaulting and printing work on JSON in place. Validation works on the type, where the compiler knows every field.
pub trait Kind: Send + Sync + 'static {
    type Object: DeserializeOwned;

    /// The status is written through its own subresource.
    const HAS_STATUS: bool = false;
    /// Metadata fields that a status write does not change.
    const STATUS_KEEPS: &'static [&'static str] = &[];
    /// `metadata.generation` counts the changes of the desired state.
    const COUNTS_GENERATIONS: bool = false;

    fn columns() -> Vec<Column>;

    fn cells(object: &Value, now: Timestamp) -> Vec<Value>;

    /// Returns the problems of a name. For a `generateName`, the caller masks the prefix's trailing dash first.
    fn check_name(name: &str) -> Vec<String> {
        name::dns1123_subdomain(name)
    }

    fn default(_object: &mut Value) {}

    /// Runs after the generic part. It resets the status.
    fn prepare_create(_object: &mut Value) {}

    /// Runs after the generic part.
    fn prepare_update(_new: &mut Value, _old: &Value) {}

    /// Runs after the generic part, which carries over everything except the status and the metadata.
    fn prepare_status_update(_new: &mut Value, _old: &Value) {}

    fn starts_new_generation(new: &Value, old: &Value) -> bool {
        !equal(&new["spec"], &old["spec"])
    }

    fn validate(_object: &Self::Object) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_create(_object: &Self::Object) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_update(_new: &Self::Object, _old: &Self::Object) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_status_update(_new: &Self::Object, _old: &Self::Object) -> Vec<FieldError> {
        Vec::new()
    }

    fn selectable_field_names() -> &'static [&'static str] {
        &[]
    }

    fn selectable_fields(_object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn deletion(_object: &Value, _requested: Option<i64>) -> Deletion {
        Deletion::Immediate
    }

    fn prepare_delete(_object: &mut Value) {}

    fn is_held(_object: &Value) -> bool {
        false
    }

    fn scale(_object: &Value) -> Option<Scale> {
        None
    }

    fn set_scale(_object: &mut Value, _replicas: i32) {}

    fn pooled() -> Option<&'static dyn Pooled> {
        None
    }
}

/// The [`Strategy`] of a [`Kind`].
pub struct Builtin<K>(PhantomData<K>);

impl<K> Default for Builtin<K> {
    fn default() -> Self {
        Builtin(PhantomData)
    }
}

impl<K: Kind> Strategy for Builtin<K> {
    fn default(&self, object: &mut Value) {
        K::default(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        if K::COUNTS_GENERATIONS {
            object["metadata"]["generation"] = Value::from(1);
        }
        K::prepare_create(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if K::HAS_STATUS {
            carry_over(new, old, "status");
        }
        K::prepare_update(new, old);
        let starts_new = K::COUNTS_GENERATIONS && K::starts_new_generation(new, old);
        set_generation(new, old, starts_new);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        take_status(new, old, K::STATUS_KEEPS);
        K::prepare_status_update(new, old);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        check::<K>(object, K::validate)
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        check::<K>(object, K::validate_create)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        compare::<K>(new, old, K::validate_update)
    }

    // The object is decoded once for both checks.
    fn validate_new(&self, object: &Value) -> Vec<FieldError> {
        check::<K>(object, |object| [K::validate(object), K::validate_create(object)].concat())
    }

    fn validate_successor(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        compare::<K>(new, old, |new, old| [K::validate(new), K::validate_update(new, old)].concat())
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        compare::<K>(new, old, K::validate_status_update)
    }

    fn check_name(&self, name: &str) -> Vec<String> {
        K::check_name(name)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        K::selectable_fields(object)
    }

    fn selectable_field_names(&self) -> &[&'static str] {
        K::selectable_field_names()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        K::cells(object, now)
    }

    fn deletion(&self, object: &Value, requested: Option<i64>) -> Deletion {
        K::deletion(object, requested)
    }

    fn prepare_delete(&self, object: &mut Value) {
        K::prepare_delete(object);
    }

    fn is_held(&self, object: &Value) -> bool {
        K::is_held(object)
    }

    fn scale(&self, object: &Value) -> Option<Scale> {
        K::scale(object)
    }

    fn set_scale(&self, object: &mut Value, replicas: i32) {
        K::set_scale(object, replicas);
    }

    fn pooled(&self) -> Option<&dyn Pooled> {
        K::pooled()
    }
}

/// Sets the generation of an updated object, which a client cannot change.
pub(crate) fn set_generation(new: &mut Value, old: &Value, starts_new: bool) {
    carry_over(child(new, "metadata"), &old["metadata"], "generation");
    if starts_new {
        new["metadata"]["generation"] = Value::from(int(&old["metadata"]["generation"]) + 1);
    }
}

/// Replaces everything but the status and the metadata with the old object's, and the metadata fields `keeps`.
pub(crate) fn take_status(new: &mut Value, old: &Value, keeps: &[&str]) {
    let given = ["metadata", "status"].map(|part| (part, new.get_mut(part).map(Value::take)));
    *new = old.clone();
    if let Value::Object(object) = &mut *new {
        for (part, value) in given {
            match value {
                Some(value) if !value.is_null() => object.insert(part.to_owned(), value),
                _ => object.remove(part),
            };
        }
    }
    let metadata = child(new, "metadata");
    for field in keeps.iter().copied().chain(["generation"]) {
        carry_over(metadata, &old["metadata"], field);
    }
}

fn check<K: Kind>(object: &Value, check: fn(&K::Object) -> Vec<FieldError>) -> Vec<FieldError> {
    match K::Object::deserialize(object) {
        Ok(object) => check(&object),
        Err(error) => vec![decode_failure(&error)],
    }
}

fn compare<K: Kind>(new: &Value, old: &Value, check: fn(&K::Object, &K::Object) -> Vec<FieldError>) -> Vec<FieldError> {
    match (K::Object::deserialize(new), K::Object::deserialize(old)) {
        (Ok(new), Ok(old)) => check(&new, &old),
        (Err(error), _) | (_, Err(error)) => vec![decode_failure(&error)],
    }
}

/// Turns a decoding failure during validation into a field error. Validation sees only decoded objects, so the failure
/// is a defect in a patch or a strategy. It fails the request, not the server.
fn decode_failure(error: &serde_json::Error) -> FieldError {
    FieldError {
        path: FieldPath::default(),
        kind: quorate_api::FieldErrorKind::TypeInvalid,
        value: None,
        detail: error.to_string(),
    }
}

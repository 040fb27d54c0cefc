//! ConfigMap: keys that can be file names, a maximum size, and optional immutability.

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath};
use serde_json::Value;

use crate::check;
use crate::descriptor::Column;
use crate::kind::Kind;
use crate::table::{age_cell, column, name_cell, name_column};

/// Maximum size of the data of a ConfigMap or Secret, in bytes.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;

pub struct ConfigMap;

impl Kind for ConfigMap {
    type Object = core::ConfigMap;

    fn columns() -> Vec<Column> {
        vec![name_column(), column("Data"), column("Age")]
    }

    fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
        vec![name_cell(object), Value::from(count("data") + count("binaryData")), age_cell(object, now)]
    }

    fn validate(object: &core::ConfigMap) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (data, binary) = (FieldPath::new("data"), FieldPath::new("binaryData"));
        let mut size = 0;
        for (key, value) in object.data.iter().flatten() {
            check::data_key(key, &data, &mut errors);
            if object.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
                errors.push(FieldError::invalid(data.key(key), key, "duplicate of key present in binaryData"));
            }
            size += value.len();
        }
        for (key, value) in object.binary_data.iter().flatten() {
            check::data_key(key, &binary, &mut errors);
            size += value.0.len();
        }
        if size > MAX_DATA_BYTES {
            // Kubernetes uses this path for an error that names no field.
            errors.push(FieldError::too_long(FieldPath::new("[]"), MAX_DATA_BYTES));
        }
        errors
    }

    fn validate_update(new: &core::ConfigMap, old: &core::ConfigMap) -> Vec<FieldError> {
        if old.immutable != Some(true) {
            return Vec::new();
        }
        immutable_changes(&[
            ("immutable", new.immutable != Some(true)),
            ("data", new.data.as_ref().filter(|d| !d.is_empty()) != old.data.as_ref().filter(|d| !d.is_empty())),
            (
                "binaryData",
                new.binary_data.as_ref().filter(|d| !d.is_empty())
                    != old.binary_data.as_ref().filter(|d| !d.is_empty()),
            ),
        ])
    }
}

/// Returns the errors for the changed fields of an immutable ConfigMap or Secret.
pub fn immutable_changes(fields: &[(&str, bool)]) -> Vec<FieldError> {
    let changed = fields.iter().filter(|(_, changed)| *changed);
    changed
        .map(|(field, _)| FieldError::forbidden(FieldPath::new(field), "field is immutable when `immutable` is set"))
        .collect()
}

//! The `$` keys of a strategic merge patch.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::patch::PatchError;

/// `$patch: replace | delete | merge` in a map.
pub const PATCH: &str = "$patch";
/// The list of the only keys that a map may keep.
pub const RETAIN_KEYS: &str = "$retainKeys";
/// Prefix of a key that lists the scalars to remove from the list named after it.
pub const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
/// Prefix of a key that gives the order of the list named after it.
pub const ORDER: &str = "$setElementOrder/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapDirective {
    Replace,
    Delete,
    Merge,
}

/// Removes `$patch` from a map and returns its directive.
pub fn take_map_directive(patch: &mut Map<String, Value>) -> Result<Option<MapDirective>, PatchError> {
    match patch.remove(PATCH) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some("replace") => Ok(Some(MapDirective::Replace)),
            Some("delete") => Ok(Some(MapDirective::Delete)),
            Some("merge") => Ok(Some(MapDirective::Merge)),
            _ => Err(PatchError::Unprocessable(format!("unknown patch type found: {value}"))),
        },
    }
}

/// Removes `$retainKeys` from the patch, and drops the keys that it does not list from the target.
pub fn apply_retain_keys(target: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(retain) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retain) = retain else {
        return Err(bad_type(RETAIN_KEYS));
    };
    let names: HashSet<&str> = retain.iter().filter_map(Value::as_str).collect();
    let retained = |key: &str| names.contains(key);
    let unlisted = patch.iter().any(|(key, value)| !value.is_null() && !key.starts_with('$') && !retained(key));
    if unlisted {
        return Err(PatchError::Unprocessable("invalid patch format of retainKeys".to_owned()));
    }
    target.retain(|key, _| retained(key));
    Ok(())
}

/// Returns the part of a patch's value that remains when there is nothing to merge with, without directives and nulls.
/// `None` when the value only deletes.
pub fn strip(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) => {
            if map.get(PATCH).and_then(Value::as_str) == Some("delete") {
                return None;
            }
            let entries = map.into_iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
            Some(Value::Object(entries.filter_map(|(key, value)| Some((key, strip(value)?))).collect()))
        }
        Value::Array(list) if list.is_empty() => Some(Value::Array(list)),
        Value::Array(list) => Some(strip_list(list)).filter(|kept| !kept.is_empty()).map(Value::Array),
        scalar => Some(scalar),
    }
}

/// Applies [`strip`] to each element; `- $patch: replace` is a directive, not an element.
pub fn strip_list(list: Vec<Value>) -> Vec<Value> {
    list.into_iter()
        .filter(|item| item.as_object().is_none_or(|map| map.len() != 1 || !map.contains_key(PATCH)))
        .filter_map(strip)
        .collect()
}

pub fn bad_type(key: &str) -> PatchError {
    PatchError::Unprocessable(format!("wrong type for {key}: a list is expected"))
}

//! Strategic merge patch: a merge patch that knows which lists merge by key, with `$` directives.
//!
//! The semantics are those of `k8s.io/apimachinery/pkg/util/strategicpatch` as the API server applies it. [`schema`]
//! describes which lists merge, [`list`] merges and orders them, [`directive`] names the directives.

mod directive;
mod list;
pub mod schema;

use std::collections::HashSet;

use serde_json::{Map, Value};

use self::directive::{DELETE_FROM_LIST, MapDirective, ORDER};
use self::schema::{Field, List, Type};
use super::PatchError;
use crate::gvk::GroupVersionKind;

/// Applies `patch` to an object of `kind`. After an error, `target` may hold a part of the patch.
///
/// # Errors
/// When the patch is not an object, a directive is misused, or an element lacks its merge key.
pub fn apply(kind: &GroupVersionKind, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let root = schema::root(kind).ok_or(PatchError::NoStrategies)?;
    let (Value::Object(target), Value::Object(patch)) = (target, patch) else {
        return Err(PatchError::Malformed("a strategic merge patch and its target must be JSON objects".to_owned()));
    };
    merge_map(target, patch.clone(), Some(root))
}

fn merge_map(
    target: &mut Map<String, Value>,
    mut patch: Map<String, Value>,
    ty: Option<&Type>,
) -> Result<(), PatchError> {
    match directive::take_map_directive(&mut patch)? {
        Some(MapDirective::Replace) => {
            *target = patch;
            return Ok(());
        }
        Some(MapDirective::Delete) => {
            target.clear();
            return Ok(());
        }
        Some(MapDirective::Merge) | None => {}
    }
    directive::apply_retain_keys(target, &mut patch)?;
    merge_ordered_lists(target, &mut patch, ty)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM_LIST) {
            if let Some(Value::Array(items)) = target.get_mut(field) {
                let Value::Array(unwanted) = value else {
                    return Err(directive::bad_type(&key));
                };
                let unwanted: HashSet<Value> = unwanted.into_iter().collect();
                items.retain(|item| !unwanted.contains(item));
            }
            continue;
        }
        if value.is_null() {
            target.remove(&key);
            continue;
        }
        let field = ty.and_then(|ty| ty.field(&key));
        match (target.get_mut(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge_map(old, new, field.and_then(|f| f.ty))?,
            (Some(Value::Array(old)), Value::Array(new)) => merge_field_list(old, new, field)?,
            (_, value) => match directive::strip(value) {
                Some(value) => {
                    target.insert(key, value);
                }
                // The patch only deletes an item, and there is nothing to delete it from.
                None => {
                    target.remove(&key);
                }
            },
        }
    }
    Ok(())
}

/// Merges the lists whose order the patch prescribes, and removes them from the patch.
fn merge_ordered_lists(
    target: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    ty: Option<&Type>,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER)).cloned().collect();
    for directive_key in directives {
        let name = &directive_key[ORDER.len()..];
        let Some(Value::Array(order)) = patch.remove(&directive_key) else {
            return Err(directive::bad_type(&directive_key));
        };
        let field = ty.and_then(|ty| ty.field(name));
        let merge_key = field.and_then(Field::merge_key);
        let in_patch = match patch.get(name) {
            Some(Value::Array(list)) => Some(list.as_slice()),
            // A null deletes the list and a scalar replaces it; the caller handles both.
            Some(_) => continue,
            None => None,
        };
        list::check_order(in_patch.unwrap_or_default(), &order, merge_key, name)?;
        let from_patch = match patch.remove(name) {
            Some(Value::Array(list)) => Some(list),
            _ => None,
        };
        let before = match target.get(name) {
            Some(Value::Array(list)) => Some(list.clone()),
            _ => None,
        };
        let merged = match (&before, from_patch) {
            (None, None) => continue,
            (Some(old), None) => old.clone(),
            (None, Some(new)) => directive::strip_list(new),
            (Some(old), Some(new)) => {
                let mut merged = old.clone();
                merge_field_list(&mut merged, new, field)?;
                merged
            }
        };
        let merged = list::reorder(merged, &order, before.as_deref().unwrap_or_default(), merge_key)?;
        target.insert(name.to_owned(), Value::Array(merged));
    }
    Ok(())
}

fn merge_field_list(old: &mut Vec<Value>, new: Vec<Value>, field: Option<&Field>) -> Result<(), PatchError> {
    match field.map_or(List::Replace, |field| field.list) {
        List::Replace => *old = directive::strip_list(new),
        List::MergeScalars => list::merge_scalars(old, new)?,
        List::MergeBy(key) => list::merge_by_key(old, new, key, field.and_then(|f| f.ty))?,
    }
    Ok(())
}

impl Field {
    fn merge_key(&self) -> Option<&'static str> {
        match self.list {
            List::MergeBy(key) => Some(key),
            List::Replace | List::MergeScalars => None,
        }
    }
}

#[cfg(test)]
mod tests;

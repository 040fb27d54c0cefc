//! Computes the three-way diff of `apply`: the patch that brings a live object to a manifest, given the previous
//! manifest. Fields that the manifest never contained (defaults, other writers' fields) stay. Fields that it no longer
//! contains are deleted. The semantics are those of `k8s.io/apimachinery/pkg/util/strategicpatch`.

use serde_json::{Map, Value, json};

use super::PatchError;
use super::strategic::schema::{self, Field, List, Type};
use crate::gvk::GroupVersionKind;

/// Computes a strategic merge patch from `current` to `modified`; `original` is the manifest applied last. The patch is
/// empty when nothing changes.
///
/// # Errors
/// [`PatchError::NoStrategies`] for kinds without strategic merge; use [`merge`] for them.
pub fn strategic(
    kind: &GroupVersionKind,
    original: &Value,
    modified: &Value,
    current: &Value,
) -> Result<Value, PatchError> {
    let root = schema::root(kind).ok_or(PatchError::NoStrategies)?;
    between(original, modified, current, Some(root))
}

/// Computes a JSON merge patch from `current` to `modified`, which replaces lists. The patch is empty when nothing
/// changes.
///
/// # Errors
/// When one of the three is not an object.
pub fn merge(original: &Value, modified: &Value, current: &Value) -> Result<Value, PatchError> {
    between(original, modified, current, None)
}

fn between(original: &Value, modified: &Value, current: &Value, root: Option<&Type>) -> Result<Value, PatchError> {
    let (Some(modified), Some(current)) = (modified.as_object(), current.as_object()) else {
        return Err(PatchError::Malformed("a patch can be computed between JSON objects only".to_owned()));
    };
    Ok(Value::Object(maps(original.as_object(), modified, current, root)))
}

fn maps(
    original: Option<&Map<String, Value>>,
    modified: &Map<String, Value>,
    current: &Map<String, Value>,
    ty: Option<&Type>,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, wanted) in modified {
        let present = current.get(key).filter(|value| !value.is_null());
        let Some(present) = present else {
            if !wanted.is_null() {
                patch.insert(key.clone(), wanted.clone());
            }
            continue;
        };
        if wanted == present {
            continue;
        }
        let field = ty.and_then(|ty| ty.field(key));
        let before = original.and_then(|original| original.get(key));
        match (wanted, present) {
            (Value::Object(wanted), Value::Object(present)) => {
                let mut inner =
                    maps(before.and_then(Value::as_object), wanted, present, field.and_then(|field| field.ty));
                if !inner.is_empty() {
                    if retains_keys(ty, key) {
                        retain(&mut inner, wanted);
                    }
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (Value::Array(wanted), Value::Array(present)) => {
                let before = before.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                lists(key, before, wanted, present, field, retains_keys(ty, key), &mut patch);
            }
            _ => {
                patch.insert(key.clone(), wanted.clone());
            }
        }
    }
    for key in original.into_iter().flat_map(Map::keys) {
        if !modified.contains_key(key) && current.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    patch
}

/// Returns whether the field is one of the API's two unions whose tags say `retainKeys`: only the members that the
/// manifest names stay.
fn retains_keys(ty: Option<&Type>, field: &str) -> bool {
    ty.is_some_and(|ty| {
        (field == "strategy" && ty.name.ends_with(".DeploymentSpec"))
            || (field == "volumes" && ty.name.ends_with(".PodSpec"))
    })
}

fn retain(patch: &mut Map<String, Value>, wanted: &Map<String, Value>) {
    let keys: Vec<&String> = wanted.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key).collect();
    patch.insert("$retainKeys".to_owned(), json!(keys));
}

fn lists(
    name: &str,
    before: &[Value],
    wanted: &[Value],
    present: &[Value],
    field: Option<&Field>,
    retains: bool,
    patch: &mut Map<String, Value>,
) {
    match field.map_or(List::Replace, |field| field.list) {
        List::Replace => {
            patch.insert(name.to_owned(), wanted.into());
        }
        List::MergeScalars => {
            let added: Vec<Value> = wanted.iter().filter(|item| !present.contains(item)).cloned().collect();
            let removed: Vec<Value> =
                before.iter().filter(|item| !wanted.contains(item) && present.contains(item)).cloned().collect();
            if added.is_empty() && removed.is_empty() && in_order(wanted, present) {
                return;
            }
            patch.insert(format!("$setElementOrder/{name}"), wanted.into());
            if !added.is_empty() {
                patch.insert(name.to_owned(), added.into());
            }
            if !removed.is_empty() {
                patch.insert(format!("$deleteFromPrimitiveList/{name}"), removed.into());
            }
        }
        List::MergeBy(key)
            if has_unique_keys(wanted, key) && has_unique_keys(present, key) && has_unique_keys(before, key) =>
        {
            let ty = field.and_then(|field| field.ty);
            keyed_lists(name, key, [before, wanted, present], ty, retains, patch);
        }
        // Elements that share a merge key (the same port for TCP and UDP) cannot merge, so the list is replaced.
        List::MergeBy(_) => {
            let whole: Vec<Value> = wanted.iter().cloned().chain([json!({"$patch": "replace"})]).collect();
            patch.insert(name.to_owned(), whole.into());
        }
    }
}

fn keyed_lists(
    name: &str,
    key: &str,
    [before, wanted, present]: [&[Value]; 3],
    ty: Option<&Type>,
    retains: bool,
    patch: &mut Map<String, Value>,
) {
    let find = |list: &'_ [Value], id: Option<&Value>| list.iter().position(|item| item.get(key) == id);
    let mut items = Vec::new();
    for item in wanted {
        let id = item.get(key);
        let pair = item.as_object().zip(find(present, id).and_then(|at| present[at].as_object()));
        let Some((item_fields, present_fields)) = pair else {
            items.push(item.clone());
            continue;
        };
        let original = find(before, id).and_then(|at| before[at].as_object());
        let mut inner = maps(original, item_fields, present_fields, ty);
        if !inner.is_empty() {
            if retains {
                retain(&mut inner, item_fields);
            }
            inner.insert(key.to_owned(), id.cloned().unwrap_or_default());
            items.push(Value::Object(inner));
        }
    }
    for item in before {
        let id = item.get(key);
        if find(wanted, id).is_none() && find(present, id).is_some() {
            items.push(json!({"$patch": "delete", key: id}));
        }
    }
    let ids = |list: &[Value]| -> Vec<Value> { list.iter().map(|item| json!({key: item[key]})).collect() };
    let order = ids(wanted);
    if items.is_empty() && in_order(&order, &ids(present)) {
        return;
    }
    patch.insert(format!("$setElementOrder/{name}"), order.into());
    if !items.is_empty() {
        patch.insert(name.to_owned(), items.into());
    }
}

/// Returns whether every element has the key, and all values of it differ.
fn has_unique_keys(list: &[Value], key: &str) -> bool {
    list.iter()
        .enumerate()
        .all(|(at, item)| item.get(key).is_some_and(|id| list[..at].iter().all(|other| other.get(key) != Some(id))))
}

/// Returns whether the elements of `wanted` appear in `present` in the same order, perhaps with others between them.
fn in_order(wanted: &[Value], present: &[Value]) -> bool {
    let mut rest = present.iter();
    wanted.iter().all(|item| rest.any(|other| other == item))
}

#[cfg(test)]
mod tests;

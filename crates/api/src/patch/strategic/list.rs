//! Merging of lists, by key or as sets of scalars, and the order of the result.

use serde_json::Value;

use super::schema::Type;
use super::{directive, merge_map};
use crate::patch::PatchError;

/// Appends new scalars and keeps each scalar once.
pub fn merge_scalars(old: &mut Vec<Value>, new: Vec<Value>) -> Result<(), PatchError> {
    if new.iter().any(|item| item.is_object() || item.is_array()) {
        return Err(PatchError::Unprocessable("a list of scalars cannot merge with maps or lists".to_owned()));
    }
    let mut merged: Vec<Value> = Vec::with_capacity(old.len() + new.len());
    for item in old.iter().chain(&new) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    *old = reorder(merged, &new, old, None)?;
    Ok(())
}

/// Merges the elements that share the value of `key`, following `$patch` in elements.
pub fn merge_by_key(
    old: &mut Vec<Value>,
    new: Vec<Value>,
    key: &'static str,
    ty: Option<&Type>,
) -> Result<(), PatchError> {
    let before = old.clone();
    let (mut ordinary, mut replace) = (Vec::with_capacity(new.len()), false);
    for item in new {
        match item.get(directive::PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None => ordinary.push(item),
            Some("delete") => {
                let unwanted = merge_value(&item, key)?.clone();
                old.retain(|existing| existing.get(key) != Some(&unwanted));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Unprocessable("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some(other) => return Err(PatchError::Unprocessable(format!("unknown patch type found: {other}"))),
        }
    }
    if replace {
        *old = directive::strip_list(ordinary);
        return Ok(());
    }
    let mut order = Vec::with_capacity(ordinary.len());
    for item in ordinary {
        let wanted = merge_value(&item, key)?.clone();
        order.push(serde_json::json!({ key: wanted }));
        match (old.iter_mut().find(|existing| existing.get(key) == Some(&wanted)), item) {
            (Some(Value::Object(existing)), Value::Object(patch)) => merge_map(existing, patch, ty)?,
            (_, item) => old.extend(directive::strip(item)),
        }
    }
    *old = reorder(std::mem::take(old), &order, &before, Some(key))?;
    Ok(())
}

/// Checks that the patch's elements are in the order that the patch prescribes.
pub fn check_order(patch: &[Value], order: &[Value], key: Option<&'static str>, name: &str) -> Result<(), PatchError> {
    let mut rest = order.iter();
    for item in patch.iter().filter(|item| item.get(directive::PATCH).is_none()) {
        if !rest.any(|ordered| same(ordered, item, key)) {
            return Err(PatchError::Unprocessable(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\nof {name}",
                Value::from(patch),
                Value::from(order),
            )));
        }
    }
    Ok(())
}

/// Orders `items`: those named in `order` as listed there, the others as they were in `before`. The two runs are merged
/// so that an unnamed element stays in front of the element that it preceded.
pub fn reorder(
    items: Vec<Value>,
    order: &[Value],
    before: &[Value],
    key: Option<&'static str>,
) -> Result<Vec<Value>, PatchError> {
    if let Some(key) = key {
        for item in order.iter().chain(&items) {
            merge_value(item, key)?;
        }
    }
    let position = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item, key));
    let (mut named, mut unnamed): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| position(order, item).is_some());
    named.sort_by_key(|item| position(order, item));
    unnamed.sort_by_key(|item| position(before, item));

    let mut ordered = Vec::with_capacity(named.len() + unnamed.len());
    let (mut named, mut unnamed) = (named.into_iter().peekable(), unnamed.into_iter().peekable());
    while let (Some(left), Some(right)) = (named.peek(), unnamed.peek()) {
        let left_first = match (position(before, left), position(before, right)) {
            (Some(left), Some(right)) => left < right,
            _ => false,
        };
        ordered.extend(if left_first { named.next() } else { unnamed.next() });
    }
    ordered.extend(named);
    ordered.extend(unnamed);
    Ok(ordered)
}

fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key) == b.get(key),
        None => a == b,
    }
}

fn merge_value<'a>(item: &'a Value, key: &str) -> Result<&'a Value, PatchError> {
    item.get(key)
        .ok_or_else(|| PatchError::Unprocessable(format!("map: {item} does not contain declared merge key: {key}")))
}

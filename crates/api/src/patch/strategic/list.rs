//! Merging of lists, by key or as sets of scalars, and the order of the result.
//!
//! Elements are found through hash indexes, so the work grows with the lengths of the lists and not with their product.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde_json::Value;

use super::schema::Type;
use super::{directive, merge_map};
use crate::patch::PatchError;

/// Appends new scalars and keeps each scalar once.
pub fn merge_scalars(old: &mut Vec<Value>, new: Vec<Value>) -> Result<(), PatchError> {
    if new.iter().any(|item| item.is_object() || item.is_array()) {
        return Err(PatchError::Unprocessable("a list of scalars cannot merge with maps or lists".to_owned()));
    }
    let mut seen = HashSet::with_capacity(old.len() + new.len());
    let merged = old.iter().chain(&new).filter(|item| seen.insert(*item)).cloned().collect();
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
    let (mut ordinary, mut unwanted, mut replace) = (Vec::with_capacity(new.len()), HashSet::new(), false);
    for item in new {
        match item.get(directive::PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None => ordinary.push(item),
            Some("delete") => {
                unwanted.insert(merge_value(&item, key)?.clone());
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
    if !unwanted.is_empty() {
        old.retain(|existing| existing.get(key).is_none_or(|value| !unwanted.contains(value)));
    }
    let mut index = KeyIndex::default();
    old.iter().enumerate().for_each(|(position, existing)| index.insert(existing.get(key), position));
    let mut order = Vec::with_capacity(ordinary.len());
    for item in ordinary {
        let wanted = merge_value(&item, key)?.clone();
        order.push(serde_json::json!({ key: wanted }));
        let found = index.first(&wanted).and_then(|position| Some((position, old.get_mut(position)?)));
        match (found, item) {
            (Some((position, Value::Object(existing))), Value::Object(patch)) => {
                merge_map(existing, patch, ty)?;
                // Merging a null into the key removes it.
                if existing.get(key) != Some(&wanted) {
                    index.remove(&wanted, position);
                    index.insert(existing.get(key), position);
                }
            }
            (_, item) => {
                if let Some(item) = directive::strip(item) {
                    index.insert(item.get(key), old.len());
                    old.push(item);
                }
            }
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
    let (in_order, in_before) = (positions(order, key), positions(before, key));
    let named_at = |item: &Value| in_order.get(&identity(item, key)).copied();
    let unnamed_at = |item: &Value| in_before.get(&identity(item, key)).copied();
    let (mut named, mut unnamed): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| named_at(item).is_some());
    named.sort_by_cached_key(named_at);
    unnamed.sort_by_cached_key(unnamed_at);

    let mut ordered = Vec::with_capacity(named.len() + unnamed.len());
    let (mut named, mut unnamed) = (named.into_iter().peekable(), unnamed.into_iter().peekable());
    while let (Some(left), Some(right)) = (named.peek(), unnamed.peek()) {
        let left_first = match (unnamed_at(left), unnamed_at(right)) {
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
    identity(a, key) == identity(b, key)
}

/// Returns the part of an element by which it is found: the value of its key, or the whole scalar.
fn identity<'a>(item: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        Some(key) => item.get(key),
        None => Some(item),
    }
}

/// Returns the first position of each element's identity.
fn positions<'a>(list: &'a [Value], key: Option<&str>) -> HashMap<Option<&'a Value>, usize> {
    let mut positions = HashMap::with_capacity(list.len());
    for (position, item) in list.iter().enumerate() {
        positions.entry(identity(item, key)).or_insert(position);
    }
    positions
}

/// Positions of a list's elements by the value of their key.
#[derive(Default)]
struct KeyIndex(HashMap<Value, BTreeSet<usize>>);

impl KeyIndex {
    fn insert(&mut self, value: Option<&Value>, position: usize) {
        if let Some(value) = value {
            self.0.entry(value.clone()).or_default().insert(position);
        }
    }

    fn remove(&mut self, value: &Value, position: usize) {
        if let Some(positions) = self.0.get_mut(value) {
            positions.remove(&position);
        }
    }

    fn first(&self, value: &Value) -> Option<usize> {
        self.0.get(value)?.first().copied()
    }
}

fn merge_value<'a>(item: &'a Value, key: &str) -> Result<&'a Value, PatchError> {
    item.get(key)
        .ok_or_else(|| PatchError::Unprocessable(format!("map: {item} does not contain declared merge key: {key}")))
}

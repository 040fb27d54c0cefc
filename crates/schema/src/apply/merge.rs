//! Merges an applied configuration into an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::extract::step;
use super::walk::{Place, View};
use crate::model::{Model, TypeId};

/// Returns the object with the configuration's values. Nothing is removed. [`super::extract`] has accepted the
/// configuration, so that the elements of its lists are told apart.
#[must_use]
pub fn merge(model: &Model, ty: TypeId, object: &Value, configuration: &Value) -> Value {
    merged(model, Place::Object(ty), object, configuration)
}

fn merged(model: &Model, place: Place<'_>, left: &Value, right: &Value) -> Value {
    let view = place.view(model);
    match (view, left, right) {
        (View::Struct(_) | View::Map(_), Value::Object(left), Value::Object(right)) => {
            let mut members: Map<String, Value> = left.clone();
            for (name, value) in right {
                let (place, _) = view.member(model, name);
                let value = left.get(name).map_or_else(|| value.clone(), |left| merged(model, place, left, value));
                members.insert(name.clone(), value);
            }
            Value::Object(members)
        }
        (View::Set | View::Keyed(..), Value::Array(left), Value::Array(right)) => list(model, view, left, right),
        _ => right.clone(),
    }
}

/// Merges two lists. The elements of the configuration get its order; the others stay where they are, and a new element
/// comes directly before the next one that both lists have.
fn list(model: &Model, view: View<'_>, left: &[Value], right: &[Value]) -> Value {
    let key = |value: &Value| step(model, view, value).ok();
    let lefts: Vec<_> = left.iter().map(|value| (key(value), value)).collect();
    let rights: Vec<_> = right.iter().map(|value| (key(value), value)).collect();
    let in_left: BTreeMap<&str, &Value> =
        lefts.iter().filter_map(|(key, value)| Some((key.as_ref()?.0.as_str(), *value))).collect();
    let in_right: BTreeMap<&str, usize> =
        rights.iter().enumerate().filter_map(|(index, (key, _))| Some((key.as_ref()?.0.as_str(), index))).collect();
    let take = |(key, value): &(Option<(String, Place<'_>)>, &Value)| match key {
        Some((step, place)) => match in_left.get(step.as_str()) {
            Some(left) => merged(model, *place, left, value),
            None => (*value).clone(),
        },
        None => (*value).clone(),
    };
    // The number of shared elements before each element of the configuration.
    let mut shared_before = Vec::with_capacity(rights.len() + 1);
    let mut shared = 0;
    for (key, _) in &rights {
        shared_before.push(shared);
        shared += usize::from(key.as_ref().is_some_and(|(step, _)| in_left.contains_key(step.as_str())));
    }
    shared_before.push(shared);
    let mut result = Vec::with_capacity(left.len().max(right.len()));
    let mut taken = 0;
    for (key, value) in &lefts {
        let Some(&index) = key.as_ref().and_then(|(step, _)| in_right.get(step.as_str())) else {
            result.push((*value).clone());
            continue;
        };
        // An element that comes earlier in the configuration comes first here as well.
        let is_next = index >= taken && shared_before[index] == shared_before[taken];
        if is_next {
            result.extend(rights[taken..=index].iter().map(take));
            taken = index + 1;
        }
    }
    result.extend(rights[taken..].iter().map(take));
    Value::Array(result)
}

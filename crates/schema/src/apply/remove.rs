//! Removes fields from an object, and finds those that a manager has given up.

use serde_json::{Map, Value};

use super::element;
use super::extract::{extract_leniently, step};
use super::set::FieldSet;
use super::walk::{Place, View};
use crate::model::{Model, TypeId};

/// Removes from `merged` the fields of `last` (what a manager applied before) that are not in `owned` (what it applies
/// now, and what the other managers have). An object that becomes empty is removed as well.
pub(super) fn prune(model: &Model, ty: TypeId, merged: &Value, last: &FieldSet, owned: &FieldSet) -> Value {
    let root = Place::Object(ty);
    let with_named = |mut set: FieldSet| {
        add_named_fields(model, root, &mut set);
        set
    };
    let last = with_named(last.clone());
    let all = with_named(extract_leniently(model, ty, merged));
    let bare = without(model, root, merged, &last, owned).unwrap_or(Value::Null);
    // Fields that some manager owns are restored, with the objects around them.
    let mut kept = with_named(extract_leniently(model, ty, &bare));
    kept.extend(&with_named(owned.clone()));
    let mut unowned = all.clone();
    unowned.subtract(&kept);
    let pruned = without(model, root, merged, &unowned, owned).unwrap_or(Value::Null);
    // Fields below a removed one that this manager did not apply are restored too.
    let mut given_up = all;
    given_up.subtract(&with_named(extract_leniently(model, ty, &pruned)));
    let given_up = given_up.intersection(&last);
    without(model, root, merged, &given_up, owned).unwrap_or_else(|| Value::Object(Map::new()))
}

/// Adds the declared fields above the paths of a set. A map's entry and a list's element are in a set by themselves, but
/// an object that is a field is there only if it is empty.
fn add_named_fields(model: &Model, place: Place<'_>, set: &mut FieldSet) {
    let view = place.view(model);
    for (step, node) in set.children_mut() {
        let (below, is_declared) = match (step.strip_prefix("f:"), view) {
            (Some(name), _) => view.member(model, name),
            (None, View::Keyed(_, item)) => (item, false),
            (None, _) => (Place::Untyped, false),
        };
        node.is_member |= is_declared && !node.below.is_empty();
        add_named_fields(model, below, &mut node.below);
    }
}

/// Returns the value without the fields; `None` when nothing is left of it. An object that becomes empty stays if it is
/// itself in `owned`.
fn without(model: &Model, place: Place<'_>, value: &Value, set: &FieldSet, owned: &FieldSet) -> Option<Value> {
    let view = place.view(model);
    let below = |step: &str, place: Place<'_>, value: &Value| match set.child(step) {
        None => Some(value.clone()),
        Some(node) if node.is_member => None,
        Some(node) => {
            let nothing = FieldSet::default();
            let theirs = owned.child(step);
            let left = without(model, place, value, &node.below, theirs.map_or(&nothing, |node| &node.below));
            let is_owned = value.is_object() && theirs.is_some_and(|node| node.is_member);
            left.or_else(|| is_owned.then(|| Value::Object(Map::new())))
        }
    };
    match (view, value) {
        (View::Struct(_) | View::Map(_), Value::Object(members)) if !members.is_empty() => {
            let kept = members.iter().filter_map(|(name, value)| {
                let kept = below(&element::field(name), view.member(model, name).0, value)?;
                Some((name.clone(), kept))
            });
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (View::Set | View::Keyed(..), Value::Array(elements)) if !elements.is_empty() => {
            let kept = elements.iter().filter_map(|value| match step(model, view, value) {
                Ok((step, place)) => below(&step, place, value),
                Err(_) => Some(value.clone()),
            });
            let kept: Vec<Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}
